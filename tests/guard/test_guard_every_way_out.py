"""Each kind of work, by each way out: how often the body ran, what was settled, and that nothing stays open."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from clearance.errors import BudgetExceeded, Killed
from clearance.guard import current_permit
from clearance.model.amount import usd
from clearance.model.results import Stop

ESTIMATE, ACTUAL = usd("0.05"), usd("0.02")


class HttpError(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__()
        self.status_code = status_code


ERRORS: dict[str, BaseException] = {
    "client error": HttpError(429),
    "server error": HttpError(503),
    "other": ValueError(),
    "timeout": TimeoutError(),
    "cancelled": asyncio.CancelledError(),
    "interrupt": KeyboardInterrupt(),
}


class Body:
    """The work: counts its executions, may tell its cost, may fail."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.runs = 0

    def begin(self, permit: Any) -> None:
        self.runs += 1
        if self.way.endswith("with actual"):
            permit.settle(ACTUAL)

    def end(self) -> int:
        for name, error in ERRORS.items():
            if self.way.startswith(name):
                raise error
        return 42


def function(guard: Any, body: Body) -> Any:
    @guard
    def work() -> int:
        body.begin(current_permit())
        return body.end()

    return work()


def coroutine(guard: Any, body: Body) -> Any:
    @guard
    async def work() -> int:
        body.begin(current_permit())
        await asyncio.sleep(0)
        return body.end()

    return asyncio.run(work())


def generator(guard: Any, body: Body) -> Any:
    @guard
    def work() -> Any:
        body.begin(current_permit())
        yield 1
        yield body.end()

    items = work()
    if body.way.startswith("closed early"):
        assert next(items) == 1
        return items.close()
    return list(items)[-1]


def async_generator(guard: Any, body: Body) -> Any:
    @guard
    async def work() -> Any:
        body.begin(current_permit())
        yield 1
        await asyncio.sleep(0)
        yield body.end()

    async def consume() -> Any:
        items = work()
        if body.way.startswith("closed early"):
            assert await anext(items) == 1
            return await items.aclose()
        return [item async for item in items][-1]

    return asyncio.run(consume())


def class_method(guard: Any, body: Body) -> Any:
    class Tool:
        @classmethod
        @guard
        def work(cls) -> int:
            body.begin(current_permit())
            return body.end()

    return Tool.work()


def class_method_above(guard: Any, body: Body) -> Any:
    class Tool:
        @guard
        @classmethod
        def work(cls) -> int:
            assert cls is Tool
            body.begin(current_permit())
            return body.end()

    return Tool().work()


def static_method(guard: Any, body: Body) -> Any:
    class Tool:
        @guard
        @staticmethod
        async def work() -> int:
            body.begin(current_permit())
            return body.end()

    return asyncio.run(Tool.work())


def method(guard: Any, body: Body) -> Any:
    class Tool:
        @guard
        def work(self) -> int:
            assert isinstance(self, Tool)
            body.begin(current_permit())
            return body.end()

    return Tool().work()


def with_block(guard: Any, body: Body) -> Any:
    with guard as permit:
        body.begin(permit)
        return body.end()


def async_with_block(guard: Any, body: Body) -> Any:
    async def work() -> int:
        async with guard as permit:
            body.begin(permit)
            await asyncio.sleep(0)
            return body.end()

    return asyncio.run(work())


def sync_with_in_a_task(guard: Any, body: Body) -> Any:
    async def work() -> int:
        with guard as permit:
            body.begin(permit)
            await asyncio.sleep(0)
            return body.end()

    return asyncio.run(work())


KINDS = [
    function,
    coroutine,
    generator,
    async_generator,
    class_method,
    class_method_above,
    static_method,
    method,
    with_block,
    async_with_block,
    sync_with_in_a_task,
]
WAYS = [f"{way}{usage}" for way in ["ok", *ERRORS, "closed early"] for usage in ("", " with actual")]


def expected(way: str) -> tuple[str, int | None, dict[str, str]]:
    name = way.removesuffix(" with actual")
    error = {"closed early": "GeneratorExit", "ok": None}.get(name) or (
        type(ERRORS[name]).__name__ if name in ERRORS else None
    )
    facts = {"error": error} if error else {}
    if way.endswith("with actual"):
        return "COMMITTED", ACTUAL.amount, {"settled_as": "actual", **facts}
    if name == "client error":
        return "RELEASED", None, {}
    return "COMMITTED", ESTIMATE.amount, {"settled_as": "estimate", **facts}


