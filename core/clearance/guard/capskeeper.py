"""Caps that need a memory: tool lists, steps remaining and cooldown, kept per run or per scope path."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from clearance.errors import ApprovalRequired, CapsViolated
from clearance.guard.outcome import is_tool
from clearance.model.action import Action
from clearance.model.caps import Caps

MAX_PLACES = 10_000
"""Runs and scope paths remembered; past it the one unused for longest is forgotten."""


class _Place:
    __slots__ = ("last_at", "steps_left")

    def __init__(self) -> None:
        self.last_at: float | None = None
        self.steps_left: int | None = None


class CapsKeeper:
    """Says after each ALLOW_WITH_CAPS whether the action keeps to the caps. Thread-safe.

    `clock` gives monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float], max_places: int = MAX_PLACES) -> None:
        self._clock = clock
        self._max_places = max_places
        self._places: OrderedDict[str, _Place] = OrderedDict()
        self._lock = Lock()

    def admit(
        self, place: str, action: Action, caps: Caps | None, *, tool: str | None = None, approved: bool = False
    ) -> None:
        """Count one admission at `place` (a run id or scope path), or raise and count nothing.

        `tool` is the tool's name where the action's kind does not say that it is one. Raises CapsViolated; then, for
        what else would pass, ApprovalRequired.

        `max_steps_remaining` N allows N more admissions after the answer that first carried it. Later answers can
        lower what is left, not raise it; an answer without the cap lifts it.
        """
        if tool is None and is_tool(action):
            tool = action.name
        if caps is not None and tool is not None and not caps.allows_tool(tool):
            raise CapsViolated(f"tool {tool!r} is not allowed here", scope=place, details={"tool": tool})
        with self._lock:
            state = self._place(place)
            now = self._clock()
            _check_cooldown(state, place, caps, now)
            steps_left = _steps_after(state, place, caps)
            if caps is not None and tool is not None and not approved and caps.needs_approval(tool):
                raise ApprovalRequired(f"tool {tool!r} needs a person's approval", scope=place, details={"tool": tool})
            state.steps_left = steps_left
            state.last_at = now

    def forget(self, place: str) -> None:
        """A run is over."""
        with self._lock:
            self._places.pop(place, None)

    def _place(self, place: str) -> _Place:
        state = self._places.get(place)
        if state is None:
            state = self._places[place] = _Place()
            if len(self._places) > self._max_places:
                self._places.popitem(last=False)
        else:
            self._places.move_to_end(place)
        return state


def _check_cooldown(state: _Place, place: str, caps: Caps | None, now: float) -> None:
    if caps is None or caps.cooldown_ms is None or state.last_at is None:
        return
    wait_ms = caps.cooldown_ms - int((now - state.last_at) * 1000)
    if wait_ms > 0:
        raise CapsViolated(
            f"{place} is cooling down for {wait_ms} ms more",
            scope=place,
            retry_after_ms=wait_ms,
            details={"cooldown_ms": caps.cooldown_ms},
        )


def _steps_after(state: _Place, place: str, caps: Caps | None) -> int | None:
    if caps is None or caps.max_steps_remaining is None:
        return None
    if state.steps_left is None:
        return caps.max_steps_remaining
    if state.steps_left == 0:
        raise CapsViolated(f"{place} has no steps left", scope=place, details={"max_steps_remaining": 0})
    return min(state.steps_left - 1, caps.max_steps_remaining)
