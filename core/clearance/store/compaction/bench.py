"""What compaction needs of an engine. Every call is a short transaction of its own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, Self

from clearance.model.results import Event
from clearance.store.compaction.thinning import Verdict


class Bench(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
    def newest_seq(self) -> int:
        """Of the lines that are there for good; 0 without any."""
        ...

    def ages(self, after: int, before_ms: int) -> tuple[int | None, int | None]:
        """Of the next few thousand lines: the last number, and the first number that is not before the moment."""
        ...

    def keys(self, after: bytes, through_seq: int, limit: int) -> tuple[bytes, list[bytes]] | None:
        """The last of the next `limit` used keys beyond `after`, and those of them that are old: their line is at or
        below `through_seq`, and of no reservation that is open. None at the end."""
        ...

    def remove_keys(self, keys: Sequence[bytes]) -> None: ...
    def lines(self, below: int, limit: int) -> list[Event]:
        """The youngest below a number, the youngest first."""
        ...

    def present(self, reservation_ids: Collection[str]) -> set[str]:
        """Those of them that there are, open or settled."""
        ...

    def replace(self, verdict: Verdict) -> None:
        """All of it or nothing: remove lines and settled reservations, put carried lines where their numbers are."""
        ...
