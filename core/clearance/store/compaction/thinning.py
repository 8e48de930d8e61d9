"""Which lines of the log can go. Pure: lines in, verdicts out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from clearance.model.reservation import run_scope
from clearance.model.results import Event
from clearance.store.interface import AccountKey

CARRIED = "budget.carried_forward"
"""Opening balances: `figures` is how these accounts stood after this line, whatever came before."""
ENDS = frozenset(("reservation.committed", "reservation.released", "reservation.expired", "run.ended"))
BEGINNINGS = frozenset(("reservation.created", "run.started"))
OF_THE_OPEN = BEGINNINGS | {"reservation.extended"}
_RUN = run_scope("")


@dataclass
class Verdict:
    removed: list[int] = field(default_factory=list)
    carried: list[Event] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
    """Reservations that ended here: they go with this line."""

    @property
    def is_empty(self) -> bool:
        return not (self.removed or self.carried)


class Thinning:
    """Goes through the log from its old end downwards, and remembers which accounts have had their last word.

    A reservation is removed with the line that ends it. So one that is still present when its beginning is met is open,
    or ended after the lines that are old enough: then its beginning stays, for what follows refers to it.
    """

    def __init__(self) -> None:
        self._told: set[AccountKey] = set()
        self._ended: set[str] = set()
        """Met the end of, not yet the beginning: with these a dry run finds what a real one does."""

    @staticmethod
    def asks_about(lines: Iterable[Event]) -> set[str]:
        """The reservations whose presence the verdict depends on."""
        asked = {line.reservation_id for line in lines if line.type in OF_THE_OPEN}
        runs = {scope.removeprefix(_RUN) for line in lines for scope in _figures(line) if scope.startswith(_RUN)}
        return {name for name in asked | runs if name}

    def judge(self, lines: Sequence[Event], present: Collection[str]) -> Verdict:
        """`lines` from the youngest to the oldest."""
        verdict = Verdict()
        for line in lines:
            name = line.reservation_id or ""
            if line.type in ENDS:
                verdict.settled.append(name)
                self._ended.add(name)
            elif line.type in OF_THE_OPEN and name in present and name not in self._ended:
                continue
            self._take(line, present, verdict)
            if line.type in BEGINNINGS:
                self._ended.discard(name)
        return verdict

    def _take(self, line: Event, present: Collection[str], verdict: Verdict) -> None:
        kept: dict[str, Any] = {}
        for scope, values in _figures(line).items():
            key = (line.tenant, scope, line.data["unit"])
            if key not in self._told and self._lives(scope, present):
                kept[scope] = values
                self._told.add(key)
        if not kept:
            verdict.removed.append(line.seq)
        elif line.type != CARRIED or len(kept) < len(line.data["figures"]):
            data = {"unit": line.data["unit"], "figures": kept}
            verdict.carried.append(replace(line, type=CARRIED, reservation_id=None, data=data))

    def _lives(self, scope: str, present: Collection[str]) -> bool:
        """The account of a run ends with the run."""
        run = scope.removeprefix(_RUN)
        return run == scope or (run in present and run not in self._ended)


def _figures(line: Event) -> dict[str, Any]:
    """What the line says of accounts; a preview says what would have been."""
    if line.data.get("dry_run"):
        return {}
    return {**line.data.get("figures", {}), **line.data.get("own", {})}