CASES = [
    pytest.param(kind, way, id=f"{kind.__name__}-{way}")
    for kind in KINDS
    for way in WAYS
    if kind in (generator, async_generator) or not way.startswith("closed early")  # only generators can be closed
]


@pytest.mark.parametrize(("kind", "way"), CASES)
def test_each_way_out_settles_once(either: Any, acme: Any, kind: Callable[..., Any], way: str) -> None:
    body = Body(way)
    guard = either.guard("tool.call:work", ESTIMATE, subject=acme)
    name = way.removesuffix(" with actual")
    if name in ERRORS:
        with pytest.raises(type(ERRORS[name])):
            kind(guard, body)
    else:
        assert kind(guard, body) == (42 if name == "ok" else None)
    row = either.only()
    assert body.runs == 1
    assert (row.status, row.actual, row.metadata) == expected(way)
    assert either.open() == []
    assert either.count() == {"reserve": 1, "commit" if row.status == "COMMITTED" else "release": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_denied_means_that_nothing_happened(either: Any, acme: Any, kind: Callable[..., Any]) -> None:
    either.set_funds(0)
    body = Body("ok")
    with pytest.raises(BudgetExceeded):
        kind(either.guard("tool.call:work", ESTIMATE, subject=acme), body)
    assert body.runs == 0
    assert either.count()["commit"] == 0
    assert either.open() == []


def stop_when_running(authority: Any) -> Callable[[], None]:
    """Marks the one open permit as the scheduler would, from another thread's point of view."""

    def stop() -> None:
        permit = next(p for p in gc.get_objects() if type(p).__name__ == "Permit" and p.authority is authority)
        permit.mark(Stop("tenant:acme", "acme", "KILLED", "test", "tester", 0))

    return stop


def killed_coroutine(guard: Any, stop: Any, seen: list[str]) -> Any:
    @guard
    async def work() -> None:
        stop()
        await asyncio.sleep(30)

    return work()


def killed_async_with(guard: Any, stop: Any, seen: list[str]) -> Any:
    async def work() -> None:
        async with guard:
            stop()
            await asyncio.sleep(30)

    return work()


def killed_sync_with(guard: Any, stop: Any, seen: list[str]) -> Any:
    async def work() -> None:
        with guard:
            stop()
            await asyncio.sleep(30)

    return work()


def killed_async_generator_between_items(guard: Any, stop: Any, seen: list[str]) -> Any:
    @guard
    async def items() -> Any:
        try:
            yield 1
            yield 2
        finally:
            seen.append("closed")

    async def work() -> None:
        stream = items()
        await anext(stream)
        stop()
        await anext(stream)

    return work()


def killed_async_generator_within_an_item(guard: Any, stop: Any, seen: list[str]) -> Any:
    @guard
    async def items() -> Any:
        try:
            stop()
            await asyncio.sleep(30)
            yield 1
        finally:
            seen.append("closed")

    async def work() -> None:
        async for _ in items():
            pass

    return work()


def killed_generator(guard: Any, stop: Any, seen: list[str]) -> Any:
    @guard
    def items() -> Any:
        try:
            yield 1
            yield 2
        finally:
            seen.append("closed")

    async def work() -> None:
        stream = items()
        next(stream)
        stop()
        next(stream)

    return work()


@pytest.mark.parametrize(
    "work",
    [
        killed_coroutine,
        killed_async_with,
        killed_sync_with,
        killed_async_generator_between_items,
        killed_async_generator_within_an_item,
        killed_generator,
    ],
)
def test_killed_work_ends_with_killed_and_is_charged(either: Any, acme: Any, work: Any) -> None:
    seen: list[str] = []
    guard = either.guard("tool.call:work", ESTIMATE, subject=acme)

    async def main() -> int:
        with pytest.raises(Killed, match="killed by tester: test"):
            await work(guard, stop_when_running(either), seen)
        await asyncio.sleep(0.01)  # no cancellation may come after it
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert asyncio.run(main()) == 0
    assert seen == (["closed"] if "generator" in work.__name__ else [])
    row = either.only()
    assert (row.status, row.actual) == ("COMMITTED", ESTIMATE.amount)
    assert row.metadata == {"settled_as": "estimate", "error": "Killed"}
