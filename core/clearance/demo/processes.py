"""Child processes for the scenarios that need them: started quickly, deaf to Ctrl+C, never left behind."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

_READY_S = 60.0
_END_S = 5.0


class Worker:
    """One process and the pipe to it. Its target is called with the pipe's other end and `args`."""

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        self.process = process
        self._pipe = pipe

    def hear(self, wait_s: float = 0.0) -> Any:
        """What it has said; None if nothing yet. Raises RuntimeError when it died without a word."""
        if not self._pipe.poll(wait_s):
            return None
        try:
            return self._pipe.recv()
        except EOFError:
            self.process.join(_END_S)
            raise RuntimeError(f"{self.process.name} ended with exit code {self.process.exitcode}") from None

    def must_say(self, word: str) -> None:
        heard = self.hear(_READY_S)
        if heard != word:
            raise RuntimeError(f"{self.process.name} said {heard!r}, not {word!r}")

    def tell(self, word: str) -> None:
        self._pipe.send(word)

    def kill(self) -> int | None:
        """SIGKILL; returns the exit code."""
        self.process.kill()
        self.process.join(_END_S)
        return self.process.exitcode


@contextmanager
def workers(
    target: Callable[..., None], names: Sequence[str], args: tuple[Any, ...], preload: str
) -> Iterator[list[Worker]]:
    """One process for each name, called as `target(pipe, name, *args)`; `preload` is a module that all of them need.

    Where the system can, a server process imports it once and forks them, so that eight start as fast as one.
    """
    context: Any = multiprocessing.get_context(_method())
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload([preload])
    started: list[Worker] = []
    try:
        with _deaf_to_interrupts():
            for name in names:
                ours, theirs = context.Pipe()
                process = context.Process(target=target, args=(theirs, name, *args), name=name, daemon=True)
                process.start()
                theirs.close()
                started.append(Worker(process, ours))
        yield started
    finally:
        for worker in started:
            worker.kill()


def _method() -> str:
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Ctrl+C goes to the whole group, and only the parent may answer it: the children inherit the mask.

    In here it waits for the end of the block, so that no process is started and not known.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    came: list[int] = []
    resource_tracker.ensure_running()  # its start would take the mask off again
    handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if came:
        raise KeyboardInterrupt
