"""on_deny, observing instead of denying, and what the arguments of a guard may be."""

from __future__ import annotations

import asyncio
import inspect
from functools import partial
from typing import Any

import pytest

from clearance.errors import AuthorityUnavailable, BudgetExceeded, Denied, InvalidRequest, Killed, SubjectMissing
from clearance.guard import Returning, current_permit
from clearance.model.action import Action
from clearance.model.amount import tokens, usd
from clearance.model.subject import Subject


def denied_work(authority: Any, acme: Any, on_deny: Any, kind: str) -> Any:
    """What a denied call of this kind answers; its body must not run."""
    authority.budget = 0
    guard = authority.guard("tool.call:work", usd(1), subject=acme, on_deny=on_deny)
    if kind == "function":
        return guard(lambda: pytest.fail("ran"))()
    if kind == "coroutine":

        async def work() -> None:
            pytest.fail("ran")

        return asyncio.run(guard(work)())
    if kind == "generator":

        def items() -> Any:
            pytest.fail("ran")
            yield

        return list(guard(items)())

    async def async_items() -> Any:
        pytest.fail("ran")
        yield

    async def collect() -> list[Any]:
        return [item async for item in guard(async_items)()]

    return asyncio.run(collect())


@pytest.mark.parametrize("kind", ["function", "coroutine"])
def test_a_denied_call_answers_what_on_deny_says(authority: Any, acme: Any, kind: str) -> None:
    assert denied_work(authority, acme, Returning("no"), kind) == "no"
    assert denied_work(authority, acme, lambda denied: denied.code, kind) == "BUDGET_EXCEEDED"
    with pytest.raises(BudgetExceeded):
        denied_work(authority, acme, "raise", kind)


@pytest.mark.parametrize("kind", ["generator", "async generator"])
def test_a_denied_generator_yields_the_answer_once_and_none_not_at_all(authority: Any, acme: Any, kind: str) -> None:
    assert denied_work(authority, acme, Returning("no"), kind) == ["no"]
    assert denied_work(authority, acme, Returning(None), kind) == []
    assert denied_work(authority, acme, lambda denied: denied.code, kind) == ["BUDGET_EXCEEDED"]


async def asking(denied: Denied) -> str:
    await asyncio.sleep(0)
    return denied.code


@pytest.mark.parametrize("kind", ["coroutine", "async generator"])
def test_on_deny_may_be_async_for_async_work(authority: Any, acme: Any, kind: str) -> None:
    assert "BUDGET_EXCEEDED" in denied_work(authority, acme, asking, kind)


@pytest.mark.parametrize("kind", ["function", "generator"])
def test_an_async_on_deny_for_sync_work_is_refused_when_decorating(authority: Any, acme: Any, kind: str) -> None:
    with pytest.raises(InvalidRequest, match="coroutine function"):
        denied_work(authority, acme, asking, kind)


@pytest.mark.parametrize("kind", ["function", "coroutine", "generator", "async generator"])
def test_an_outage_is_not_a_denial(authority: Any, acme: Any, kind: str) -> None:
    authority.failures["reserve"] = [AuthorityUnavailable("gone")]
    with pytest.raises(AuthorityUnavailable):
        denied_work(authority, acme, Returning("no"), kind)


def test_a_with_block_cannot_answer_in_place_of_its_body(authority: Any, acme: Any) -> None:
    with (
        pytest.raises(InvalidRequest, match="with block"),
        authority.guard("tool.call:work", 1, subject=acme, on_deny=Returning(1)),
    ):
        pytest.fail("ran")
    assert authority.calls == []


@pytest.mark.parametrize("wrong", [{"on_deny": "ignore"}, {"dry_run": "yes"}, {"actual": 1.5}])
def test_wrong_arguments_are_refused_at_once(authority: Any, wrong: Any) -> None:
    with pytest.raises(InvalidRequest):
        authority.guard("tool.call:work", 1, **wrong)


def test_nobody_named_is_a_denial_and_nothing_is_asked(authority: Any) -> None:
    with pytest.raises(SubjectMissing):
        authority.guard("tool.call:work", 1)(lambda: pytest.fail("ran"))()
    assert authority.calls == []


# --- observing


def test_observing_runs_what_would_be_denied_and_records_it(authority: Any, acme: Any) -> None:
    authority.budget = 0
    with authority.guard("tool.call:work", usd(2), subject=acme, dry_run="observe") as permit:
        assert (permit.decision.decision, permit.decision.reason_code) == ("DENY", "BUDGET_EXCEEDED")
        permit.settle(usd(1))
    (event,) = authority.events
    assert (event["actual"], event["overage_policy"]) == (usd(1).amount, None)
    assert authority.calls[0][1]["metadata"] == {"mode": "observe"}


@pytest.mark.parametrize("refusal", [BudgetExceeded("no"), AuthorityUnavailable("gone"), RuntimeError("bug")])
def test_observing_tolerates_that_the_record_is_refused(authority: Any, acme: Any, refusal: Any) -> None:
    authority.budget = 0
    authority.failures["event"] = [refusal]
    assert authority.guard("tool.call:work", usd(2), subject=acme, dry_run="observe")(lambda: 42)() == 42


@pytest.mark.parametrize("wall", [Killed("stopped"), AuthorityUnavailable("gone")])
def test_observing_always_runs(authority: Any, acme: Any, wall: Any) -> None:
    authority.failures["reserve"] = [wall]
    assert authority.guard("tool.call:work", usd(2), subject=acme, dry_run="observe")(lambda: 42)() == 42


