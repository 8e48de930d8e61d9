"""Reading: one reservation, lists with filters, sorting and cursors, balances, and the event log."""

from __future__ import annotations

from typing import Any

import pytest
from tests.authority.kit import ACME, AGENT, CALL, TENANT, budget, hold, run

from clearance.authority.clock import ManualClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import InvalidRequest, NotFound
from clearance.model.amount import tokens, usd
from clearance.model.subject import Subject
from clearance.store.interface import EventQuery, ReservationQuery

SORTS = ("reservation_id", "tenant", "scope_path", "status", "reserved", "created_at_ms", "expires_at_ms")
SUBJECTS = (ACME, Subject(tenant="acme", agent="bot"), Subject(tenant="acme", agent="bot2"), Subject(tenant="zeta"))


def filled(authority: EmbeddedAuthority, clock: ManualClock) -> dict[str, str]:
    """Name -> id; each created a second after the one before."""
    budget(authority, TENANT, 10_000)
    budget(authority, "tenant:zeta", 10_000)
    ids: dict[str, str] = {}
    for number in range(12):
        subject = SUBJECTS[number % 4]
        ids[f"r{number}"] = hold(
            authority, number % 3, subject, idempotency_key=f"key{number}", ttl_ms=100_000 - number * 1000
        )
        clock.advance(1000)
    ids["run"] = run(authority, 5, ttl_ms=80_000)
    ids["inside"] = hold(authority, 1, run_id=ids["run"], ttl_ms=80_000)
    clock.advance(1000)
    authority.commit(ids["r0"], tokens(0))
    authority.release(ids["r1"])
    return ids


def names(authority: EmbeddedAuthority, ids: dict[str, str], **filters: Any) -> set[str]:
    found = {it.id for it in authority.reservations(ReservationQuery(**filters), limit=200).items}
    return {name for name, it in ids.items() if it in found}


def test_every_filter_keeps_what_it_says(authority: EmbeddedAuthority, clock: ManualClock) -> None:
    start = clock.now_ms()
    ids = filled(authority, clock)
    every = set(ids)
    table: list[tuple[dict[str, Any], set[str]]] = [
        ({}, every),
        ({"tenant": "zeta"}, {"r3", "r7", "r11"}),
        ({"status": "ACTIVE"}, every - {"r0", "r1"}),
        ({"status": "COMMITTED"}, {"r0"}),
        ({"status": "RELEASED"}, {"r1"}),
        ({"status": "EXPIRED"}, set()),
        ({"kind": "run"}, {"run"}),
        ({"run_id": ids["run"]}, {"inside"}),
        ({"scope": AGENT}, {"r1", "r5", "r9"}),
        ({"scope": TENANT}, every - {"r3", "r7", "r11"}),
        ({"segments": ("agent:bot",)}, {"r1", "r5", "r9"}),
        ({"segments": ("tenant:acme", "agent:bot2")}, {"r2", "r6", "r10"}),
        ({"segments": ("agent:bo",)}, set()),
        ({"idempotency_key": "key5"}, {"r5"}),
        ({"idempotency_key": "none"}, set()),
        ({"created_from_ms": start + 3000, "created_to_ms": start + 5000}, {"r3", "r4", "r5"}),
        ({"created_from_ms": start + 12_000}, {"run", "inside"}),
        ({"created_to_ms": start}, {"r0"}),
        ({"expires_to_ms": start + 92_000}, {"run", "inside"}),
        ({"expires_from_ms": start + 100_000, "expires_to_ms": start + 100_000}, every - {"run", "inside"}),
        ({"finalized_from_ms": 0}, {"r0", "r1"}),
        ({"finalized_to_ms": start + 12_999}, set()),
        ({"scope": AGENT, "status": "ACTIVE", "created_from_ms": start + 6000}, {"r9"}),
    ]
    for filters, expected in table:
        assert names(authority, ids, **filters) == expected, filters


