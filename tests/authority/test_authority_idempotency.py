"""The same key with the same arguments answers what the first call answered; with others it is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass, replace
from typing import Any

import pytest
from tests.authority.kit import ACME, AGENT, BOT, CALL, TENANT, budget, events, figures, hold, ledger

from clearance.authority.clock import ManualClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import BudgetExceeded, IdempotencyMismatch, ReservationFinalized
from clearance.model.action import Action
from clearance.model.amount import tokens, usd
from clearance.model.caps import Caps, CapsRule
from clearance.model.period import Period
from clearance.model.subject import Subject

Call = Callable[..., Any]
VERBS = ("reserve", "dry_run", "decide", "event", "fund", "commit", "release", "extend")
WRITING = tuple(verb for verb in VERBS if verb not in ("dry_run", "decide"))


def keyed(authority: EmbeddedAuthority, verb: str, held: str, amount: int = 60, key: str = "k") -> Any:
    """One call of the verb with a key."""
    asks: dict[str, tuple[Any, ...]] = {
        **dict.fromkeys(("reserve", "dry_run", "decide", "event"), (BOT, CALL, tokens(amount))),
        "fund": (TENANT, "CREDIT", tokens(amount)),
        "commit": (held, tokens(amount)),
        "release": (held,),
        "extend": (held, amount * 1000),
    }
    more = {"reason": f"because {amount}"} if verb == "release" else {}
    return getattr(authority, verb)(*asks[verb], idempotency_key=key, **more)


def prepared(authority: EmbeddedAuthority) -> str:
    budget(
        authority,
        TENANT,
        1000,
        caps=(CapsRule(caps=Caps(max_tokens=5, tool_denylist=("rm",))),),
        period=Period(every="month"),
    )
    budget(authority, AGENT, 500)
    return hold(authority, 100, BOT)


def lasting(answer: Any) -> Any:
    """The answer without the time that is left, which a replay computes anew."""
    if not hasattr(answer, "remaining_ttl_ms"):
        return answer
    return replace(answer, remaining_ttl_ms=0) if is_dataclass(answer) else answer._replace(remaining_ttl_ms=0)


@pytest.mark.parametrize("verb", VERBS)
def test_a_replay_says_word_for_word_what_was_said_first_and_does_nothing(
    authority: EmbeddedAuthority, clock: ManualClock, verb: str
) -> None:
    held = prepared(authority)
    first = keyed(authority, verb, held)
    authority.event(BOT, CALL, tokens(7))
    authority.fund(AGENT, "CREDIT", tokens(1))
    clock.advance(1500)
    before = ledger(authority)
    again = keyed(authority, verb, held)
    assert lasting(again) == lasting(first)
    if hasattr(first, "balances"):
        assert again.balances == first.balances
    assert ledger(authority) == before


@pytest.mark.parametrize("verb", VERBS)
def test_a_replay_survives_the_end_of_the_process(tmp_path: Any, open_ledger: Call, verb: str) -> None:
    path = tmp_path / "ledger.db"
    authority = open_ledger(path)
    held = prepared(authority)
    first = keyed(authority, verb, held)
    authority.close()
    assert lasting(keyed(open_ledger(path), verb, held)) == lasting(first)


@pytest.mark.parametrize("verb", VERBS)
def test_other_arguments_under_a_used_key_are_a_mismatch(authority: EmbeddedAuthority, verb: str) -> None:
    held = prepared(authority)
    keyed(authority, verb, held)
    before = ledger(authority)
    with pytest.raises(IdempotencyMismatch):
        keyed(authority, verb, held, amount=61)
    assert ledger(authority) == before


@pytest.mark.parametrize("verb", ["reserve", "dry_run", "decide", "event", "fund", "extend"])
def test_another_key_is_another_call(authority: EmbeddedAuthority, verb: str) -> None:
    held = prepared(authority)
    keyed(authority, verb, held, key="one")
    keyed(authority, verb, held, key="two")
    told = {
        "reserve": "reservation.created",
        "event": "spend.recorded",
        "fund": "budget.funded",
        "extend": "reservation.extended",
    }
    expected = 3 if verb == "reserve" else 2
    assert len(events(authority, told.get(verb, "decision.previewed"))) == expected


@pytest.mark.parametrize(
    ("first", "second"), [("commit", "commit"), ("commit", "release"), ("release", "commit"), ("release", "release")]
)
def test_another_key_on_what_is_settled_is_finalized_and_no_mismatch(
    authority: EmbeddedAuthority, first: str, second: str
) -> None:
    held = prepared(authority)
    keyed(authority, first, held, key="one")
    with pytest.raises(ReservationFinalized):
        keyed(authority, second, held, key="two")


@pytest.mark.parametrize(
    "change", ["subject", "action", "unit", "ttl_ms", "grace_period_ms", "overage_policy", "metadata", "dimensions"]
)
def test_every_argument_of_a_hold_counts(authority: EmbeddedAuthority, change: str) -> None:
    prepared(authority)
    budget(authority, TENANT, usd(1))
    asked: dict[str, Any] = {"subject": BOT, "action": CALL, "estimate": tokens(1), "idempotency_key": "k"}
    authority.reserve(**asked)
    other: dict[str, Any] = {
        "subject": {"subject": ACME},
        "dimensions": {"subject": Subject(tenant="acme", agent="bot", dimensions={"a": "b"})},
        "action": {"action": Action(kind="llm.completion", name="other")},
        "unit": {"estimate": usd("0.00000001")},
        "ttl_ms": {"ttl_ms": 1000},
        "grace_period_ms": {"grace_period_ms": 0},
        "overage_policy": {"overage_policy": "REJECT"},
        "metadata": {"metadata": {"a": 1}},
    }[change]
    with pytest.raises(IdempotencyMismatch):
        authority.reserve(**{**asked, **other})


def test_the_order_of_keys_in_maps_does_not_count(authority: EmbeddedAuthority) -> None:
    prepared(authority)
    ids = set()
    for pairs in ([("a", "1"), ("b", "2")], [("b", "2"), ("a", "1")]):
        subject = Subject(tenant="acme", dimensions=dict(pairs))
        answer = authority.reserve(subject, CALL, tokens(1), metadata={"m": dict(pairs)}, idempotency_key="k")
        ids.add(answer.reservation_id)
    assert len(ids) == 1


def test_live_and_dry_run_share_their_keys_and_decide_has_its_own(authority: EmbeddedAuthority) -> None:
    held = prepared(authority)
    keyed(authority, "reserve", held, key="live")
    with pytest.raises(IdempotencyMismatch):
        keyed(authority, "dry_run", held, key="live")
    keyed(authority, "dry_run", held, key="dry")
    with pytest.raises(IdempotencyMismatch):
        keyed(authority, "reserve", held, key="dry")
    assert keyed(authority, "decide", held, key="live").reservation_id is None
    assert keyed(authority, "decide", held, key="dry").allowed


def test_keys_of_different_verbs_and_tenants_never_collide(authority: EmbeddedAuthority) -> None:
    held = prepared(authority)
    budget(authority, "tenant:other", 10)
    for verb in ("reserve", "decide", "event", "fund", "extend", "commit"):
        keyed(authority, verb, held, key="same")
    authority.reserve(Subject(tenant="other"), CALL, tokens(1), idempotency_key="same")
    authority.fund("tenant:other", "CREDIT", tokens(1), idempotency_key="same")


def test_a_commit_key_belongs_to_its_reservation(authority: EmbeddedAuthority) -> None:
    prepared(authority)
    for amount in (10, 20):
        assert authority.commit(hold(authority, 50), tokens(amount), idempotency_key="same").charged == amount


def test_a_denied_hold_is_not_remembered(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 10)
    for _ in range(2):
        with pytest.raises(BudgetExceeded):
            hold(authority, 50, idempotency_key="k")
    authority.fund(TENANT, "CREDIT", tokens(40))
    first = hold(authority, 50, idempotency_key="k")
    assert hold(authority, 50, idempotency_key="k") == first
    assert figures(authority) == (0, 50, 0, 0)


@pytest.mark.parametrize("preview", ["dry_run", "decide"])
def test_a_denied_preview_is_remembered(authority: EmbeddedAuthority, preview: str) -> None:
    budget(authority, TENANT, 10)
    ask = getattr(authority, preview)
    first = ask(ACME, CALL, tokens(50), idempotency_key="k")
    authority.fund(TENANT, "CREDIT", tokens(40))
    assert ask(ACME, CALL, tokens(50), idempotency_key="k") == first
    assert first.decision == "DENY"
    assert ask(ACME, CALL, tokens(50)).allowed


def test_a_failed_commit_is_not_remembered(authority: EmbeddedAuthority) -> None:
    budget(authority)
    held = hold(authority, 10, overage_policy="REJECT")
    with pytest.raises(BudgetExceeded):
        authority.commit(held, tokens(11), idempotency_key="k")
    assert authority.commit(held, tokens(9), idempotency_key="k").charged == 9


@pytest.mark.parametrize("verb", VERBS)
def test_a_success_is_replayed_after_the_tenant_was_closed(authority: EmbeddedAuthority, verb: str) -> None:
    held = prepared(authority)
    first = keyed(authority, verb, held)
    authority.close_tenant("acme")
    assert lasting(keyed(authority, verb, held)) == lasting(first)


def test_the_time_that_is_left_is_counted_from_the_first_expiry(
    authority: EmbeddedAuthority, clock: ManualClock
) -> None:
    prepared(authority)

    def left() -> int | None:
        return authority.reserve(ACME, CALL, tokens(1), ttl_ms=10_000, idempotency_key="k").remaining_ttl_ms

    assert left() == 10_000
    clock.advance(4_000)
    assert left() == 6_000
    held = str(authority.reserve(ACME, CALL, tokens(1), ttl_ms=10_000, idempotency_key="k").reservation_id)
    authority.extend(held, 60_000)
    assert left() == 6_000
    clock.advance(7_000)
    assert left() == 0
    authority.commit(held, tokens(1))
    assert left() == 0


def test_an_old_extension_is_replayed_after_the_most_and_after_the_end(
    authority: EmbeddedAuthority, clock: ManualClock
) -> None:
    held = prepared(authority)
    first = authority.extend(held, 1000, idempotency_key="first")
    for _ in range(9):
        authority.extend(held, 1000)
    clock.advance(500)
    again = authority.extend(held, 1000, idempotency_key="first")
    assert (again.expires_at_ms, again.remaining_ttl_ms) == (first.expires_at_ms, first.remaining_ttl_ms - 500)
    authority.commit(held, tokens(1))
    assert authority.extend(held, 1000, idempotency_key="first").remaining_ttl_ms == 0
