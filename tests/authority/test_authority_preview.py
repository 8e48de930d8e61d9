"""Dry runs and decide: the answer of a reserve, with nothing held."""

from __future__ import annotations

from typing import Any

import pytest
from tests.authority.kit import ACME, AGENT, BOT, CALL, TENANT, budget, hold, put_account, run

from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import NotFound
from clearance.model.amount import tokens
from clearance.model.caps import Caps, CapsRule

PREVIEWS = pytest.mark.parametrize("preview", ["dry_run", "decide"])


@PREVIEWS
def test_an_allowed_preview_writes_nothing_and_has_no_reservation(authority: EmbeddedAuthority, preview: str) -> None:
    budget(authority, TENANT, 1000)
    seen = authority.events()
    answer = getattr(authority, preview)(ACME, CALL, tokens(100))
    assert (answer.decision, answer.estimate, answer.affected_scopes) == ("ALLOW", 100, (TENANT,))
    assert (answer.reservation_id, answer.expires_at_ms, answer.remaining_ttl_ms, answer.reserved) == (None,) * 4
    assert [(b.scope, b.remaining, b.reserved) for b in answer.balances] == [(TENANT, 1000, 0)]
    assert authority.events() == seen


@PREVIEWS
@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"status": "FROZEN"}, "BUDGET_FROZEN"),
        ({"status": "CLOSED"}, "BUDGET_CLOSED"),
        ({"over_limit": True, "debt": 1}, "OVERDRAFT_LIMIT_EXCEEDED"),
        ({"debt": 1}, "DEBT_OUTSTANDING"),
        ({"allocated": 9}, "BUDGET_EXCEEDED"),
        (None, "BUDGET_NOT_FOUND"),
    ],
)
def test_a_denial_is_an_answer_and_no_error(
    authority: EmbeddedAuthority, preview: str, state: dict[str, Any] | None, reason: str
) -> None:
    if state is not None:
        put_account(authority, AGENT, **state)
    answer = getattr(authority, preview)(BOT, CALL, tokens(10))
    assert (answer.decision, answer.reason_code, answer.scope) == ("DENY", reason, AGENT)
    assert answer.affected_scopes == (TENANT, AGENT)
    assert not answer.allowed
    assert answer.balances == []


@PREVIEWS
def test_a_closed_tenant_and_a_stopped_scope_deny(authority: EmbeddedAuthority, preview: str) -> None:
    budget(authority)
    authority.kill(TENANT, reason="runaway", actor="ops")
    killed = getattr(authority, preview)(ACME, CALL, tokens(1))
    assert (killed.reason_code, killed.details["reason"]) == ("KILLED", "runaway")
    authority.close_tenant("acme")
    assert getattr(authority, preview)(ACME, CALL, tokens(1)).reason_code == "TENANT_CLOSED"


def test_a_dry_run_inside_a_run_asks_the_runs_account(authority: EmbeddedAuthority) -> None:
    budget(authority)
    inside = run(authority, 50)
    assert authority.dry_run(ACME, CALL, tokens(50), run_id=inside).allowed
    assert authority.dry_run(ACME, CALL, tokens(51), run_id=inside).reason_code == "BUDGET_EXCEEDED"
    with pytest.raises(NotFound):
        authority.dry_run(ACME, CALL, tokens(1), run_id="run_none")


def test_what_a_preview_allows_a_reserve_allows(authority: EmbeddedAuthority) -> None:
    budget(authority, TENANT, 100, caps=(CapsRule(caps=Caps(max_tokens=7)),))
    previews = [authority.dry_run(ACME, CALL, tokens(100)), authority.decide(ACME, CALL, tokens(100))]
    assert [(p.decision, p.caps) for p in previews] == [("ALLOW_WITH_CAPS", Caps(max_tokens=7))] * 2
    assert hold(authority, 100)
    assert authority.dry_run(ACME, CALL, tokens(1)).decision == "DENY"
