"""A whole ledger as JSON lines, and from one engine into another, with the proof that nothing changed on the way.

The first line names the format, the last one the count and the digest of each table and the sums of the balances. An
import into an empty ledger is one transaction; before it commits, everything is read back and compared with that line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from clearance.errors import InvalidRequest, StoreCorrupt
from clearance.store.interface import Store
from clearance.store.move.lines import FORMAT, UNCHANGED, Lines
from clearance.store.move.tables import TABLES, Shelf, Totals
from clearance.store.sqlite import SqliteStore


def export_ledger(store: Store, out: TextIO) -> Totals:
    """Write the ledger as it is at one moment; others may go on working with it."""
    with shelf_of(store).reading() as shelf:
        return _export(shelf, out)


def import_ledger(store: Store, lines: Iterable[str], *, name: str = "the export") -> Totals:
    """Fill an empty ledger. Raises InvalidRequest if it is not empty or the lines are not an export (it names the line,
    and calls the file `name`), and StoreCorrupt if what arrived is not what was sent; then nothing was changed."""
    with shelf_of(store).writing() as shelf:
        _require_empty(shelf)
        told = Lines(lines, name).load(shelf)
        arrived = totals_of(shelf)
        if told != arrived.as_dict():
            raise StoreCorrupt(
                f"the ledger that arrived is not the one that was sent: {_difference(told, arrived)}; {UNCHANGED}"
            )
        shelf.finish()
        return arrived


def copy_ledger(source: Store, target: Store) -> Totals:
    """Export and import at once, without a file between."""
    with shelf_of(source).reading() as shelf:
        return import_ledger(target, _lines(shelf))


def totals(store: Store) -> Totals:
    """What two equal ledgers have in common, whatever their engines."""
    with shelf_of(store).reading() as shelf:
        return totals_of(shelf)


def totals_of(shelf: Shelf) -> Totals:
    found = Totals()
    for table in TABLES:
        for row in shelf.rows(table):
            found.add(table, row)
    return found


def shelf_of(store: Store) -> Shelf:
    if isinstance(store, SqliteStore):
        from clearance.store.move.sqlite import SqliteShelf

        return SqliteShelf(store)
    from clearance.store.move.postgres import PostgresShelf
    from clearance.store.postgres import PostgresStore

    if isinstance(store, PostgresStore):
        return PostgresShelf(store)
    raise InvalidRequest("store", f"cannot move a {type(store).__name__}", "SqliteStore or PostgresStore")


def _export(shelf: Shelf, out: TextIO) -> Totals:
    last = ""
    for last in _lines(shelf):
        out.write(last + "\n")
    return Totals.from_dict(json.loads(last)["totals"])


def _lines(shelf: Shelf) -> Iterator[str]:
    found = Totals()
    yield json.dumps({"format": FORMAT})
    for table in TABLES:
        for row in shelf.rows(table):
            found.add(table, row)
            yield json.dumps([table, *row], ensure_ascii=False)
    yield json.dumps({"totals": found.as_dict()})


def _require_empty(shelf: Shelf) -> None:
    for table in TABLES:
        if next(iter(shelf.rows(table)), None) is not None:
            raise InvalidRequest("ledger", f"is not empty: it has {table}", "an empty ledger")


def _difference(told: dict[str, Any], arrived: Totals) -> str:
    got = arrived.as_dict()
    return "; ".join(
        f"{name}: sent {told.get(name)}, arrived {got[name]}" for name in got if told.get(name) != got[name]
    )


__all__ = ["Totals", "copy_ledger", "export_ledger", "import_ledger", "totals"]
