"""What may keep a guard from its work denies everything, and the doctor finds it by the same rule."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clearance_hooks import (
    BeforeAgentRun,
    BeforeModelCall,
    BeforeToolCall,
    Block,
    HookContext,
    Runner,
    hookimpl,
    load,
    load_runner,
    shut_down,
    statuses,
)
from clearance_hooks import activation as activation_module
from clearance_hooks.capabilities import HERMES, MINIHOST
from clearance_hooks.doctor import examine
from clearance_hooks.hosts import hermes

CTX = HookContext(run_id="r", host="test")
OWN = '{config: {tenant: acme, authority: {url: "memory://"}}}'


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    shut_down()
    yield
    shut_down()


def written(folder: Path, text: str, name: str = "host.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def blocks(runner: Runner) -> list[Block | None]:
    return [
        runner.before_agent_run(BeforeAgentRun(), CTX).block,
        runner.before_model_call(BeforeModelCall(call_id="c", model="gpt-4o"), CTX).block,
        runner.before_tool_call(BeforeToolCall(tool="t", tool_call_id="t"), CTX).block,
    ]


def denies_everything(runner: Runner) -> bool:
    return [None if block is None else block.code for block in blocks(runner)] == ["GUARD_NOT_ARMED"] * 3


def failures(path: Path, host: Any = MINIHOST) -> list[str]:
    return [finding.text for finding in examine(path, host, {}) if finding.level == "fail"]


WRONG_FILES = {
    "entries misspelt": (f"plugins: {{entires: {{clearance: {OWN}}}}}", "plugins.entires", "did you mean entries?"),
    "section misspelt": (f"plugin: {{entries: {{clearance: {OWN}}}}}", "plugin", "did you mean plugins?"),
    "section in capitals": (f"Plugins: {{entries: {{clearance: {OWN}}}}}", "Plugins", "did you mean plugins?"),
    "no section": (f"entries: {{clearance: {OWN}}}", "entries.clearance", "plugins.entries.clearance"),
    "another section": (
        f"plugins: {{}}\nhooks: {{clearance: {OWN}}}",
        "hooks.clearance",
        "plugins.entries.clearance",
    ),
    "no entries": (f"plugins: {{clearance: {OWN}}}", "plugins.clearance", "entries"),
    "id misspelt": (f"plugins: {{entries: {{clearence: {OWN}}}}}", "entries.clearence", "did you mean clearance?"),
    "id of nothing": ("plugins: {entries: {budget-guard: {}}}", "entries.budget-guard", "is installed; allowed: clear"),
    "section twice": (
        f"plugins: {{entries: {{}}}}\nplugins: {{entries: {{clearance: {OWN}}}}}",
        "plugins",
        "is there twice, first in line 1",
    ),
    "entries twice": (
        f"plugins:\n  entries: {{}}\n  entries: {{clearance: {OWN}}}",
        "plugins.entries",
        "is there twice, first in line 2",
    ),
    "entry twice": (
        f"plugins:\n  entries:\n    clearance: {{enabled: false}}\n    clearance: {OWN}",
        "plugins.entries.clearance",
        "is there twice, first in line 3",
    ),
    "key twice": (
        'plugins:\n  entries:\n    clearance:\n      config: {tenant: a, tenant: b, authority: {url: "memory://"}}',
        "config.tenant",
        "is there twice",
    ),
    "switch twice": (
        f"plugins:\n  enabled: false\n  enabled: true\n  entries: {{clearance: {OWN}}}",
        "plugins.enabled",
        "is there twice",
    ),
    "entry's switch twice": (
        "plugins:\n  entries:\n    clearance:\n      enabled: false\n      enabled: true",
        "clearance.enabled",
        "is there twice",
    ),
    "allow misspelt": (
        f"plugins: {{allow: [clearence], entries: {{clearance: {OWN}}}}}",
        "plugins.allow",
        "did you mean clearance?",
    ),
    "allow leaves out": (
        f"plugins: {{allow: [], entries: {{clearance: {OWN}}}}}",
        "plugins.entries.clearance",
        "plugins.allow leaves it out; allowed: clearance in plugins.allow, or enabled: false here",
    ),
    "allow without an entry": ("plugins: {allow: [clearance]}", "plugins.allow", "names clearance, which has no entry"),
    "allow is no list": (
        f"plugins: {{allow: clearance, entries: {{clearance: {OWN}}}}}",
        "plugins.allow",
        "is not a list of ids",
    ),
    "allow in the wrong place": (
        f"plugins: {{alow: [x], entries: {{clearance: {OWN}}}}}",
        "plugins.alow",
        "did you mean allow?",
    ),
    "another entry": (
        f"plugins: {{entries: {{clearance: {OWN}, clearanse: {{}}}}}}",
        "entries.clearanse",
        "did you mean clearance?",
    ),
    "a list": ("- plugins", "host.yaml", "a list is not a mapping"),
    "a word": ("plugins", "host.yaml", "'plugins' is not a mapping"),
    "unclosed variable": (
        'plugins: {entries: {clearance: {config: {tenant: acme, authority: {url: "sqlite:///${LEDGER"}}}}}',
        "config.authority.url",
        "the ${ at character 11 has no }",
    ),
    "variable without braces": (
        'plugins: {entries: {clearance: {config: {tenant: acme, authority: {url: "$LEDGER"}}}}}',
        "config.authority.url",
        "'$LEDGER' is not filled in; allowed: ${LEDGER}",
    ),
    "config is no mapping": ("plugins: {entries: {clearance: {config: no}}}", "clearance.config", "not a mapping"),
}


@pytest.mark.parametrize("what", WRONG_FILES)
def test_a_file_that_may_have_meant_a_guard_denies_and_the_doctor_says_the_same(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text, place, said = WRONG_FILES[what]
    path = written(tmp_path, text)
    runner = load_runner(path, MINIHOST, environ={})
    assert denies_everything(runner)
    assert place in caplog.text
    assert said in caplog.text
    assert str(path) in caplog.text
    shown = " ".join(failures(path))
    assert place in shown
    assert said in shown
    assert "nothing is gated" not in shown
    assert [found.name for found in tmp_path.iterdir()] == ["host.yaml"]


TWICE = """{"plugins": {"entries": {"clearance": {"config": {"tenant": "a"}}}},
            "plugins": {"entries": {}}, "other": {"a": 1, "a": 2}}"""


def test_json_with_a_key_twice_denies_and_names_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert denies_everything(load_runner(written(tmp_path, TWICE, "host.json"), MINIHOST, environ={}))
    assert "plugins: is there twice; allowed: each key once" in caplog.text
    assert "other" not in caplog.text


@pytest.mark.parametrize("depth", [40, 400, 5_000, 200_000])
@pytest.mark.parametrize("kind", ["json", "toml", "yaml"])
def test_a_file_that_is_nested_deeply_denies(kind: str, depth: int, tmp_path: Path) -> None:
    deep = "[" * depth + "]" * depth
    config = {
        "json": f'{{"plugins": {{"entries": {{"clearance": {{"config": {deep}}}}}}}}}',
        "toml": f"[plugins.entries.clearance]\nconfig = {deep}\n",
        "yaml": f"plugins: {{entries: {{clearance: {{config: {deep}}}}}}}\n",
    }[kind]
    assert denies_everything(load_runner(written(tmp_path, config, f"host.{kind}"), MINIHOST, environ={}))


def test_keys_of_the_hosts_own_are_no_concern(tmp_path: Path) -> None:
    text = f"model: {{a: 1, a: 2}}\nplugin_dir: ./x\nplugin: here\nplugins: {{entries: {{clearance: {OWN}}}}}\n"
    config = load(written(tmp_path, text), MINIHOST, environ={})
    assert (config.problems, config.warnings) == ((), ())
    assert len(config.entries) == 1


@pytest.mark.parametrize(
    "text",
    [
        f"plugins: {{enabled: false, entires: {{clearance: {OWN}}}, alow: 1}}\nplugin: {{entries: {{}}}}",
        "plugins: {allow: [clearance], entries: {clearance: {enabled: false, config: {a: 1, a: 2}}}}",
        "plugins: {deny: [clearance], allow: [clearance], entries: {clearance: {config: {a: 1, a: 2}}}}",
        "plugins: {allow: [something-else]}",
        "plugins: {deny: [clearence]}",
    ],
)
def test_what_is_switched_off_denies_nothing(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runner = load_runner(written(tmp_path, text), MINIHOST, environ={})
    assert blocks(runner) == [None] * 3
    assert "enables no plugin: nothing is gated in MiniHost" in caplog.text


def test_a_misspelt_id_in_deny_is_a_warning(tmp_path: Path) -> None:
    config = load(written(tmp_path, "plugins: {deny: [clearence]}"), MINIHOST, environ={})
    assert "plugins.deny: no plugin 'clearence' is installed; did you mean clearance?" in str(config.warnings[0])


def test_a_broken_file_denies_for_a_runner_that_is_armed_already(tmp_path: Path) -> None:
    path = written(tmp_path, f"plugins: {{entries: {{clearance: {OWN}}}}}")
    runner = load_runner(path, MINIHOST, environ={})
    assert statuses(runner) == {"clearance": "armed"}
    load_runner(written(tmp_path, "plugins: {entires: {}}"), MINIHOST, environ={}, runner=runner)
    assert denies_everything(runner)


def test_what_denies_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path, "plugins: {entires: {}}")
    for _ in range(3):
        load_runner(path, MINIHOST, environ={})
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "so everything is denied" in caplog.text


# --- plugins of others


class Point:
    """An entry point."""

    def __init__(self, load: Callable[[], Any]) -> None:
        self.load = load


class Fine:
    def __init__(self, config: Any) -> None:
        self.config = config

    @hookimpl
    def before_agent_run(self) -> None: ...


class Misspelt(Fine):
    @hookimpl
    def before_tool_cal(self) -> None: ...


class WrongArgument(Fine):
    @hookimpl
    def before_tool_call(self, evnt: Any) -> None: ...


class Unmarked(Fine):
    def before_tool_call(self, event: Any) -> Block:
        return Block("NO")


def exits(config: Any = None) -> Any:
    sys.exit(3)


class Interrupt(BaseException):
    pass


def interrupts(config: Any) -> Any:
    raise Interrupt


async def later(config: Any) -> Any:
    return Fine(config)


BROKEN: dict[str, tuple[Callable[[], Any], str]] = {
    "makes nothing": (lambda: lambda config: None, "is a NoneType that handles no hook"),
    "makes a number": (lambda: lambda config: 42, "is a int that handles no hook"),
    "is a text": (lambda: "guard", "is a str that handles no hook"),
    "is nothing": (lambda: None, "is a NoneType that handles no hook"),
    "makes it later": (lambda: later, "is a coroutine that handles no hook"),
    "exits at load": (exits, "cannot be loaded (SystemExit) in test_hooks_fail_closed.py:"),
    "exits when made": (lambda: exits, "cannot be loaded (SystemExit)"),
    "raises no Exception": (lambda: interrupts, "cannot be loaded (Interrupt)"),
    "misspells a hook": (lambda: Misspelt, "before_tool_cal, which is no hook; did you mean before_tool_call?"),
    "misspells an argument": (lambda: WrongArgument, "evnt"),
    "forgets a mark": (lambda: Unmarked, "has a before_tool_call that is not marked; allowed: @hookimpl"),
}


@pytest.fixture
def with_plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """A configuration with Clearance and a plugin `other`, which is loaded like this."""

    def make(load: Callable[[], Any], **keys: Any) -> Path:
        monkeypatch.setattr(activation_module, "installed", lambda: {"clearance": None, "other": Point(load)})
        monkeypatch.setattr("clearance_hooks.doctor.installed", activation_module.installed)
        own = {"config": {"tenant": "acme", "authority": {"url": "memory://"}}}
        return written(
            tmp_path, json.dumps({"plugins": {"entries": {"clearance": own, "other": {**keys}}}}), "host.json"
        )

    return make


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("keys", [{}, {"required": True}], ids=["by default", "required"])
def test_a_broken_plugin_denies_and_the_doctor_says_the_same(
    how: str, keys: dict[str, Any], with_plugin: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    loading, said = BROKEN[how]
    path = with_plugin(loading, **keys)
    runner = load_runner(path, MINIHOST, environ={})
    assert denies_everything(runner)
    assert said in statuses(runner)["other"]
    assert said in caplog.text
    assert any(said in text for text in failures(path))


@pytest.mark.parametrize("how", BROKEN)
def test_without_a_plugin_that_is_not_required_the_host_goes_on(
    how: str, with_plugin: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    loading, said = BROKEN[how]
    path = with_plugin(loading, required=False)
    assert statuses(load_runner(path, MINIHOST, environ={})) == {"clearance": "armed"}
    assert f"{said}" in caplog.text
    assert "the host goes on without it" in caplog.text
    warned = [finding.text for finding in examine(path, MINIHOST, {}) if finding.level == "warn"]
    assert any(said in text for text in warned)


def test_an_interrupt_of_the_user_goes_through(with_plugin: Callable[..., Path]) -> None:
    def interrupted() -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_runner(with_plugin(interrupted), MINIHOST, environ={})


def test_a_plugin_that_works_is_armed_and_the_doctor_is_content(with_plugin: Callable[..., Path]) -> None:
    path = with_plugin(lambda: Fine)
    assert statuses(load_runner(path, MINIHOST, environ={})) == {"clearance": "armed", "other": "armed"}
    assert failures(path) == []


# --- Hermes' own file

HERMES_FILES = {
    "syntax": ("plugins: [unclosed", "is not YAML"),
    "entries misspelt": (
        f"plugins: {{enabled: [clearance], entires: {{clearance: {OWN}}}}}",
        "what stands at plugins.entires.clearance is not read",
    ),
    "entries twice": (
        f"plugins:\n  enabled: [clearance]\n  entries: {{clearance: {OWN}}}\n  entries: {{}}",
        "plugins.entries: is there twice",
    ),
}


@pytest.mark.parametrize("what", HERMES_FILES)
def test_a_wrong_file_of_hermes_denies_and_says_what_is_wrong(what: str, tmp_path: Path) -> None:
    text, said = HERMES_FILES[what]
    path = written(tmp_path, text, "config.yaml")
    runner = hermes.runner_for(path, {})
    assert denies_everything(runner)
    assert said in str(blocks(runner)[0])
    assert any(said in text for text in failures(path, HERMES))
    assert denies_everything(hermes.runner_for(tmp_path / "absent.yaml", {}))


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ("enabled: []", "plugins.enabled does not name clearance: Hermes does not load it, and nothing is gated"),
        ("enabled: [clearence]", "plugins.enabled does not name clearance, but clearence"),
        ("enabled: clearance", "plugins.enabled does not name clearance"),
        ("enabled: [clearance], disabled: [clearance]", "plugins.disabled names clearance"),
    ],
)
def test_the_doctor_sees_that_hermes_does_not_load_the_plugin(lists: str, said: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"plugins: {{{lists}, entries: {{clearance: {OWN}}}}}", "config.yaml")
    assert any(said in text for text in failures(path, HERMES))
