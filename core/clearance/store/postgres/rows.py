"""Values of the model to columns of the PostgreSQL engine. The rows themselves look as in SQLite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from clearance.model.account import Account
from clearance.model.reservation import Reservation
from clearance.model.results import Stop
from clearance.store.sqlite.rows import Row, account_row, reservation_row

Columns = list[list[Any]]

_OVER_LIMIT = 7
_KEY = 15


def columns(rows: Iterable[Sequence[Any]]) -> Columns:
    """Rows as the arrays that `unnest` takes."""
    return [list(column) for column in zip(*rows, strict=True)]


def clean(text: str | None) -> str | None:
    """PostgreSQL keeps no NUL in text. Only words for people can have one; keys of answers are hashes."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}") if text and "\0" in text else text


def is_name(text: str) -> bool:
    """Could this be the id of a row? Nothing with a NUL was ever stored."""
    return "\0" not in text


def new_account(account: Account) -> Row:
    row = account_row(account)
    return (*row[:_OVER_LIMIT], account.over_limit, *row[_OVER_LIMIT + 1 :])


def moved_account(account: Account) -> Row:
    return (
        *account[:3],
        account.allocated,
        account.reserved,
        account.spent,
        account.debt,
        account.over_limit,
    )


def new_reservation(it: Reservation) -> Row:
    row = reservation_row(it)
    # string_to_array gives an empty array for an empty text.
    return (*row[:_KEY], clean(row[_KEY]), *row[_KEY + 1 :], "\n".join(it.held_on))


def stop_row(stop: Stop) -> Row:
    return (stop.tenant, stop.scope, stop.state, clean(stop.reason), clean(stop.actor), stop.at_ms)
