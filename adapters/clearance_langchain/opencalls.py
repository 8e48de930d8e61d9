"""The calls that a handler has let in and that have not ended, and the ends that LangChain does not tell."""

from __future__ import annotations

import asyncio
import logging
from asyncio.events import _get_running_loop
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from threading import Lock, get_ident
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary, ref

from clearance.authority.interface import Authority
from clearance.guard import Permit
from clearance_langchain.frames import manager_around
from clearance_langchain.gate import Call, Gate

log = logging.getLogger("clearance.langchain")

MAX_CHAINS = 100_000
"""Chain runs whose root is remembered; past it the oldest is forgotten, and its calls end by task, run or lease."""


@dataclass(slots=True)
class OpenCall:
    """One call under way. `root` is the outermost chain run that it belongs to, or itself."""

    gate: Gate
    call: Call
    permit: Permit
    root: UUID
    task: asyncio.Task[Any] | None = None
    on_task_end: Any = None
    batch: Batch | None = None
    streaming: bool = False
    manager: ref[Any] | None = None

    def finish(self, error: BaseException | None) -> None:
        if self.task is not None and self.on_task_end is not None:
            self.task.remove_done_callback(self.on_task_end)
        self.permit.finish(self.gate.outcome(self.permit, self.call, error))


@dataclass(slots=True)
class Batch:
    """The prompts of one `generate`. They all begin before the first is sent, and then go one after another."""

    size: int
    members: list[UUID] = field(default_factory=list)


class EndUnknown(Exception):
    """Stands for the end of a call of which LangChain has told nothing: the estimate is charged."""


@dataclass(slots=True)
class OpenCalls:
    """Keyed by LangChain's run id; settles each call once, whichever end comes first. Thread-safe."""

    _calls: dict[UUID, OpenCall] = field(default_factory=dict)
    _chains: OrderedDict[UUID, UUID] = field(default_factory=OrderedDict)
    _beginning: dict[tuple[int, int], Batch] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def __contains__(self, run_id: UUID) -> bool:
        return run_id in self._calls

    def __len__(self) -> int:
        return len(self._calls)

    def get(self, run_id: UUID) -> OpenCall | None:
        return self._calls.get(run_id)

    def begin(self, run_id: UUID, parent: UUID | None, gate: Gate, call: Call, permit: Permit) -> None:
        opened = OpenCall(gate, call, permit, self.root_of(run_id, parent))
        self._calls[run_id] = opened
        task = _current_task()
        if task is not None:
            opened.task, opened.on_task_end = task, partial(self._task_ended, run_id)
            task.add_done_callback(opened.on_task_end)
            manager = manager_around()
            opened.manager = None if manager is None else ref(manager, partial(self._manager_gone, run_id))

    # --- batches

    def joins_batch(self, run_id: UUID, size: int) -> None:
        """The call is one of `size` that begin together, in this thread and task, one after another."""
        opened = self._calls.get(run_id)
        if opened is None or size < 2:
            return
        place = (get_ident(), id(opened.task))
        batch = self._beginning.get(place)
        if batch is None or batch.size != size:
            batch = self._beginning[place] = Batch(size)
        batch.members.append(run_id)
        opened.batch = batch
        if len(batch.members) == size:
            del self._beginning[place]

    def batch_refused(self) -> None:
        """One of a batch was denied at its beginning: none of those before it will be sent."""
        batch = self._beginning.pop((get_ident(), id(_current_task())), None)
        for member in batch.members if batch is not None else ():
            opened = self.pop(member)
            if opened is not None:
                opened.permit.release("another of its batch was denied")

    def batch_failed(self, failed: OpenCall, run_id: UUID) -> None:
        """A sync `generate` gives up at its first error, and tells nobody what became of the others."""
        if failed.batch is None or failed.task is not None:
            return
        place = failed.batch.members.index(run_id)
        for index, member in enumerate(failed.batch.members):
            opened = self.pop(member)
            if opened is not None and index < place:
                opened.finish(EndUnknown())  # answered and paid, but the answer is lost
            elif opened is not None:
                opened.permit.release("never sent")

    # --- ends

    def pop(self, run_id: UUID) -> OpenCall | None:
        return self._calls.pop(run_id, None)

    def _task_ended(self, run_id: UUID, task: asyncio.Task[Any]) -> None:
        """A cancelled `ainvoke` ends without any event; its task does not.

        Chains read a stream with a task for each chunk, and completion models tell of their start in a task of its own:
        the end of one that did not fail says nothing about the call.
        """
        cancelled = task.cancelled()
        opened = self.get(run_id)
        lives_on = opened is not None and (opened.streaming or (not opened.call.chat and opened.manager is not None))
        if opened is None or (lives_on and not cancelled and task.exception() is None):
            return
        if self.pop(run_id) is not None:
            opened.finish(asyncio.CancelledError() if cancelled else EndUnknown())

    def _manager_gone(self, run_id: UUID, _: object) -> None:
        """The call is over, and nothing was told: it was cancelled inside a task that lives on."""
        opened = self.pop(run_id)
        if opened is not None and opened.task is not None:
            opened.task.remove_done_callback(opened.on_task_end)
            opened.permit.finish_later(opened.gate.outcome(opened.permit, opened.call, asyncio.CancelledError()))

    # --- chains

    def chain_began(self, run_id: UUID, parent: UUID | None) -> None:
        root = self.root_of(run_id, parent)
        with self._lock:
            self._chains[run_id] = root
            if len(self._chains) > MAX_CHAINS:
                self._chains.popitem(last=False)

    def chain_ended(self, run_id: UUID) -> None:
        """When the outermost chain is over nothing inside it can still run: the one event that never fails to come."""
        with self._lock:
            root = self._chains.pop(run_id, None)
        if root != run_id:
            return
        for left in [key for key, opened in list(self._calls.items()) if opened.root == run_id]:
            opened = self.pop(left)
            if opened is not None:
                opened.finish(EndUnknown())

    def root_of(self, run_id: UUID, parent: UUID | None) -> UUID:
        if parent is None:
            return run_id
        return self._chains.get(parent, parent)


_books: WeakKeyDictionary[Authority, OpenCalls] = WeakKeyDictionary()
_books_lock = Lock()


def open_calls_of(authority: Authority) -> OpenCalls:
    """One book for each authority, so that two handlers on one call count it once."""
    with _books_lock:
        book = _books.get(authority)
        if book is None:
            book = _books[authority] = OpenCalls()
        return book


def _current_task() -> asyncio.Task[Any] | None:
    loop = _get_running_loop()  # unlike asyncio.current_task it costs nothing where there is no loop
    return asyncio.current_task(loop) if loop is not None else None
