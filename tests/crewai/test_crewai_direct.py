"""Tools that a run's own code calls: reserved as an agent's are, and never twice where an agent's call ends there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import pytest
from crew_paths import PATHS, Path, go
from crew_world import World, calls_then
from crewai import Flow
from crewai.flow.flow import start
from crewai.tools import BaseTool

from clearance.errors import ApprovalRequired, BudgetExceeded, CapsViolated, Killed
from clearance.guard import current_permit
from clearance.model.amount import credits, usd
from clearance.model.caps import Caps
from clearance.simulator import ToolCall
from clearance_crewai import CallbackFailed, OutsideRun, RunEnded

MakeWorld = Callable[..., World]
LOOK = ToolCall("look_up", {"word": "sun"})
CENT = usd("0.01").amount
# CrewAI says so of functions that are given as callbacks.
pytestmark = pytest.mark.filterwarnings("ignore:.*prevent checkpointing:UserWarning")


def statuses(world: World) -> list[str]:
    return sorted(call.status for call in world.tool_calls())


def own_tool(world: World) -> BaseTool:
    class LookUp(BaseTool):
        name: str = "look_up"
        description: str = "Look a word up."

        def _run(self, word: str) -> str:
            world.tool_runs.append("look_up")
            return f"{word} is known"

        async def _arun(self, word: str) -> str:
            return self._run(word)

    return LookUp()


WAYS: dict[str, Callable[[World], Any]] = {
    "run": lambda world: world.tool().run(word="sun"),
    "run, by place": lambda world: world.tool().run("sun"),
    "run of a class": lambda world: own_tool(world).run(word="sun"),
    "run of a class, by place": lambda world: own_tool(world).run("sun"),
    "arun": lambda world: asyncio.run(own_tool(world).arun(word="sun")),
    "arun, by place": lambda world: asyncio.run(own_tool(world).arun("sun")),
    "invoke": lambda world: own_tool(world).to_structured_tool().invoke({"word": "sun"}),
    "invoke, by name": lambda world: world.tool().to_structured_tool().invoke(input={"word": "sun"}),
    "ainvoke": lambda world: asyncio.run(own_tool(world).to_structured_tool().ainvoke({"word": "sun"})),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_direct_call_is_reserved_as_an_agents_is(make_world: MakeWorld, way: str) -> None:
    world = make_world(calls_then("done", LOOK))
    world.budget(credits(5))
    options: dict[str, Any] = {
        "tool_costs": {"look_up": credits(2)},
        "action_kinds": {"look_up": "data.word.read"},
        "arguments": lambda tool, given: dict(given),
    }

    with world.run(**options) as run:
        world.crew([world.tool()]).kickoff()
        assert WAYS[way](world) == "sun is known"

    asked, direct = world.tool_calls()
    assert world.tool_runs == ["look_up"] * 2
    assert direct.action == asked.action == {"kind": "data.word.read", "name": "look_up"}
    assert (direct.status, direct.unit, direct.actual) == (asked.status, asked.unit, asked.actual)
    assert (direct.actual, direct.metadata["arguments"]) == (2, {"word": "sun"})
    same = ("arguments", "arguments_sha256", "arguments_bytes", "via")
    assert [direct.metadata[name] for name in same] == [asked.metadata[name] for name in same]
    assert [line.calls for line in run.report().by("tool")] == [2]
    assert current_permit() is None


@pytest.mark.parametrize("way", WAYS)
def test_a_denied_direct_call_raises_the_typed_error_and_runs_nothing(world: World, way: str) -> None:
    with world.run(budget=usd("0.1"), tool_costs={"look_up": usd("0.5")}) as run:
        with pytest.raises(BudgetExceeded) as it:
            WAYS[way](world)
        assert it.value.reason_code == "BUDGET_EXCEEDED"
        assert world.llm().call("look")  # only that call was refused

    assert (world.tool_runs, run.report().refused, run.denial) == ([], 1, None)
    assert world.spent() == world.billed


@pytest.mark.parametrize("path", [path for path in PATHS if path.tools], ids=lambda path: path.name)
def test_an_agents_own_call_is_charged_once(make_world: MakeWorld, path: Path) -> None:
    world = make_world(path.script)

    go(path, world, tool_costs={"look_up": usd("0.01")})

    assert len(world.tool_runs) == path.tools
    committed = [call for call in world.tool_calls() if call.action["name"] == "look_up"]
    assert [call.status for call in committed] == ["COMMITTED"] * path.tools
    assert world.spent() == world.billed + path.tools * CENT


def test_a_tool_that_calls_itself_is_charged_each_time(make_world: MakeWorld) -> None:
    world = make_world(calls_then("done", LOOK))
    made: list[Any] = []
    made.append(world.tool(work=lambda word: "done" if word == "again" else str(made[0].run("again"))))

    with world.run(tool_costs={"look_up": usd("0.01")}):
        world.crew(made).kickoff()
        made[0].run("moon")

    assert len(world.tool_runs) == 4
    assert world.spent() == world.billed + 4 * CENT


def test_calls_side_by_side_have_a_reservation_each(world: World) -> None:
    tool, other = own_tool(world), world.tool()

    async def main() -> None:
        async with world.run(tool_costs={"look_up": usd("0.01")}):
            await asyncio.gather(*(tool.arun(word="sun") for _ in range(5)))
            await asyncio.gather(*(asyncio.to_thread(other.run, word="sun") for _ in range(5)))

    asyncio.run(main())

    assert (len(world.tool_runs), statuses(world)) == (10, ["COMMITTED"] * 10)
    assert world.spent() == 10 * CENT


# --- what a call comes to


def test_a_direct_body_that_fails_is_charged(world: World) -> None:
    def fails(word: str) -> str:
        raise OSError("the line is dead")

    with world.run(tool_costs={"look_up": usd("0.01")}), pytest.raises(OSError, match="dead"):
        world.tool(work=fails).run(word="sun")

    (call,) = world.tool_calls()
    assert (call.actual, call.committed_metadata["error"]) == (CENT, "OSError")


def test_a_direct_body_that_calls_a_refused_tool_is_charged(world: World) -> None:
    """Its own cost may have been spent when it came to call the other."""
    inner = world.tool("inner")

    def costs(name: str) -> Any:
        return usd("0.01") if name == "look_up" else 1 / 0

    with world.run(tool_costs=costs), pytest.raises(CallbackFailed):
        world.tool(work=lambda word: str(inner.run(word))).run(word="sun")

    (call,) = world.tool_calls()
    assert (call.action["name"], call.actual, world.tool_runs) == ("look_up", CENT, ["look_up"])


def test_a_direct_body_can_tell_what_it_has_cost(world: World) -> None:
    def tells(word: str) -> str:
        permit = current_permit()
        assert permit is not None
        permit.settle(usd("0.003"))
        return word

    with world.run(tool_costs={"look_up": usd("0.01")}):
        world.tool(work=tells).run(word="sun")

    assert [call.actual for call in world.tool_calls()] == [300_000]


def _structured_twice(world: World) -> None:
    tool = world.tool(max_usage_count=1).to_structured_tool()
    tool.invoke({"word": "sun"})
    with pytest.raises(Exception, match="maximum usage limit"):
        tool.invoke({"word": "sun"})


def _twice(world: World) -> None:
    tool = world.tool(max_usage_count=1)
    tool.run("sun")
    assert "usage limit" in str(tool.run("sun"))


@pytest.mark.parametrize("use", [_twice, _structured_twice])
def test_a_direct_call_of_a_used_up_tool_costs_nothing(world: World, use: Callable[[World], None]) -> None:
    with world.run(tool_costs={"look_up": usd("0.01")}):
        use(world)

    assert (world.tool_runs, statuses(world)) == (["look_up"], ["COMMITTED", "RELEASED"])


@pytest.mark.parametrize(
    "call", [lambda tool: tool.run(wrong="x"), lambda tool: tool.to_structured_tool().invoke({"wrong": "x"})]
)
def test_a_direct_call_with_wrong_arguments_costs_nothing(world: World, call: Any) -> None:
    with world.run(tool_costs={"look_up": usd("0.01")}), pytest.raises(ValueError, match="validation failed"):
        call(world.tool())

    assert (world.tool_runs, statuses(world)) == ([], ["RELEASED"])


def test_arguments_that_do_not_fit_are_kept_as_they_came(world: World) -> None:
    kept: list[Any] = []

    with world.run(arguments=lambda tool, given: kept.append(given) or {}), pytest.raises(TypeError):
        world.tool().run("sun", "moon")

    assert kept == [{"args": ("sun", "moon")}]


def test_a_stop_at_a_direct_call_ends_the_run(world: World) -> None:
    with world.run() as run:
        world.authority.kill("tenant:acme", reason="enough")
        with pytest.raises(Killed):
            world.tool().run(word="sun")
        world.authority.resume("tenant:acme", reason="calm")
        with pytest.raises(Killed):
            world.llm().call("look")

    assert (world.tool_runs, world.requests) == ([], 0)
    assert isinstance(run.denial, Killed)


def test_a_direct_call_is_held_to_tool_lists(world: World) -> None:
    world.budget("1", caps=Caps(tool_allowlist=("other",)))

    with world.run():
        assert world.tool("other").run(word="sun")
        with pytest.raises(CapsViolated):
            world.tool().run(word="sun")

    assert world.tool_runs == ["other"]


def test_a_person_approves_a_direct_call_by_its_arguments(world: World) -> None:
    world.budget("1", caps=Caps(approval_tools=("look_*",)))
    asked: list[Any] = []

    with world.run(approve=lambda tool, given: asked.append((tool, dict(given))) or "ann"):
        world.tool().run("sun")

    assert asked == [("look_up", {"word": "sun"})]
    (granted,) = [call for call in world.tool_calls() if call.status == "COMMITTED"]
    assert granted.metadata["approved_by"] == "ann"


# --- a `run` that was taken from its tool before


def test_a_method_that_was_taken_before_the_run_is_gated_too(world: World) -> None:
    tool, other = world.tool().run, own_tool(world).arun

    with world.run(tool_costs={"look_up": usd("0.01")}):
        tool(word="sun")
        asyncio.run(other(word="sun"))
        with world.run(budget=usd("0.001"), tool_costs={"look_up": usd("0.01")}), pytest.raises(BudgetExceeded):
            tool(word="sun")

    assert world.tool_runs == ["look_up"] * 2
    assert world.spent() == 2 * CENT


def test_a_taken_method_is_not_approved_since_its_arguments_are_unknown(world: World) -> None:
    world.budget("1", caps=Caps(approval_tools=("look_*",)))
    taken = world.tool().run

    with world.run(approve=lambda tool, given: "ann"), pytest.raises(ApprovalRequired):
        taken(word="sun")

    assert world.tool_runs == []


# --- outside


def test_where_no_run_is_a_tool_is_its_owners(world: World) -> None:
    def carry_on() -> str:
        return str(world.tool().run(word="sun"))

    with world.run(tool_costs={"look_up": usd("0.01")}):
        pass
    assert carry_on() == "sun is known"
    assert (world.tool_runs, world.calls()) == (["look_up"], [])


def test_a_run_elsewhere_leaves_a_tool_of_no_run_alone(world: World) -> None:
    opened, used = Event(), Event()

    def elsewhere() -> None:
        with world.run(tool_costs={"look_up": usd("0.01")}):
            opened.set()
            used.wait(10)

    thread = Thread(target=elsewhere)
    thread.start()
    assert opened.wait(10)
    assert world.tool().run(word="sun") == "sun is known"
    used.set()
    thread.join()

    assert world.tool_calls() == []


@pytest.mark.parametrize("way", WAYS)
def test_a_tool_in_a_bare_thread_of_a_run_is_refused(world: World, way: str) -> None:
    found: list[BaseException] = []

    def attempt() -> None:
        try:
            WAYS[way](world)
        except OutsideRun as error:
            found.append(error)

    with world.run() as run:
        thread = Thread(target=attempt)
        thread.start()
        thread.join()
        carried = Thread(target=run.carry(lambda: WAYS[way](world)))
        carried.start()
        carried.join()

    assert "tool look_up was called in a thread" in str(found[0])
    assert (world.tool_runs, statuses(world)) == (["look_up"], ["COMMITTED"])


def test_a_run_that_is_over_lets_no_tool_start(world: World) -> None:
    async def main() -> None:
        async def later() -> None:
            await done.wait()
            world.tool().run(word="sun")

        done = asyncio.Event()
        async with world.run():
            straggler = asyncio.create_task(later())
            await asyncio.sleep(0)
        async with world.run():
            done.set()
            with pytest.raises(RunEnded):
                await straggler

    asyncio.run(main())
    assert world.tool_runs == []


def test_a_step_that_goes_on_after_its_run_was_cancelled_calls_no_tool(world: World) -> None:
    """Nothing interrupts a thread; CrewAI runs plain steps in one."""
    cancelled, ended = Event(), Event()

    class Steps(Flow):  # type: ignore[type-arg]
        @start()
        def first(self) -> None:
            try:
                world.tool().run(word="sun")
                cancelled.wait(20)
                world.tool().run(word="moon")
            finally:
                ended.set()

    async def work() -> None:
        async with world.run():
            await Steps().kickoff_async()

    async def main() -> None:
        task = asyncio.create_task(work())
        await asyncio.to_thread(world.until, lambda: world.tool_runs, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        cancelled.set()
        await asyncio.to_thread(ended.wait, 20)

    asyncio.run(main())
    assert world.tool_runs == ["look_up"]
