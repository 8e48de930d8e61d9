"""Every path, under every fate: what the provider and the tools saw, what the caller got, what the ledger says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
from crew_paths import PATHS, Path, after_one, go
from crew_world import World

from clearance.errors import BudgetExceeded, BudgetFrozen, CapsViolated, ClearanceError, Killed, Paused
from clearance.model.caps import Caps
from clearance.simulator import Reply, ScriptedRequest
from clearance_crewai import partial_of

MakeWorld = Callable[..., World]
every_path = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
_IN_FLIGHT = {"tasks side by side", "kickoff_for_each_async", "akickoff_for_each", "compaction", "memory"}
"""Paths with calls side by side: those that are in flight when one is refused have had their request."""


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """CrewAI waits between its attempts; how long makes no difference here."""
    if find_spec("crewai.llms.retry"):  # before 1.15.23 it does not retry there
        monkeypatch.setattr("crewai.llms.retry._LLM_RATE_LIMIT_INITIAL_DELAY_SECONDS", 0.005)


def model_calls(world: World) -> list[Any]:
    return [call for call in world.calls() if call.action["kind"] == "llm.completion"]


def is_exact(world: World) -> None:
    """Each request has its reservation, and what nobody reported is charged its estimate."""
    world.until(lambda: world.open() == 0)
    calls = model_calls(world)
    guessed = sum(call.estimate for call in calls if (call.committed_metadata or {}).get("settled_as") == "estimate")
    assert len(calls) == world.requests
    assert world.spent() == world.billed + guessed
    assert world.reserved() == 0


@every_path
def test_all_is_allowed(path: Path, make_world: MakeWorld) -> None:
    world = make_world(path.script)

    go(path, world)

    assert (world.requests, len(world.tool_runs)) == (path.requests, path.tools)
    assert world.spent() == world.billed > 0
    is_exact(world)


@every_path
def test_the_first_call_is_denied(path: Path, make_world: MakeWorld) -> None:
    world = make_world(path.script, budget="0.00000001")

    with pytest.raises(BudgetExceeded) as caught:
        go(path, world)

    assert (world.requests, world.tool_runs, world.spent()) == (0, [], 0)
    assert "tenant:acme" in str(caught.value)
    is_exact(world)


@every_path
def test_what_comes_after_the_first_call_is_denied(path: Path, make_world: MakeWorld) -> None:
    world = make_world(after_one(path.script, lambda: world.authority.freeze("tenant:acme", reason="audit")))

    caught = denial_of(path, world)

    assert world.requests == 1 or (path.name in _IN_FLIGHT and world.requests <= 4)
    assert len(model_calls(world)) == world.requests
    assert (caught is None) == (path.requests == 1)
    assert caught is None or isinstance(caught, BudgetFrozen)
    assert caught is None or partial_of(caught) is not None
    is_exact(world)


@pytest.mark.parametrize(
    ("path", "stop", "error"),
    [(path, "kill", Killed) for path in PATHS] + [(path, "pause", Paused) for path in PATHS[:3]],
    ids=lambda it: getattr(it, "name", None),
)
def test_a_stop_ends_it_within_one_call(path: Path, stop: str, error: type, make_world: MakeWorld) -> None:
    world = make_world(
        after_one(path.script, lambda: getattr(world.authority, stop)("tenant:acme", reason="rate limit abuse"))
    )

    caught = denial_of(path, world)

    assert world.requests == 1 or (path.name in _IN_FLIGHT and world.requests <= 4)
    assert world.tool_runs == []
    assert isinstance(caught, error) or (caught is None and path.requests == 1)
    world.until(lambda: world.open() == 0)
    assert len(model_calls(world)) == world.requests
    assert world.spent() >= world.billed  # a stream that was cut off by the stop is charged its estimate


@every_path
def test_caps_are_kept_on_the_wire(path: Path, make_world: MakeWorld) -> None:
    world = make_world(path.script, budget=None)
    world.budget("1", caps=Caps(max_tokens=40))

    if path.name == "an LLM of one's own":  # nobody knows how to tell it
        with pytest.raises(CapsViolated, match="at most 40 tokens"):
            go(path, world)
        assert world.requests == 0
        return
    go(path, world)

    assert world.requests == path.requests
    assert all(wire_cap(request.body) == 40 for request in world.sim.requests)
    is_exact(world)


@every_path
@pytest.mark.parametrize("status", [500, 429])
def test_a_failing_provider_is_asked_once_for_each_reservation(path: Path, status: int, make_world: MakeWorld) -> None:
    world = make_world(path.script)
    world.sim.fail_next(status=status)

    try:
        go(path, world)
    except ClearanceError:
        raise
    except Exception:
        failed = True
    else:
        failed = False

    assert world.sim.stats()["error"] == 1
    assert not failed or not path.retries
    refunded = [call for call in model_calls(world) if call.status == "RELEASED"]
    assert len(refunded) == (1 if status == 429 else 0)
    is_exact(world)


@every_path
def test_a_timeout_is_charged_its_estimate(path: Path, make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(path.script)
    world.sim.fail_next(status=500, delay_ms=400)
    plain_llm = world.llm
    monkeypatch.setattr(world, "llm", lambda *args, **options: plain_llm(*args, timeout=0.15, **options))

    try:
        go(path, world)
    except ClearanceError:
        raise
    except Exception:
        assert not path.retries
    world.sim.wait_idle()

    is_exact(world)
    assert len([call for call in model_calls(world) if (call.committed_metadata or {}).get("error")]) >= 1


@pytest.mark.parametrize("path", [path for path in PATHS if path.is_async], ids=lambda path: path.name)
def test_a_cancelled_run_spends_nothing_more(path: Path, make_world: MakeWorld) -> None:
    started = asyncio.Event()

    async def slowly(request: ScriptedRequest) -> Reply:
        await asyncio.sleep(0.2)
        return path.script(request)

    world = make_world(slowly)

    async def main() -> None:
        async def work() -> None:
            async with world.run():
                started.set()
                await path.start(world)

        task = asyncio.create_task(work())
        await started.wait()
        await asyncio.to_thread(world.until, lambda: world.sim.stats()["in_flight"] > 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    world.sim.wait_idle()

    assert 1 <= world.requests <= 2  # for each of two inputs one request was under way
    assert world.tool_runs == []
    world.until(lambda: world.open() == 0)
    assert len(model_calls(world)) == world.requests


# --- helpers


def denial_of(path: Path, world: World) -> ClearanceError | None:
    try:
        go(path, world)
    except ClearanceError as error:
        return error
    return None


def wire_cap(body: Any) -> int | None:
    found = [body[name] for name in ("max_completion_tokens", "max_tokens", "max_output_tokens") if body.get(name)]
    return max(found, default=None)
