"""A damaged export is refused with the number of the line that is wrong, by either engine, and nothing arrives."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.postgres.test_postgres_move import live_a_little

from clearance.authority.clock import ManualClock
from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import InvalidRequest, StoreCorrupt
from clearance.store.interface import Store
from clearance.store.move import export_ledger, import_ledger, totals
from clearance.store.postgres import PostgresStore
from clearance.store.sqlite import SqliteStore

Spoil = Callable[[list[str]], list[str]]


@pytest.fixture
def export(tmp_path: Path, clock: ManualClock) -> list[str]:
    source = EmbeddedAuthority(SqliteStore(tmp_path / "source.db"), clock=clock, background=False)
    live_a_little(source)
    out = io.StringIO()
    export_ledger(source._store, out)
    source.close()
    return out.getvalue().splitlines()


@pytest.fixture(params=["postgres", "sqlite"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    is_postgres = request.param == "postgres"
    url = request.getfixturevalue("url") if is_postgres else ""
    store: Store = PostgresStore(url) if is_postgres else SqliteStore(tmp_path / "target.db")
    yield store
    store.close()


def second(line: Any) -> Spoil:
    """In place of the second line."""
    return lambda lines: [lines[0], line if isinstance(line, str) else json.dumps(line), *lines[2:]]


def first_of(table: str, column: int, value: Any) -> Spoil:
    """Another value in a column of the table's first row."""

    def spoil(lines: list[str]) -> list[str]:
        number = next(n for n, line in enumerate(lines) if line.startswith(f'["{table}"'))
        row = json.loads(lines[number])
        row[column + 1] = value
        return [*lines[:number], json.dumps(row), *lines[number + 1 :]]

    return spoil


def doubled(lines: list[str]) -> list[str]:
    number = next(n for n, line in enumerate(lines) if line.startswith('["events"'))
    return [*lines[: number + 3], lines[number + 2], *lines[number + 3 :]]


SPOILT: dict[str, tuple[Spoil, str]] = {
    "an empty file": (lambda lines: [], "the first line is"),
    "another head": (lambda lines: ['{"format": "clearance ledger 2"}', *lines[1:]], "the first line is"),
    "a list for a head": (lambda lines: ["[1]", *lines[1:]], "the first line is"),
    "not JSON": (second('["acc'), "is not JSON"),
    "a blank line": (second(""), "is not JSON"),
    "JSON too deep": (second("[" * 100_000), "is not JSON"),
    "a text": (second('"str"'), "neither a row nor the totals"),
    "a number": (second("5"), "neither a row nor the totals"),
    "no columns": (second("[]"), "neither a row nor the totals"),
    "another object": (second({"x": 5}), "neither a row nor the totals"),
    "totals that are none": (second({"totals": 5}), "totals are none"),
    "an unknown table": (second(["fees", 1]), "no table"),
    "a table that is no text": (second([["accounts"], 1]), "no table"),
    "a short row": (second(["accounts", 1]), "has 16 columns, this one has 1"),
    "hashes that are not hex": (first_of("answers", 0, "zz"), "key of answers is not in hex"),
    "a hash that is a number": (first_of("answers", 1, 5), "payload of answers is not in hex"),
    "no hash": (first_of("answers", 1, None), "answers: "),
    "an amount in words": (first_of("accounts", 3, "abc"), "allocated of accounts is no whole number"),
    "an amount with a fraction": (first_of("accounts", 3, 1.5), "allocated of accounts is no whole number"),
    "an amount too large": (first_of("accounts", 3, 2**63), "allocated of accounts is no whole number"),
    "an amount below nothing": (first_of("accounts", 3, -1), "accounts: "),
    "no amount": (first_of("accounts", 3, None), "accounts: "),
    "no flag": (first_of("accounts", 7, None), "accounts: "),
    "an unknown status": (first_of("accounts", 9, "WHAT"), "accounts: "),
    "an object for a name": (first_of("accounts", 0, {"a": 1}), "tenant of accounts is no text"),
    "a name with a NUL": (first_of("tenants", 0, "a\0b"), "tenant of tenants has a NUL"),
    "half a character": (first_of("tenants", 0, "\ud800"), "tenant of tenants is no text in UTF-8"),
    "facts that are not JSON": (first_of("reservations", 16, "nojson"), "facts of reservations is no JSON"),
    "facts of another kind": (first_of("reservations", 16, "[1]"), "facts of reservations is no JSON"),
    "facts without scopes": (first_of("reservations", 16, '{"held_on": 5}'), "facts of reservations has no list"),
    "no facts": (first_of("reservations", 16, None), "reservations: "),
    "a row twice": (doubled, "events: this row was there before"),
    "words after the end": (lambda lines: [*lines, "hello"], "is not JSON"),
    "a row after the end": (lambda lines: [*lines, lines[1]], "after the totals in line"),
    "two exports": (lambda lines: [*lines, *lines], "after the totals in line"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_the_line_that_is_wrong_is_named_and_nothing_arrives(name: str, export: list[str], target: Store) -> None:
    spoil, why = SPOILT[name]
    spoilt = spoil(export)
    number = next((n for n, line in enumerate(spoilt) if n >= len(export) or line != export[n]), 0) + 1
    with pytest.raises(InvalidRequest) as caught:
        import_ledger(target, spoilt, name="out.jsonl")
    told = str(caught.value)
    assert told.startswith(f"export: line {number} of out.jsonl is not part of an export (")
    assert why in told
    assert "; nothing was changed" in told
    assert "\n" not in told
    assert sum(totals(target).rows.values()) == 0
    assert import_ledger(target, export) == totals(target)


def test_an_export_that_ends_in_the_middle_is_refused(export: list[str], target: Store) -> None:
    for lines in (export[:-1], export[:1], export[:3]):
        with pytest.raises(InvalidRequest, match=r"out\.jsonl ends in the middle; nothing was changed"):
            import_ledger(target, lines, name="out.jsonl")
    assert sum(totals(target).rows.values()) == 0


def test_bytes_that_are_no_text_are_refused(export: list[str], target: Store) -> None:
    spoilt = io.TextIOWrapper(io.BytesIO(b"\n".join([export[0].encode(), b"\xff"])), encoding="utf-8")
    with pytest.raises(InvalidRequest, match=r"line 1 of the export .*not UTF-8\); nothing was changed"):
        import_ledger(target, spoilt)


def test_totals_that_say_something_else_are_not_believed(export: list[str], target: Store) -> None:
    with pytest.raises(StoreCorrupt, match="nothing was changed"):
        import_ledger(target, [*export[:-1], '{"totals": {}}'])
    assert sum(totals(target).rows.values()) == 0


def test_the_line_is_right_beyond_the_first_chunk(
    export: list[str], target: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clearance.store.move.lines.CHUNK", 2)
    spoilt = doubled(export)
    number = next(n for n, line in enumerate(spoilt) if line != export[n]) + 1
    with pytest.raises(InvalidRequest, match=f"line {number} of the export"):
        import_ledger(target, spoilt)
