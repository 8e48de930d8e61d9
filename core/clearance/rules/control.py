"""Was this scope, or the run it is in, stopped by a person? (design, section 7)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clearance.model.reservation import run_scope
from clearance.model.results import EVERYTHING, Stop


def stop_on(
    stops: Mapping[tuple[str, str], Stop], tenant: str, scopes: Sequence[str], runs: Sequence[str]
) -> Stop | None:
    """The first stop that reaches the subject: everybody's, then root to leaf, then the runs, outermost first."""
    if not stops:
        return None
    names = (f"tenant:{tenant}", *scopes, *map(run_scope, runs))
    places = (("", EVERYTHING), *((tenant, name) for name in names))
    return next((stops[place] for place in places if place in stops), None)
