"""The wrapper for each kind of function. What happens before and after the work is the guard's and the permit's."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, cast

from clearance.errors import Denied, InvalidRequest
from clearance.guard.context import permit_in_force
from clearance.guard.denial import aanswer, answer, refuse_async_answer
from clearance.guard.permit import Permit
from clearance.guard.steps import aperform, perform

if TYPE_CHECKING:
    from clearance.guard.guard import F, Guard

AnyFunction = Callable[..., Any]


def guarded(guard: Guard, fn: F) -> F:
    """`fn` under the guard, of the same kind and with the same signature.

    A generator reserves when its first item is asked for, as its body begins then. Decorate the function that does
    the work: a plain function that only returns a coroutine or generator is settled when it returns.
    """
    if isinstance(fn, classmethod | staticmethod):
        return cast("F", type(fn)(guarded(guard, fn.__func__)))
    if not callable(fn):
        raise InvalidRequest("guard", f"cannot guard a {type(fn).__name__}", "a function or method")
    kind = _kind_of(fn)
    if kind in (_function, _generator):
        refuse_async_answer(guard.on_deny)
    return cast("F", kind(guard, fn))


def _kind_of(fn: AnyFunction) -> Callable[[Guard, AnyFunction], AnyFunction]:
    inner: Any = fn
    while isinstance(inner, partial):
        inner = inner.func
    if not inspect.isroutine(inner) and not inspect.isclass(inner):
        inner = inner.__call__
    if inspect.isasyncgenfunction(inner):
        return _async_generator
    if inspect.iscoroutinefunction(inner):
        return _coroutine
    return _generator if inspect.isgeneratorfunction(inner) else _function


def _named_after(fn: AnyFunction) -> Callable[[AnyFunction], AnyFunction]:
    return wraps(fn)


def _function(guard: Guard, fn: AnyFunction) -> AnyFunction:
    @_named_after(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            permit = perform(guard.authority, guard.admitting(args, kwargs))
        except Denied as denied:
            return answer(guard.on_deny, denied)
        with permit:
            token = permit_in_force.set(permit)
            try:
                result = fn(*args, **kwargs)
            finally:
                permit_in_force.reset(token)
            guard.note_actual(permit, (result, *args), kwargs)
            return result

    return call


def _coroutine(guard: Guard, fn: AnyFunction) -> AnyFunction:
    @_named_after(fn)
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            permit = await aperform(guard.authority, guard.admitting(args, kwargs))
        except Denied as denied:
            return await aanswer(guard.on_deny, denied)
        async with permit:
            token = permit_in_force.set(permit)
            try:
                result = await fn(*args, **kwargs)
            finally:
                permit_in_force.reset(token)
            guard.note_actual(permit, (result, *args), kwargs)
            return result

    return call


def _generator(guard: Guard, fn: AnyFunction) -> AnyFunction:
    @_named_after(fn)
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        try:
            permit = perform(guard.authority, guard.admitting(args, kwargs))
        except Denied as denied:
            value = answer(guard.on_deny, denied)
            if value is not None:
                yield value
            return value
        try:
            result = yield from _relay(permit, fn(*args, **kwargs))
            guard.note_actual(permit, (result, *args), kwargs)
        except BaseException as exc:
            permit.finish(permit.outcome_of(exc))
            raise
        permit.finish(permit.outcome_of(None))
        return result

    return call


def _relay(permit: Permit, inner: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """`yield from inner`, but a stop closes it before its next item."""
    resume = partial(inner.send, None)
    while True:
        token = permit_in_force.set(permit)  # for this item only: between items the caller's code runs
        try:
            if permit.stopped is not None:
                inner.close()
                permit.check()
            item = resume()
        except StopIteration as end:
            return end.value
        finally:
            permit_in_force.reset(token)
        try:
            resume = partial(inner.send, (yield item))
        except GeneratorExit:
            inner.close()
            raise
        except BaseException as thrown:
            resume = partial(inner.throw, thrown)


def _async_generator(guard: Guard, fn: AnyFunction) -> AnyFunction:
    @_named_after(fn)
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        try:
            permit = await aperform(guard.authority, guard.admitting(args, kwargs))
        except Denied as denied:
            value = await aanswer(guard.on_deny, denied)
            if value is not None:
                yield value
            return
        try:
            inner = fn(*args, **kwargs)
            resume = partial(inner.asend, None)
            while True:
                try:
                    item = await _next_item(permit, inner, resume)
                except StopAsyncIteration:
                    break
                try:
                    resume = partial(inner.asend, (yield item))
                except GeneratorExit:
                    await inner.aclose()
                    raise
                except BaseException as thrown:
                    resume = partial(inner.athrow, thrown)
            guard.note_actual(permit, (None, *args), kwargs)
        except BaseException as exc:
            await permit.afinish(permit.outcome_of(exc))
            raise
        await permit.afinish(permit.outcome_of(None))

    return call


async def _next_item(permit: Permit, inner: AsyncGenerator[Any, Any], resume: AnyFunction) -> Any:
    """The next item; a stop cancels the wait for it, or closes the generator before it."""
    token = permit_in_force.set(permit)
    permit.watch_task()
    try:
        if permit.stopped is not None:
            await inner.aclose()
            permit.check()
        item = await resume()
    except BaseException as exc:
        error = permit.unwatch_task(exc)
        if error is None or error is exc:
            raise
        raise error from exc
    finally:
        permit.unwatch_task()
        permit_in_force.reset(token)
    return item
