"""A CrewAI that cannot be governed is refused at import, with a text that says what to do."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import crewai.events.event_bus
import crewai.hooks.tool_hooks
import pytest
from chromadb.api.models.CollectionCommon import CollectionCommon
from crewai.llms.base_llm import BaseLLM
from crewai.llms.providers.openai.completion import OpenAICompletion
from crewai.tools.base_tool import BaseTool
from crewai.tools.structured_tool import CrewStructuredTool

from clearance_crewai import UnsupportedCrewAI, selfcheck

ROOT = Path(__file__).parents[2]


def test_this_version_passes() -> None:
    selfcheck.check()


@pytest.mark.parametrize(
    "holder",
    [
        (OpenAICompletion, "_prepare_completion_params"),
        (BaseTool, "_claim_usage"),
        (BaseTool, "run"),
        (CrewStructuredTool, "invoke"),
        (BaseLLM, "_handle_tool_execution"),
        (CollectionCommon, "_embed"),
    ],
)
def test_a_missing_seam_is_named(monkeypatch: pytest.MonkeyPatch, holder: tuple[Any, str]) -> None:
    monkeypatch.delattr(*holder)

    with pytest.raises(UnsupportedCrewAI, match=rf"has no {holder[0].__name__}.{holder[1]}.*install 'crewai>=1.15.30"):
        selfcheck.check()


def test_a_missing_module_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "crewai.events.stream_context", None)

    with pytest.raises(UnsupportedCrewAI, match=r"has no module crewai\.events\.stream_context"):
        selfcheck.check()


def test_events_that_do_not_stop_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crewai.events.event_bus, "publish_stream_event", lambda source, event: None)

    with pytest.raises(UnsupportedCrewAI, match="event sink does not stop"):
        selfcheck.check()


def test_hooks_that_do_not_stop_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crewai.hooks.tool_hooks, "dispatch", lambda point, context, **_: context)

    with pytest.raises(UnsupportedCrewAI, match="cannot stop a tool"):
        selfcheck.check()


def test_the_import_itself_refuses() -> None:
    program = """
import crewai.tools.base_tool as home
del home.BaseTool._claim_usage
try:
    import clearance_crewai
except ImportError as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT / "adapters")])}
    said = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)

    assert "clearance_crewai cannot govern crewai" in said.stdout
    assert "Crews would run ungated, so it refuses" in said.stdout


def test_the_core_does_not_load_crewai() -> None:
    program = "import json, sys, clearance, clearance.connecting; print(json.dumps('crewai' in sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)

    assert json.loads(said.stdout) is False
    assert importlib.import_module("clearance")
