"""The README's commands and code, typed as written."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import clearance
from clearance.simulator import Simulator, ToolCall, sequence

README = Path(__file__).parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README.read_text(encoding="utf-8"), re.M | re.S)
    return [text for named, text in found if named == language]


def commands() -> list[str]:
    lines = "".join(blocks("")).splitlines()
    return [line.partition("#")[0].strip() for line in lines if line.startswith("clearance ")]


def typed(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(line)[1:]
    if words[:1] == ["apply"]:
        words.append("--yes")  # nobody sits at the terminal to say it
    if "--follow" in words:
        words.remove("--follow")
    environment = {**os.environ, "XDG_DATA_HOME": str(folder), "CLEARANCE_URL": ""}
    program = (sys.executable, "-m", "clearance", *words)
    return subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_every_command_works_as_typed(tmp_path: Path) -> None:
    (configuration,) = blocks("yaml")
    (tmp_path / "clearance.yaml").write_text(configuration)
    assert len(commands()) >= 10
    for line in commands():
        done = typed(line, tmp_path)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr


def test_the_three_headline_uses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLEARANCE_URL", str(tmp_path / "ledger.db"))
    authority = clearance.connect()
    authority.set_budget(clearance.BudgetSpec(scope="tenant:acme", allocated=clearance.usd("50")))
    authority.set_budget(clearance.BudgetSpec(scope="tenant:acme", allocated=clearance.credits(2)))
    handler_use, run_use, guard_use, _ = blocks("python")
    with Simulator(script=sequence([ToolCall("look", {}), "done"] * 2)) as provider:
        names = {"executor": _executor(provider.base_url)}
        exec(handler_use, names)
        exec(run_use, names)
        exec(guard_use, names)
        names["send"]("a@example.org")
        names["send"]("b@example.org")
        with pytest.raises(clearance.BudgetExceeded):
            names["send"]("c@example.org")
        assert provider.stats()["answered"] == 4
        assert authority.balance("tenant:acme").spent == provider.stats()["cost"]
    assert authority.balance("tenant:acme", "CREDITS").spent == 2
    authority.close()
    names["authority"].close()


def _executor(base_url: str) -> object:
    from langchain_classic.agents import AgentExecutor, create_tool_calling_agent
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    @tool
    def look() -> str:
        """Look around."""
        return "nothing"

    prompt = ChatPromptTemplate.from_messages([("user", "{input}"), ("placeholder", "{agent_scratchpad}")])
    model = ChatOpenAI(model="gpt-5-mini", base_url=base_url, api_key="none", max_retries=0, stream_usage=True)  # type: ignore[arg-type]
    return AgentExecutor(agent=create_tool_calling_agent(model, [look], prompt), tools=[look])
