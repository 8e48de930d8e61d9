"""Threads that run handlers, so that one that hangs keeps nobody waiting past its deadline."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any

from clearance.guard.process import current_pid

MAX_THREADS = 32
"""Handlers of one plugin that may be at work, or hang, at a time; past it the next wait for a free thread."""
MAX_BACKLOG = 10_000
IDLE_S = 30.0
_END_S = 0.5


class Job:
    """One call of a handler. `value` and `error` are there when it is done."""

    __slots__ = ("_arguments", "_context", "_done", "_function", "_tell", "error", "value")

    def __init__(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self._function = function
        self._arguments = arguments
        self._context = copy_context()
        self._tell: Callable[[], None] | None = None
        self._done = Lock()
        self._done.acquire()

    def run(self) -> None:
        try:
            self.value = self._context.run(self._function, **self._arguments)
        except BaseException as error:  # also a handler's SystemExit: it must not take the thread with it
            self.error = error

    def end(self) -> None:
        self._done.release()
        if self._tell is not None:
            self._tell()

    def wait(self, timeout_s: float) -> bool:
        """True when it is done in time."""
        return self._done.acquire(timeout=timeout_s)

    def future(self) -> asyncio.Future[None]:
        """Done when the job is; to be asked for before the job is submitted."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def done() -> None:
            if not future.done():
                future.set_result(None)

        def tell() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(done)

        self._tell = tell
        return future


class Workers:
    """A pool that grows by need, shrinks when idle, and is made anew in a forked child."""

    def __init__(self, most: int = MAX_THREADS) -> None:
        self._most = most
        self._lock = Lock()
        self._begin()

    def _begin(self) -> None:
        self._pid = current_pid()
        self._lock = Lock()
        self._free: list[_Worker] = []
        self._backlog: deque[Job] = deque()
        self._count = 0

    @property
    def busy(self) -> int:
        return self._count - len(self._free)

    def submit(self, job: Job) -> bool:
        """Run it now or when a thread is free; False when too many wait."""
        if self._pid != current_pid():
            self._begin()
        with self._lock:
            if self._free:
                worker = self._free.pop()
            elif self._count < self._most:
                self._count += 1
                worker = _Worker(self)
                worker.start()
            elif len(self._backlog) >= MAX_BACKLOG:
                return False
            else:
                self._backlog.append(job)
                return True
        worker.box.put(job)
        return True

    def withdraw(self, job: Job) -> bool:
        """True when it still waits for a thread: then it never runs."""
        with self._lock:
            if job not in self._backlog:
                return False
            self._backlog.remove(job)
            return True

    def next_for(self, worker: _Worker) -> Job | None:
        with self._lock:
            if self._backlog:
                return self._backlog.popleft()
            self._free.append(worker)
            return None

    def close(self) -> None:
        """End the idle threads now; the others end when they have been idle for a while."""
        with self._lock:
            idle, self._free = self._free, []
            self._count -= len(idle)
        for worker in idle:
            worker.box.put(None)

    def retire(self, worker: _Worker) -> bool:
        """True when this idle thread may end; False when a job is on its way to it."""
        with self._lock:
            if worker not in self._free:
                return False
            self._free.remove(worker)
            self._count -= 1
            return True


class _Worker(Thread):
    def __init__(self, pool: Workers) -> None:
        super().__init__(name="clearance-hook", daemon=True)
        self._pool = pool
        self.box: SimpleQueue[Job | None] = SimpleQueue()

    def run(self) -> None:
        while True:
            try:
                job = self.box.get(timeout=IDLE_S)
            except Empty:
                if self._pool.retire(self):
                    return
                continue
            if job is None:
                return
            while job is not None:
                job.run()
                # Free before its end is told: who waits for it may submit the next one at once.
                following = self._pool.next_for(self)
                job.end()
                job = following


class Pools:
    """One pool a plugin: whose handlers hang takes threads from nobody else."""

    def __init__(self) -> None:
        self._pools: dict[str, Workers] = {}

    def of(self, plugin: str) -> Workers:
        return self._pools.get(plugin) or self._pools.setdefault(plugin, Workers())

    def close(self) -> None:
        for pool in list(self._pools.values()):
            pool.close()


class Late(TimeoutError):
    """The work did not answer in time; an error of its own is another."""


async def within(work: Coroutine[Any, Any, Any], timeout_s: float, *, interrupts: bool = True) -> Any:
    """Its answer, Late, or Left. In a task of its own: work that ignores its cancellation is left behind, and what it
    answers later counts for nothing. `interrupts`: a KeyboardInterrupt goes through, as it may be the user's."""
    task = asyncio.ensure_future(_staying(work, interrupts))
    task.add_done_callback(lambda _: work.close())  # cancelled before its first step, it would never have been awaited
    try:
        await asyncio.wait((task,), timeout=timeout_s)
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(_forget)
    if not task.done():
        raise Late
    answer = task.result()
    if isinstance(answer, Left):
        raise answer
    return answer


class Left(Exception):
    """The work raised what would have ended the loop, or passed through everybody who waits for it."""

    def __init__(self, original: BaseException) -> None:
        super().__init__(type(original).__name__)
        self.original = original


async def _staying(work: Coroutine[Any, Any, Any], interrupts: bool) -> Any:
    try:
        return await work
    except (Exception, asyncio.CancelledError):
        raise
    except BaseException as error:
        if interrupts and isinstance(error, KeyboardInterrupt):
            raise
        return Left(error)  # not raised: who is closed with GeneratorExit may return, but raise nothing else


def _forget(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()  # or asyncio complains that nobody has looked


class LoopThread:
    """An event loop on a thread of its own, for async handlers in sync hosts; starts with the first."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread

    def run(self, work: Coroutine[Any, Any, Any], timeout_s: float) -> Any:
        """Raises TimeoutError, and cancels the work, when it takes longer."""

        future = self.start(work, timeout_s)
        try:
            # A handler that blocks the loop itself does not see its timeout.
            return future.result(timeout_s + 0.25)
        except TimeoutError:
            future.cancel()
            raise

    def start(self, work: Coroutine[Any, Any, Any], timeout_s: float) -> Future[Any]:
        """`run` for who does not wait."""
        return asyncio.run_coroutine_threadsafe(within(work, timeout_s, interrupts=False), self._running())

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != current_pid() or not self._thread.is_alive():
                self._loop, self._pid = asyncio.new_event_loop(), current_pid()
                self._thread = Thread(target=_run_loop, args=(self._loop,), name="clearance-hooks-loop", daemon=True)
                self._thread.start()
            return self._loop

    def close(self) -> None:
        """End the loop; a handler that blocks it ends it when it lets go."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None and self._pid == current_pid():
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join(_END_S)


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
