"""The attempts of OpenClaw's runs. A retry has the run's id again, and observers come late or twice."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import RLock
from typing import TypeVar

T = TypeVar("T")

MAX_RUNS = 10_000
MAX_ATTEMPTS = 16
"""Of one run that are remembered; what comes later for an older one belongs to nobody."""
MAX_SESSIONS = 10_000


@dataclass(slots=True)
class Attempt:
    """`admitted`: its gate said yes. `told`: its usage is known. Bytes are of model calls that failed, `status` too."""

    number: int
    admitted: bool = False
    ended: bool = False
    told: bool = False
    completed: int = 0
    failed: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    status: int | None = None
    model: str | None = None
    tools: set[str] = field(default_factory=set)


@dataclass(slots=True)
class HostRun:
    lock: RLock = field(default_factory=RLock)
    attempts: list[Attempt] = field(default_factory=list)
    parent: str | None = None

    def open(self) -> Attempt | None:
        """The attempt that is admitted and not over."""
        last = self.attempts[-1] if self.attempts else None
        return last if last is not None and last.admitted and not last.ended else None

    def begin(self) -> Attempt:
        """The open one, as a host that has loaded the plugin twice asks twice; else the next."""
        found = self.open()
        if found is None:
            found = Attempt(self.attempts[-1].number + 1 if self.attempts else 1)
            self.attempts = [*self.attempts, found][-MAX_ATTEMPTS:]
        return found

    def untold(self) -> Attempt | None:
        """The first whose usage has not come: usage comes in the order of the attempts."""
        return next((it for it in self.attempts if it.admitted and not it.told), None)

    def with_tool(self, tool_call_id: str) -> Attempt | None:
        return next((it for it in reversed(self.attempts) if tool_call_id in it.tools), None)


class HostRuns:
    """Runs by id, the oldest forgotten; what is forgotten is not admitted. Thread-safe."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._runs: OrderedDict[str, HostRun] = OrderedDict()
        self._sessions: OrderedDict[str, str] = OrderedDict()
        self._parents: OrderedDict[str, str] = OrderedDict()

    def of(self, run_id: str) -> HostRun:
        with self._lock:
            return _kept(self._runs, run_id, self._runs.get(run_id) or HostRun(), MAX_RUNS)

    def known(self, run_id: str) -> HostRun | None:
        with self._lock:
            return self._runs.get(run_id)

    def admitted(self, session_key: str | None, run_id: str) -> None:
        """This session's latest run."""
        if session_key is not None:
            with self._lock:
                _kept(self._sessions, session_key, run_id, MAX_SESSIONS)

    def spawned(self, child_session: str, parent_session: str) -> None:
        """The runs of one session are below the run that the other has now."""
        with self._lock:
            parent = self._sessions.get(parent_session)
            if parent is not None:
                _kept(self._parents, child_session, parent, MAX_SESSIONS)

    def parent_of(self, session_key: str | None) -> str | None:
        with self._lock:
            return None if session_key is None else self._parents.get(session_key)


def _kept(found: OrderedDict[str, T], key: str, value: T, most: int) -> T:
    found[key] = value
    found.move_to_end(key)
    while len(found) > most:
        found.popitem(last=False)
    return value
