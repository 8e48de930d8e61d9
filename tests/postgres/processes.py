"""Workers as processes of their own, forked from one that has imported everything."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator
from typing import Any

from tests.postgres import worker

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.postgres.worker"])


class Worker:
    def __init__(self, url: str, task: str, number: int) -> None:
        self.line, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=worker.main, args=(url, task, number, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def told(self, timeout: float = 100) -> Any:
        assert self.line.poll(timeout), "a worker does not answer"
        return self.line.recv()

    def go(self) -> None:
        self.line.send("go")

    def kill(self) -> list[Any]:
        """kill -9; what it had told by then, without what it had not finished."""
        self.process.kill()
        self.process.join()
        told = []
        with contextlib.suppress(EOFError, OSError):
            while True:
                told.append(self.line.recv())
        return told


@contextlib.contextmanager
def workers(url: str, task: str, count: int) -> Iterator[list[Worker]]:
    """All ready; those that still run at the end are killed."""
    started = [Worker(url, task, number) for number in range(count)]
    try:
        for one in started:
            assert one.told() == "ready"
        yield started
    finally:
        for one in started:
            one.kill()
            one.line.close()