@pytest.mark.parametrize("sort_by", SORTS)
@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("limit", [1, 4, 14])
def test_pages_follow_each_other_in_order_and_miss_and_repeat_nothing(
    authority: EmbeddedAuthority, clock: ManualClock, sort_by: str, descending: bool, limit: int
) -> None:
    ids = filled(authority, clock)
    query = ReservationQuery(sort_by=sort_by, descending=descending)
    field = {"reservation_id": "id", "reserved": "estimate"}.get(sort_by, sort_by)
    found, cursor = [], None
    while True:
        page = authority.reservations(query, limit=limit, cursor=cursor)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
        assert len(page.items) == limit
    # Equal values are in the order of their ids, in both directions.
    expected = sorted(found, key=lambda it: it.id)
    expected.sort(key=lambda it: getattr(it, field), reverse=descending)
    assert [it.id for it in found] == [it.id for it in expected]
    assert {it.id for it in found} == set(ids.values())
    assert len(found) == len(ids)


def test_a_row_that_is_new_between_two_pages_disturbs_neither(authority: EmbeddedAuthority, clock: ManualClock) -> None:
    filled(authority, clock)
    first = authority.reservations(limit=5)
    hold(authority, 1)
    second = authority.reservations(limit=5, cursor=first.next_cursor)
    assert not {it.id for it in first.items} & {it.id for it in second.items}


@pytest.mark.parametrize(
    "other",
    [
        {"status": "ACTIVE"},
        {"sort_by": "reserved"},
        {"descending": False},
        {"scope": TENANT},
        {"created_from_ms": 0},
        {"idempotency_key": "k"},
    ],
)
def test_a_cursor_belongs_to_its_filters_and_order(
    authority: EmbeddedAuthority, clock: ManualClock, other: dict[str, Any]
) -> None:
    filled(authority, clock)
    cursor = authority.reservations(limit=2).next_cursor
    with pytest.raises(InvalidRequest, match="other filters"):
        authority.reservations(ReservationQuery(**other), cursor=cursor)
    with pytest.raises(InvalidRequest):
        authority.balances(cursor=cursor)


@pytest.mark.parametrize("cursor", ["x", "ä", "W10", "NQ", "eyJhIjoxfQ", "IiI", "=", "A" * 10_000, 5])
def test_a_made_up_cursor_is_refused(authority: EmbeddedAuthority, cursor: Any) -> None:
    for read in (authority.reservations, authority.balances):
        with pytest.raises(InvalidRequest) as refused:
            read(cursor=cursor)
        assert refused.value.field == "cursor"


