"""What a run can expect: its caps, and how much of its budget is left, in words that seldom change."""

from __future__ import annotations

from dataclasses import dataclass

from clearance.errors import UnitMismatch
from clearance.model.action import Action
from clearance.model.amount import Amount, Unit
from clearance.model.caps import Caps
from clearance.model.results import Decision
from clearance_hooks.events import HookContext
from clearance_hooks.holding import MODEL, Holder, allows_model, cheaper_models, subject_for
from clearance_hooks.turns import Turn

_LOOK = Action(kind=MODEL, name="outlook")
_STEPS = ((75, "more than 75%"), (50, "50% to 75%"), (25, "25% to 50%"), (10, "10% to 25%"))


@dataclass(frozen=True, slots=True)
class Outlook:
    """`share_left` in percent of the tightest budget, None where there is none in USD."""

    caps: Caps | None = None
    share_left: int | None = None


def outlook(holder: Holder, turn: Turn, ctx: HookContext) -> Outlook:
    """Nothing is held. Where the authority would say no there is no outlook: the gate says why."""
    run_id = None if turn.run is None else turn.run.id
    nothing = Amount(unit=Unit.USD_MICROCENTS, amount=0)
    try:
        decision = holder.authority.dry_run(subject_for(holder.settings, ctx), _LOOK, nothing, run_id=run_id)
    except UnitMismatch:
        return Outlook()
    return Outlook(decision.caps, _share_left(decision)) if decision.allowed else Outlook()


def _share_left(decision: Decision) -> int | None:
    shares = [100 * max(0, it.remaining) // it.allocated for it in decision.balances if it.allocated > 0]
    return min(shares, default=None)


def other_model(holder: Holder, wanted: str, outlook: Outlook) -> str | None:
    """What a run is to use in the place of a model: one that the caps allow, or the next of the chain when little is
    left. None: as it was asked for. Nothing is held for it: the gates decide."""
    if outlook.caps is not None and not allows_model(outlook.caps, wanted):
        return holder.first_priced(outlook.caps.models)
    below, left = holder.settings.downgrade.below_percent, outlook.share_left
    if below is None or left is None or left >= below:
        return None
    return holder.first_priced(cheaper_models(holder.settings, wanted))


def tools_allowed(caps: Caps | None, offered: tuple[str, ...]) -> tuple[str, ...] | None:
    """The offered tools that the caps allow; None when that is all of them."""
    if caps is None:
        return None
    allowed = tuple(name for name in offered if caps.allows_tool(name))
    return None if allowed == offered else allowed


def text(share_left: int | None) -> str:
    """Five texts in all, so that a provider's prompt cache survives most calls."""
    if share_left is None:
        return ""
    words = next((words for least, words in _STEPS if share_left >= least), "less than 10%")
    return f"Budget: {words} is left. When little is left, prefer few and cheap steps and finish with what you have."
