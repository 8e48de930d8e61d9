"""Workers as processes of their own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Worker:
    def __init__(self, url: str, task: str, number: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.postgres.worker", url, task, str(number)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def await_ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", "a worker did not start"

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def told(self, timeout: float = 100) -> Any:
        out, _ = self.process.communicate(timeout=timeout)
        return json.loads(out)

    def kill(self) -> list[Any]:
        """kill -9; what it had told by then, without a line that it had not finished."""
        self.process.kill()
        out, _ = self.process.communicate(timeout=20)
        return [json.loads(line) for line in out.splitlines(keepends=True) if line.endswith("]\n")]


@contextlib.contextmanager
def workers(url: str, task: str, count: int) -> Iterator[list[Worker]]:
    """All ready; those that still run at the end are killed."""
    started = [Worker(url, task, number) for number in range(count)]
    try:
        for worker in started:
            worker.await_ready()
        yield started
    finally:
        for worker in started:
            if worker.process.poll() is None:
                worker.process.kill()
            worker.process.communicate()
