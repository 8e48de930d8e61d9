"""The figures of each scenario as a small table of texts. What colour it has is for the views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clearance.demo.facts import Facts, money


@dataclass(frozen=True, slots=True)
class Sheet:
    """`head` names the columns; the first is the rows' own name."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str


TITLES = {
    "runaway": "a runaway agent and its budget",
    "tools": "a tool that may run three times",
    "parallel": "eight workers and the last dollar",
    "crash": "a killed process and its books",
}


def sheet(facts: Facts) -> Sheet:
    """The table of these facts, by the name of their class."""
    return _SHEETS[type(facts).__name__](facts)


def _runaway(facts: Any) -> Sheet:
    free, held = facts.unguarded, facts.guarded
    rows = (
        ("Provider requests", f"{free.requests:,}", f"{held.requests:,}"),
        ("Paid to the provider", money(free.paid_microcents), money(held.paid_microcents)),
        ("Stopped by", f"the demo, after {free.seconds:.1f} s", f"its budget, after {held.seconds:.1f} s"),
        ("After one hour", money(free.hour_microcents, 2), money(held.paid_microcents, 2)),
        ("Left of the budget", "no limit", money(held.left_microcents)),
        ("The next call, at most", "nobody asked", money(held.next_call_microcents)),
    )
    note = (
        f"Model {facts.model} at list price, counted by the simulator. The hour is at the measured rate; the simulator "
        "answers at once, a real provider takes longer for each call."
    )
    return Sheet("The same agent twice", ("", "without", "with Clearance"), rows, note)


def _tools(facts: Any) -> Sheet:
    rows = (
        ("The model asked for it", f"{facts.asked_by_model} times"),
        ("Mails in the outbox", f"{facts.mails_in_outbox}"),
        ("Credits spent", f"{facts.spent_credits} of {facts.allowed_runs}"),
        ("Denied", facts.denied_action),
        ("Provider requests", f"{facts.requests}"),
        ("Paid to the provider", money(facts.paid_microcents)),
    )
    return Sheet("A budget of three runs", ("", "counted"), rows, "The outbox is a file that only the tool writes.")


def _parallel(facts: Any) -> Sheet:
    each = [(it.worker, f"{it.requests}", money(it.paid_microcents), money(it.spent_microcents)) for it in facts.shares]
    total = ("together", f"{facts.requests}", money(facts.paid_microcents), money(facts.spent_microcents))
    note = (
        f"Left: {money(facts.left_microcents)}; one more call could cost {money(facts.next_call_microcents)}. "
        f"All of it took {facts.seconds:.1f} s."
    )
    return Sheet(
        "Who got what of the last dollar", ("", "calls", "paid to the provider", "on the books"), (*each, total), note
    )


def _crash(facts: Any) -> Sheet:
    moments = (facts.before, facts.at_kill, facts.after)
    rows = (
        ("Spent by the tenant", *(money(it.spent_microcents) for it in moments)),
        ("Held for the run", *(money(it.held_microcents) for it in moments)),
        ("Left for others", *(money(it.left_microcents) for it in moments)),
        ("Settled in the run", *(money(it.run_spent_microcents) for it in moments)),
        ("The run is", *(it.run_status.lower() for it in moments)),
    )
    note = (
        f"{facts.requests} provider requests, {money(facts.paid_microcents)}, before the kill. The books were settled "
        f"{facts.seconds_to_settle:.1f} s after it, by whoever used the ledger next."
    )
    return Sheet("The books", ("", *(it.when for it in moments)), rows, note)


_SHEETS: dict[str, Callable[[Any], Sheet]] = {
    "Runaway": _runaway,
    "Tools": _tools,
    "Parallel": _parallel,
    "Crash": _crash,
}