def test_observing_runs_for_nobody_too(authority: Any) -> None:
    assert authority.guard("tool.call:work", usd(2), dry_run="observe")(lambda: 42)() == 42
    assert authority.only().subject == Subject(tenant="default")


def test_observing_what_is_allowed_settles_as_ever(authority: Any, acme: Any) -> None:
    assert authority.guard("tool.call:work", usd(2), subject=acme, dry_run="observe")(lambda: 42)() == 42
    assert authority.only().status == "COMMITTED"
    assert authority.events == []


# --- arguments


def test_callables_get_the_arguments_of_the_call(authority: Any) -> None:
    @authority.guard(
        lambda tenant, words: Action(kind="tool.call", name=f"n{words}"),
        lambda tenant, words: words * 10,
        subject=lambda tenant, words: Subject(tenant=tenant),
        actual=lambda result, tenant, words: result + words,
    )
    def work(tenant: str, words: int) -> int:
        return 5

    assert work("acme", words=3) == 5
    row = authority.only()
    assert (row.subject.tenant, row.estimate, row.actual) == ("acme", 30, 8)
    assert "name='n3'" in row.action


def test_callables_get_nothing_in_a_with_block(authority: Any, acme: Any) -> None:
    with authority.guard(lambda: "tool.call:x", lambda: 30, subject=lambda: acme, actual=lambda: 7):
        pass
    assert authority.only().actual == 7


def test_actual_may_ask_for_the_permit(authority: Any, acme: Any) -> None:
    def total(result: Any, permit: Any) -> int:
        return permit.estimate.amount // 2 + len(result)

    @authority.guard("llm.completion:x", 30, subject=acme, actual=total)
    def words() -> Any:
        yield "a"
        return "bb"

    assert list(words()) == ["a"]
    assert authority.only().actual == 17


def test_a_failing_actual_charges_the_estimate_and_keeps_the_result(authority: Any, acme: Any) -> None:
    work = authority.guard("llm.completion:x", 30, subject=acme, actual=lambda result: result["none"])(dict)
    assert work() == {}
    assert authority.only().actual == 30


def test_what_the_body_settled_goes_before_actual(authority: Any, acme: Any) -> None:
    @authority.guard("llm.completion:x", 30, subject=acme, actual=20)
    def work() -> None:
        permit = current_permit()
        assert permit is not None
        permit.settle(8)
        permit.settle(9)

    work()
    assert current_permit() is None
    assert authority.only().actual == 9


@pytest.mark.parametrize("wrong", [1.5, tokens(3), -1])
def test_a_wrong_amount_is_refused_and_does_not_make_the_work_free(authority: Any, acme: Any, wrong: Any) -> None:
    with pytest.raises(InvalidRequest), authority.guard("llm.completion:x", 30, subject=acme) as permit:
        permit.settle(wrong)
    assert authority.only().actual == 30


def test_the_wrapper_keeps_name_signature_and_kind(authority: Any) -> None:
    guard = authority.guard("tool.call:x", 1)

    def plain(a: int, *, b: str = "x") -> None:
        """Says something."""

    async def coroutine() -> None: ...

    def items() -> Any:
        yield

    async def async_items() -> Any:
        yield

    assert inspect.signature(guard(plain)) == inspect.signature(plain)
    assert (guard(plain).__name__, guard(plain).__doc__) == ("plain", "Says something.")
    assert inspect.iscoroutinefunction(guard(coroutine))
    assert inspect.iscoroutinefunction(guard(partial(coroutine)))
    assert inspect.isgeneratorfunction(guard(items))
    assert inspect.isasyncgenfunction(guard(async_items))


def test_a_decorated_function_may_call_itself(authority: Any, acme: Any) -> None:
    @authority.guard("tool.call:x", 1, subject=acme)
    def down(n: int) -> int:
        return 0 if n == 0 else 1 + down(n - 1)

    assert down(4) == 4
    assert authority.count() == {"reserve": 5, "commit": 5}


def test_a_guard_can_be_entered_again_but_not_twice_at_a_time(authority: Any, acme: Any) -> None:
    guard = authority.guard("tool.call:x", 1, subject=acme)
    with guard:
        with pytest.raises(InvalidRequest, match="already entered"):
            guard.__enter__()
    with guard:
        pass
    assert authority.count() == {"reserve": 2, "commit": 2}


def test_sent_values_and_thrown_errors_reach_the_generator(authority: Any, acme: Any) -> None:
    @authority.guard("tool.call:x", 1, subject=acme)
    def echo() -> Any:
        got = None
        while got != "end":
            try:
                got = yield got
            except KeyError as error:
                got = error
        return "bye"

    stream = echo()
    next(stream)
    assert stream.send(1) == 1
    assert isinstance(stream.throw(KeyError("k")), KeyError)
    with pytest.raises(StopIteration) as end:
        stream.send("end")
    assert end.value.value == "bye"


def test_a_denial_inside_leaves_the_outer_work_charged(authority: Any, acme: Any) -> None:
    inner = authority.guard("tool.call:inner", 1, subject=acme)(lambda: pytest.fail("ran"))
    authority.budget = 5
    with pytest.raises(BudgetExceeded):
        authority.guard("tool.call:outer", 5, subject=acme)(inner)()
    assert (authority.only().status, authority.only().actual) == ("COMMITTED", 5)
