"""What one attempt of a run has done, in one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clearance.model.amount import dollars
from clearance_hooks.holding import spent
from clearance_hooks.turns import Turn


@dataclass(frozen=True, slots=True)
class RunSummary:
    """Amounts are microcents; `blocked` counts refusals by code. `authority_run_id` finds it in the audit log."""

    host: str
    run_id: str
    attempt: int
    authority_run_id: str
    model_calls: int
    tool_calls: int
    downgrades: int
    blocked: dict[str, int]
    spent: int
    budget: int | None
    success: bool

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    def __str__(self) -> str:
        limit = "" if self.budget is None else f" of {dollars(self.budget)}"
        refused = "".join(f", {count} refused ({code})" for code, count in sorted(self.blocked.items()))
        cheaper = f", {self.downgrades} with a cheaper model" if self.downgrades else ""
        return (
            f"run {self.run_id}: {self.model_calls} model calls{cheaper}, {self.tool_calls} tool calls{refused}; "
            f"{dollars(self.spent)}{limit} USD"
        )


def summary_of(turn: Turn) -> RunSummary:
    host, run_id, attempt = turn.key
    run = turn.run
    with turn.lock:
        return RunSummary(
            host=host,
            run_id=run_id,
            attempt=attempt,
            authority_run_id="" if run is None else run.id,
            model_calls=turn.facts["model_calls"],
            tool_calls=turn.tools.total(),
            downgrades=turn.facts["downgrades"],
            blocked=dict(turn.blocked),
            spent=spent(turn),
            budget=None if run is None or run.budget is None else run.budget.amount,
            success=not turn.facts["failed"],
        )