@pytest.mark.parametrize(
    ("filters", "field"),
    [
        ({"sort_by": "price"}, "sort_by"),
        ({"status": "OPEN"}, "status"),
        ({"created_from_ms": 2, "created_to_ms": 1}, "created_from"),
        ({"expires_from_ms": 2, "expires_to_ms": 1}, "expires_from"),
        ({"finalized_from_ms": 2, "finalized_to_ms": 1}, "finalized_from"),
    ],
)
def test_a_bad_filter_is_refused(authority: EmbeddedAuthority, filters: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        authority.reservations(ReservationQuery(**filters))
    assert refused.value.field == field


@pytest.mark.parametrize("limit", [0, -1, 201, 1.5, True, "5"])
def test_a_page_has_1_to_200_rows(authority: EmbeddedAuthority, limit: Any) -> None:
    for read in (authority.reservations, authority.balances):
        with pytest.raises(InvalidRequest):
            read(limit=limit)


# -- balances -------------------------------------------------------------------------------------


def test_balances_are_those_at_and_below_a_scope_in_order(authority: EmbeddedAuthority) -> None:
    for scope in (
        TENANT,
        AGENT,
        "tenant:acme/agent:bot/toolset:t",
        "tenant:acme/agent:bot2",
        "tenant:other",
        "agent:bot",
    ):
        budget(authority, scope)
    budget(authority, AGENT, usd(1))
    table: list[tuple[dict[str, Any], list[str]]] = [
        ({"scope": AGENT}, [AGENT, AGENT, f"{AGENT}/toolset:t"]),
        ({"scope": AGENT, "unit": "TOKENS"}, [AGENT, f"{AGENT}/toolset:t"]),
        ({"scope": "tenant:ACME"}, [TENANT, AGENT, AGENT, f"{AGENT}/toolset:t", "tenant:acme/agent:bot2"]),
        ({"tenant": "Other"}, ["tenant:other"]),
        ({"scope": "agent:bot"}, ["agent:bot"]),
        ({"tenant": "nobody"}, []),
        ({"unit": "USD_MICROCENTS"}, [AGENT]),
    ]
    for asked, scopes in table:
        assert [b.scope for b in authority.balances(**asked).items] == scopes, asked
        paged, cursor = [], None
        while True:
            page = authority.balances(**asked, limit=1, cursor=cursor)
            paged += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
        assert [b.scope for b in paged] == scopes, asked


def test_a_long_list_of_balances_is_paged_to_its_end(authority: EmbeddedAuthority) -> None:
    scopes = [f"tenant:acme/agent:a{number:03}" for number in range(450)]
    for scope in scopes:
        budget(authority, scope)
    first = authority.balances(TENANT, limit=200)
    second = authority.balances(TENANT, limit=200, cursor=first.next_cursor)
    third = authority.balances(TENANT, limit=200, cursor=second.next_cursor)
    assert [b.scope for page in (first, second, third) for b in page.items] == scopes
    assert third.next_cursor is None
    assert [b.scope for b in authority.balances(scopes[-1]).items] == [scopes[-1]]


def test_one_reservation_and_one_balance_are_found_or_not(authority: EmbeddedAuthority) -> None:
    budget(authority)
    held = authority.get(hold(authority, 7, metadata={"a": [1]}, idempotency_key="k"))
    assert (held.estimate, held.reserved, held.metadata, held.idempotency_key) == (7, tokens(7), {"a": [1]}, "k")
    for missing in (
        lambda: authority.get("rsv_none"),
        lambda: authority.find("rsv_none"),
        lambda: authority.balance(TENANT),
        lambda: authority.balance("tenant:other", "TOKENS"),
    ):
        with pytest.raises(NotFound):
            missing()


# -- events ---------------------------------------------------------------------------------------


def test_the_log_rises_by_one_and_is_read_on_from_where_one_was(authority: EmbeddedAuthority) -> None:
    budget(authority)
    for _ in range(25):
        hold(authority, 1)
    found: list[int] = []
    while page := authority.events(EventQuery(after=found[-1] if found else 0), limit=10):
        found += [event.seq for event in page]
    assert found == list(range(1, 27))
    newest = authority.events(EventQuery(descending=True), limit=3)
    assert [event.seq for event in newest] == [26, 25, 24]
    assert [e.seq for e in authority.events(EventQuery(descending=True, after=24), limit=2)] == [23, 22]


def test_events_are_filtered(authority: EmbeddedAuthority) -> None:
    for scope in (TENANT, AGENT, "tenant:acme/agent:bot2", "tenant:other"):
        budget(authority, scope)
    held = hold(authority, 1, Subject(tenant="acme", agent="bot"))
    authority.commit(held, tokens(1))
    authority.event(Subject(tenant="other"), CALL, tokens(1))
    table: list[tuple[dict[str, Any], list[int]]] = [
        ({"tenant": "other"}, [4, 7]),
        ({"scope": AGENT}, [2, 5, 6]),
        ({"scope": TENANT}, [1, 2, 3, 5, 6]),
        ({"types": ("budget.created",)}, [1, 2, 3, 4]),
        ({"types": ("spend.recorded", "reservation.committed")}, [6, 7]),
        ({"reservation_id": held}, [5, 6]),
        ({"reservation_id": held, "after": 5}, [6]),
        ({"tenant": "nobody"}, []),
    ]
    for filters, expected in table:
        assert [event.seq for event in authority.events(EventQuery(**filters))] == expected, filters
    for limit in (0, 1001):
        with pytest.raises(InvalidRequest):
            authority.events(limit=limit)
