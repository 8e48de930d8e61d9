"""Nothing is counted twice or gone round; what `guard` takes and gives; the handler of the whole process."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain.agents.middleware import SummarizationMiddleware
from langchain.chat_models import init_chat_model
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_world import ACME, World

import clearance_langchain
from clearance.connecting import connect
from clearance.errors import Denied, InvalidRequest
from clearance.model.amount import usd
from clearance_langchain import ClearanceCallbackHandler, govern_process, guard, is_guarded, stop_governing_process


def _three(world: World) -> dict[str, Any]:
    handler = world.handler()
    return {"callbacks": [handler, handler, world.handler()]}


@pytest.mark.parametrize("is_async", [False, True])
def test_handlers_guard_and_middleware_together_count_once(world: World, is_async: bool) -> None:
    agent = world.agent(
        world.guard(world.guard(world.model())), world.guard([world.tool()]), middleware=[world.middleware()]
    )
    govern_process(world.authority, ACME)
    try:
        if is_async:
            world.run(agent.ainvoke({"messages": "hi"}, _three(world)))
        else:
            agent.invoke({"messages": "hi"}, _three(world))
    finally:
        stop_governing_process()
    assert len(world.all()) == world.requests + len(world.tool_runs) == 3
    assert world.spent() == world.cost


def test_handlers_of_two_authorities_count_for_both(make_world: Callable[..., World]) -> None:
    one = make_world()
    two = World(one.stage, connect("memory://"))
    two.budget()
    one.model().invoke("hi", {"callbacks": [one.handler(), two.handler()]})
    assert one.spent() == two.spent() == one.cost
    two.authority.close()


def test_a_model_inside_a_guarded_tool_is_counted_by_the_handler(world: World) -> None:
    inner = world.model()
    tool = world.guard(world.tool(work=lambda word: str(inner.invoke(word).content)))
    tool.invoke({"word": "x"}, {"callbacks": [world.handler()]})
    assert len(world.all()) == 2
    assert world.spent() == world.cost > 0


def test_metadata_from_outside_does_not_pass_for_a_guard(world: World) -> None:
    config: Any = {"callbacks": [world.handler()], "metadata": {"clearance_governed": "0123456789abcdef"}}
    world.model(metadata={"clearance_governed": True}).invoke("hi", config)
    assert len(world.all()) == 1


def test_hidden_calls_of_other_middleware_are_seen_where_guarded_or_handled(world: World) -> None:
    summary = SummarizationMiddleware(model=world.guard(world.model()), trigger=("messages", 3), keep=("messages", 1))
    agent = world.agent(world.model(), middleware=[summary, world.middleware()])
    history = [HumanMessage("one"), AIMessage("two"), HumanMessage("three"), AIMessage("four"), HumanMessage("five")]
    agent.invoke({"messages": history})
    assert world.requests == len(world.all()) == 2
    assert world.spent() == world.cost


# --- the process


@pytest.fixture
def process(world: World) -> Iterator[World]:
    govern_process(world.authority)
    yield world
    stop_governing_process()


@pytest.mark.parametrize("where", ["here", "callbacks=[]", "raw thread", "batch"])
def test_the_process_wide_handler_cannot_be_gone_round(process: World, where: str) -> None:
    model = process.model()
    caught: list[BaseException] = []

    def work() -> None:
        try:
            if where == "batch":
                model.batch(["hi", "ho"])
            else:
                model.invoke("hi", {"callbacks": []} if where == "callbacks=[]" else None)
        except Denied as error:
            caught.append(error)

    if where == "raw thread":
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    else:
        work()
    assert [error.reason_code for error in caught] == ["SUBJECT_MISSING"]  # type: ignore[attr-defined]
    assert process.requests == 0


def test_the_process_wide_handler_finds_the_run(process: World) -> None:
    with process.authority.run(ACME, budget=usd("0.5")):
        process.model().invoke("hi")
    assert process.spent() == process.cost > 0


def test_the_environment_variable_alone_governs_a_process(world: World, tmp_path: Any) -> None:
    code = (
        "import clearance_langchain\n"
        "from langchain_core.language_models import FakeListLLM\n"
        "FakeListLLM(responses=['x']).invoke('hi')\n"
    )
    env = {
        **os.environ,
        "CLEARANCE_LANGCHAIN": "1",
        "CLEARANCE_URL": str(tmp_path / "ledger.db"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "PriceUnknown" in done.stderr or "SubjectMissing" in done.stderr


PROGRAM = """
import sys
from langchain_core.language_models import FakeListLLM
print(sys.argv[1:], __name__)
FakeListLLM(responses=['x']).invoke('hi')
print('it ran')
"""


@pytest.mark.parametrize("as_module", [False, True])
def test_a_program_that_knows_nothing_of_it_can_be_governed(world: World, tmp_path: Any, as_module: bool) -> None:
    (tmp_path / "agent.py").write_text(PROGRAM)
    env = {
        **os.environ,
        "CLEARANCE_URL": str(tmp_path / "ledger.db"),
        "PYTHONPATH": os.pathsep.join([*sys.path, str(tmp_path)]),
    }
    what = ["-m", "agent"] if as_module else [str(tmp_path / "agent.py")]
    command = [sys.executable, "-m", "clearance_langchain", *what, "--flag", "x"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout == "['--flag', 'x'] __main__\n"
    assert "PriceUnknown" in done.stderr or "SubjectMissing" in done.stderr


@pytest.mark.parametrize(("arguments", "said"), [([], "usage:"), (["nothing.py"], "nothing.py: no such file")])
def test_without_a_program_it_says_how(arguments: list[str], said: str) -> None:
    command = [sys.executable, "-m", "clearance_langchain", *arguments]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(said)


# --- what guard takes and gives


def test_guarded_objects_keep_their_class_and_are_copies(world: World) -> None:
    model, tool = world.model(), world.tool()
    guarded, guarded_tool = world.guard(model), world.guard(tool)
    assert isinstance(guarded, type(model))
    assert type(guarded).__qualname__ == type(model).__qualname__
    assert isinstance(guarded_tool, type(tool))
    assert not is_guarded(model)
    assert not is_guarded(tool)
    assert is_guarded(copy.copy(guarded))
    assert is_guarded(guarded.model_copy(update={"temperature": 1}))
    assert guarded.lc_id()[-1] == model.lc_id()[-1]
    assert guarded._llm_type == model._llm_type


def test_guarding_again_replaces_the_settings(world: World) -> None:
    world.guard(world.guard(world.model(), None), ACME).invoke("hi")
    assert len(world.all()) == 1


def test_functions_become_tools_and_the_providers_own_tools_stay(world: World) -> None:
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    search = {"type": "web_search"}
    made, same = world.guard([add, search])
    assert made.invoke({"a": 1, "b": 2}) == 3
    assert same is search
    assert world.only().action["name"] == "add"


@pytest.mark.parametrize(
    ("obj", "hint"),
    [
        (FakeListLLM(responses=["x"]), "ClearanceCallbackHandler"),
        (init_chat_model(configurable_fields=("model",)), "configurable"),
        (5, "cannot be guarded"),
        ("model", "cannot be guarded"),
    ],
)
def test_what_cannot_be_guarded_is_refused_with_a_reason(world: World, obj: Any, hint: str) -> None:
    with pytest.raises(InvalidRequest, match=hint):
        guard(obj, world.authority, ACME)


def test_a_wrong_option_or_subject_is_refused(world: World) -> None:
    with pytest.raises(TypeError):
        guard(world.model(), world.authority, ACME, tool_price={})  # type: ignore[call-overload]
    with pytest.raises(InvalidRequest, match="subject"):
        world.handler("tenant:acme")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="on_deny"):
        world.middleware(on_deny="shrug")


def test_the_handler_is_sync_raising_and_inline() -> None:
    """Anything else fails open somewhere: errors of async handlers are swallowed in sync calls."""
    assert ClearanceCallbackHandler.raise_error is True
    assert ClearanceCallbackHandler.run_inline is True
    assert not issubclass(ClearanceCallbackHandler, AsyncCallbackHandler)


def test_the_public_names() -> None:
    assert all(hasattr(clearance_langchain, name) for name in clearance_langchain.__all__)
    with pytest.raises(AttributeError):
        clearance_langchain.nothing  # noqa: B018
