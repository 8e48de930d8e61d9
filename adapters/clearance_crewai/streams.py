"""Streams of CrewAI's: their work happens in the run that they were made in, wherever they are read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import copy_context
from threading import Thread
from typing import Any
from weakref import ref

_END = object()


class Bound:
    """An iterator whose every step is made in the context that it was wrapped in."""

    def __init__(self, inner: Iterator[Any]) -> None:
        self._inner = inner
        self._context = copy_context()

    def __iter__(self) -> Bound:
        return self

    def __next__(self) -> Any:
        item = self._context.run(next, self._inner, _END)
        if item is _END:
            raise StopIteration
        return item

    def close(self) -> None:
        close = getattr(self._inner, "close", None)
        if close is not None:
            self._context.run(close)


class BoundAsync:
    """The same for an async iterator; each step is a task, since only a task can be given a context."""

    def __init__(self, inner: AsyncIterator[Any]) -> None:
        self._inner = inner
        self._context = copy_context()

    def __aiter__(self) -> BoundAsync:
        return self

    async def __anext__(self) -> Any:
        item = await asyncio.create_task(self._step(), context=self._context)
        if item is _END:
            raise StopAsyncIteration
        return item

    async def _step(self) -> Any:
        return await anext(self._inner, _END)

    async def aclose(self) -> None:
        close = getattr(self._inner, "aclose", None)
        if close is not None:
            await asyncio.create_task(close(), context=self._context)


class Owner:
    """What reads the streams of one run, and ends the run when the last is read, closed or dropped."""

    def __init__(self, run: Any, streams: int, finished: Callable[[Any], Any]) -> None:
        self.run = run
        self._left = streams
        self.finished = finished

    def one_less(self) -> None:
        self._left -= 1
        if self._left <= 0:
            self.run.end()

    def give_up(self) -> None:
        """Nothing more starts in any of them."""
        self._left = 0
        self.run.end()


def owned(stream: Any, owner: Owner, lacking: Callable[[], Any]) -> Any:
    """A stream of the same class for the user, that owns the run which `stream` works in.

    It holds `stream` and is not held by it, so it goes when its user lets it go; CrewAI's own is held by its worker.
    `lacking` makes what a soft landing gives in place of its result: a list where it is of many inputs.
    """
    kind = _Reader if stream._async_iterator is None else _AsyncReader
    reader = kind(stream, owner, lacking)
    side = "sync_iterator" if isinstance(reader, _Reader) else "async_iterator"
    outer = type(stream)(**{side: reader})
    reader.outer = ref(outer)
    return outer


class _Ownership:
    outer: Callable[[], Any]

    def __init__(self, stream: Any, owner: Owner, lacking: Callable[[], Any]) -> None:
        self._stream = stream
        self._owner = owner
        self._lacking = lacking
        self._over = False

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._owner.one_less()

    def _succeeded(self) -> None:
        outer, stream = self.outer(), self._stream
        self._end()
        if outer is None or not stream._completed or stream._error is not None:
            return
        results = getattr(stream, "_results", None)
        if results is not None:
            outer._set_results([self._owner.finished(one) for one in results])
        elif "_result" in vars(stream):
            outer._set_result(self._owner.finished(stream._result))

    def _failed(self, error: BaseException) -> BaseException | None:
        """The error for the reader; None where a soft landing gives it what is there."""
        run = self._owner.run
        if not self._over:
            self._over = True
            self._owner.give_up()
        out: BaseException = run.leaving(error) or error
        if run.on_deny == "finish" and out is run.denial:
            outer, found = self.outer(), self._owner.finished(self._lacking())
            if outer is not None:
                (outer._set_results if isinstance(found, list) else outer._set_result)(found)
            return None
        return out

    def _left(self) -> None:
        if not self._over:
            self._over = True
            self._owner.give_up()


class _Reader(_Ownership):
    def __init__(self, stream: Any, owner: Owner, lacking: Callable[[], Any]) -> None:
        super().__init__(stream, owner, lacking)
        self._items = iter(stream)

    def __iter__(self) -> _Reader:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._items)
        except StopIteration:
            self._succeeded()
            raise
        except BaseException as error:
            out = self._failed(error)
        if out is None:
            raise StopIteration
        raise out from None

    def close(self) -> None:
        self._left()
        self._stream.close()

    def __del__(self) -> None:
        if not self._over:
            self._left()
            # Closing waits for the call in flight.
            Thread(target=self._stream.close, name="clearance-crewai-close", daemon=True).start()


class _AsyncReader(_Ownership):
    def __init__(self, stream: Any, owner: Owner, lacking: Callable[[], Any]) -> None:
        super().__init__(stream, owner, lacking)
        self._items = aiter(stream)

    def __aiter__(self) -> _AsyncReader:
        return self

    async def __anext__(self) -> Any:
        try:
            return await anext(self._items)
        except StopAsyncIteration:
            self._succeeded()
            raise
        except BaseException as error:
            out = self._failed(error)
        if out is None:
            raise StopAsyncIteration
        raise out from None

    async def aclose(self) -> None:
        self._left()
        await self._stream.aclose()

    def __del__(self) -> None:
        self._left()
