"""A host's configuration: what is read, what is refused and how it is said, and that what is broken denies."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clearance.config import ConfigInvalid
from clearance.model.amount import usd
from clearance_hooks import (
    BeforeAgentRun,
    BeforeModelCall,
    BeforeToolCall,
    HookContext,
    Runner,
    activate,
    inspect,
    load,
    load_runner,
    shut_down,
    statuses,
)
from clearance_hooks import activation as activation_module
from clearance_hooks.capabilities import HERMES, MINIHOST, OPENCLAW, Capabilities
from clearance_hooks.hosts import hermes
from clearance_hooks.secret import Secret

CTX = HookContext(run_id="r", host="test")
SECRET = "sk-very-secret"
ENVIRON = {"TOKEN": SECRET, "URL": "http://127.0.0.1:9", "EMPTY": ""}
CONFIG: dict[str, Any] = {"tenant": "acme", "authority": {"url": "memory://"}}

YAML = """
host: {its: own}
plugins:
  enabled: true
  allow: [clearance]
  entries:
    clearance:
      enabled: true
      priority: -50
      timeout_ms: 700
      config:
        authority: {url: "${URL}", token: "${TOKEN}"}
        tenant: acme
        run_budget: "1.50"
        downgrade: {models: [big, small], below: 20%}
        tools:
          send: {cost: "0.05", kind: message.email.send, max_calls: 3, approval: true}
          "*": {max_calls: 9}
"""
TOML = """
[plugins.entries.clearance]
priority = -50
timeout_ms = 700
[plugins.entries.clearance.config]
tenant = "acme"
run_budget = "1.50"
authority = {url = "${URL}", token = "${TOKEN}"}
downgrade = {models = ["big", "small"], below = "20%"}
[plugins.entries.clearance.config.tools]
send = {cost = "0.05", kind = "message.email.send", max_calls = 3, approval = true}
"*" = {max_calls = 9}
"""


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    shut_down()
    yield
    shut_down()


def written(folder: Path, text: str, name: str = "host.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def entry(folder: Path, config: Any = None, **keys: Any) -> Path:
    found = {"config": CONFIG if config is None else config, **keys}
    return written(folder, json.dumps({"plugins": {"entries": {"clearance": found}}}), "host.json")


def problems(path: Path, host: Any = MINIHOST) -> str:
    return "\n".join(str(problem) for problem in load(path, host, environ=ENVIRON).problems)


def refusals(runner: Runner) -> list[str]:
    """What each gate says, "" where it lets pass."""
    found = (
        runner.before_agent_run(BeforeAgentRun(), CTX).block,
        runner.before_model_call(BeforeModelCall(call_id="c", model="gpt-4o"), CTX).block,
        runner.before_tool_call(BeforeToolCall(tool="t", tool_call_id="t"), CTX).block,
    )
    return ["" if block is None else f"{block.code} {block.message}" for block in found]


# --- what is read


@pytest.mark.parametrize("kind", ["yaml", "toml", "json"])
def test_the_three_formats_say_the_same(kind: str, tmp_path: Path) -> None:
    import tomllib

    text = {"yaml": YAML, "toml": TOML, "json": json.dumps(tomllib.loads(TOML))}[kind]
    config = load(written(tmp_path, text, f"host.{kind}"), MINIHOST, environ=ENVIRON)
    assert config.problems == ()
    (found,) = config.entries
    assert (found.priority, found.timeout_ms, found.on_error) == (-50, 700, "deny")
    settings = found.settings
    assert settings is not None
    assert (settings.subject.tenant, settings.url, settings.token) == ("acme", ENVIRON["URL"], Secret(SECRET))
    assert (settings.run_budget, settings.downgrade.below_percent) == (usd("1.50"), 20)
    assert (settings.tool("send").cost, settings.tool("send").approval, settings.tool("other").max_calls) == (
        usd("0.05"),
        True,
        9,
    )


def test_secrets_are_in_no_repr_and_no_message(tmp_path: Path) -> None:
    config = load(written(tmp_path, YAML), MINIHOST, environ=ENVIRON)
    bad = entry(tmp_path, {**CONFIG, "tenant": "${TOKEN}!", "enforce": "${TOKEN}"})
    assert SECRET not in repr(config) + repr(config.entries[0].settings) + problems(bad)
    assert "${TOKEN}" in problems(bad)


def test_equal_settings_have_one_fingerprint_and_other_secrets_another(tmp_path: Path) -> None:
    path = written(tmp_path, YAML)
    found = [load(path, MINIHOST, environ={**ENVIRON, "TOKEN": token}).entries[0].settings for token in "aab"]
    one, same, other = [it.fingerprint for it in found if it is not None]
    assert one == same != other


def test_two_dollars_stand_for_one(tmp_path: Path) -> None:
    path = entry(tmp_path, {**CONFIG, "authority": {"url": "sqlite:///$${HOME}/x.db"}})
    settings = load(path, MINIHOST, environ={}).entries[0].settings
    assert settings is not None
    assert settings.url == "sqlite:///${HOME}/x.db"


def test_what_is_switched_off_is_not_looked_at(tmp_path: Path) -> None:
    for keys in ({"enabled": False}, {}):
        path = entry(tmp_path, {"nonsense": 1}, **keys)
        document = json.loads(path.read_text())
        if not keys:
            document["plugins"]["deny"] = ["clearance"]
            path.write_text(json.dumps(document))
        config = load(path, MINIHOST, environ={})
        assert (config.entries, config.problems) == ((), ())


def test_a_file_without_plugins_enables_nothing(tmp_path: Path) -> None:
    assert load(written(tmp_path, "other: things\n"), MINIHOST).entries == ()
    assert load(written(tmp_path, ""), MINIHOST).entries == ()


def test_an_unknown_plugin_that_is_not_required_is_a_warning_with_a_suggestion(tmp_path: Path) -> None:
    path = written(tmp_path, "plugins: {entries: {clearence: {required: false}}}\n")
    config = load(path, MINIHOST)
    assert "did you mean clearance?" in str(config.warnings[0])
    assert config.problems == ()


# --- what is refused


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"tenant": "acme", "run_bugdet": "1"}, "config.run_bugdet: is not known here; did you mean run_budget?"),
        ({}, "config.tenant: is missing: nobody says whose budget it is"),
        ({"tenant": "a b"}, "config.tenant: 'a b' is not a name"),
        ({"tenant": "acme", "run_budget": 1.5}, "config.run_budget: 1.5 is not quoted"),
        ({"tenant": "acme", "run_budget": "-1"}, "config.run_budget: '-1' is negative"),
        ({"tenant": "acme", "authority": {"url": "${NOPE}"}}, "config.authority.url: the variable NOPE is not set"),
        ({"tenant": "acme", "authority": {"url": "${EMPTY}"}}, "the variable EMPTY is set, but empty"),
        ({"tenant": "acme", "authority": {"url": "${url}"}}, "${url} is not a variable's name"),
        ({"tenant": "acme", "authority": {"url": "http://x"}}, "config.authority.token: is missing for a server"),
        ({"tenant": "acme", "tools": {"send": {"max_call": 1}}}, "did you mean max_calls?"),
        ({"tenant": "acme", "tools": {"send": {"cost": "x"}}}, "tools.send.cost: 'x' is not a plain decimal number"),
        ({"tenant": "acme", "downgrade": {"below": "20"}}, "downgrade.below: '20' is not a share of the budget"),
        ({"tenant": "acme", "deny_style": "eror"}, "config.deny_style: 'eror' is unknown; allowed: completion, error"),
        ({"tenant": "acme", "budget_hint": "yes"}, "config.budget_hint: 'yes' is refused; allowed: true, false"),
        ({"tenant": "acme", "prices": {"unknown": "denny"}}, "did you mean deny?"),
        ([], "config: a list is not a mapping"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_place(config: Any, said: str, tmp_path: Path) -> None:
    path = entry(tmp_path, config if config != [] else [1])
    assert said in problems(path)
    assert set(refusals(load_runner(path, MINIHOST, environ=ENVIRON))) != {""}


def test_all_problems_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    text = YAML.replace("tenant: acme", "tennant: acme").replace("timeout_ms: 700", "timeout_ms: never")
    config = load(written(tmp_path, text), MINIHOST, environ=ENVIRON)
    with pytest.raises(ConfigInvalid) as caught:
        config.raise_if_errors()
    assert "host.yaml:10: plugins.entries.clearance.timeout_ms" in str(caught.value)
    assert "tennant: is not known here; did you mean tenant?" in str(caught.value)


@pytest.mark.parametrize("keys", [{"on_error": "alow"}, {"priority": "high"}, {"timeout_ms": 0}, {"enabled": "yes"}])
def test_a_wrong_key_of_the_entry_denies(keys: dict[str, Any], tmp_path: Path) -> None:
    runner = load_runner(entry(tmp_path, **keys), MINIHOST, environ=ENVIRON)
    assert all(text.startswith("GUARD_NOT_ARMED") for text in refusals(runner))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("host.yaml", "plugins: [unclosed"),
        ("host.json", "{"),
        ("host.toml", "= 1"),
        ("host.yaml", "plugins: 5"),
        ("host.yaml", "plugins: {entries: [clearance]}"),
        ("host.ini", "plugins"),
    ],
)
def test_a_file_that_cannot_be_read_denies(name: str, text: str, tmp_path: Path) -> None:
    runner = load_runner(written(tmp_path, text, name), MINIHOST)
    assert all(text.startswith("GUARD_NOT_ARMED") for text in refusals(runner))
    runner = load_runner(tmp_path / "absent.yaml", MINIHOST)
    assert all(text.startswith("GUARD_NOT_ARMED") for text in refusals(runner))


def test_what_a_host_cannot_do_is_refused(tmp_path: Path) -> None:
    path = entry(tmp_path, {**CONFIG, "enforce": "per_call", "run_budget": "1"})
    assert "OpenClaw cannot enforce per_call; allowed: per_turn" in problems(path, OPENCLAW)
    assert problems(path, MINIHOST) == ""
    assert "run_budget: is missing" in problems(entry(tmp_path), OPENCLAW)
    weak = Capabilities(id="weak", name="Weak", turn=True, model_call=True, tool=True)
    chain = entry(tmp_path, {**CONFIG, "downgrade": ["a", "b"], "budget_hint": True})
    assert "Weak cannot change the model" in problems(chain, weak)
    assert "Weak cannot add to the prompt" in problems(chain, weak)


# --- what becomes of it


def test_a_missing_variable_denies_and_is_named_once_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = entry(tmp_path, {**CONFIG, "authority": {"url": "http://x", "token": "${MISSING_TOKEN}"}})
    for _ in range(3):
        runner = load_runner(path, MINIHOST, environ={})
        assert all("MISSING_TOKEN is not set" in text for text in refusals(runner))
    assert sum("MISSING_TOKEN" in record.getMessage() for record in caplog.records) == 1


def test_loading_five_times_makes_one_banner(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = entry(tmp_path, {**CONFIG, "run_budget": "1.00"})
    with caplog.at_level(logging.INFO):
        runners = [load_runner(path, MINIHOST, environ={}) for _ in range(5)]
        for _ in range(4):
            activate(load(path, MINIHOST, environ={}), MINIHOST, runner=runners[0])
    said = [record.getMessage() for record in caplog.records if "armed" in record.getMessage()]
    assert said == [
        "Clearance is armed in MiniHost for tenant:acme, 1.00 USD for each run; it gates: turn, model_call, tool"
    ]
    assert statuses(runners[0]) == {"clearance": "armed"}


def test_loading_and_looking_do_nothing_to_the_world(tmp_path: Path) -> None:
    path = entry(tmp_path, {**CONFIG, "authority": {"url": f"sqlite:///{tmp_path}/never.db"}})
    load_runner(path, MINIHOST, environ={})
    assert inspect().id == "clearance"
    assert "before_tool_call" in inspect().hooks
    assert not (tmp_path / "never.db").exists()


class Foreign:
    def __init__(self, load: Any) -> None:
        self.load = load


@pytest.mark.parametrize("required", [True, False])
def test_a_plugin_of_others_that_cannot_be_loaded_denies_only_if_it_is_required(
    required: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Any:
        raise ImportError("no such thing")

    monkeypatch.setattr(activation_module, "installed", lambda: {"clearance": None, "other": Foreign(broken)})
    path = written(tmp_path, json.dumps({"plugins": {"entries": {"other": {"required": required}}}}), "host.json")
    said = refusals(load_runner(path, MINIHOST, environ={}))
    assert "plugins.entries.other: cannot be loaded (ImportError)" in caplog.text
    assert all(text.startswith("GUARD_NOT_ARMED") for text in said) is required
    assert (said == ["", "", ""]) is not required


def test_a_plugin_of_others_gets_its_own_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clearance_hooks import Block, hookimpl

    class Other:
        def __init__(self, config: Any) -> None:
            self.config = config

        @hookimpl
        def before_agent_run(self) -> Block:
            return Block("OTHER", str(self.config["word"]))

    monkeypatch.setattr(activation_module, "installed", lambda: {"other": Foreign(lambda: Other)})
    path = written(tmp_path, json.dumps({"plugins": {"entries": {"other": {"config": {"word": "${WORD}"}}}}}), "h.json")
    assert refusals(load_runner(path, MINIHOST, environ={"WORD": "hello"}))[0] == "OTHER hello"


# --- Hermes' own file


def test_the_entry_is_found_in_the_file_of_hermes_and_its_own_keys_are_left_to_it(tmp_path: Path) -> None:
    text = """
model: {default: gpt-4o, temperature: 0.7}
plugins:
  enabled: [clearance, other]
  entries:
    other: {whatever: 1}
    clearance: {allow_tool_override: true, config: {tenant: acme, authority: {url: "memory://"}}}
"""
    config = hermes.load(written(tmp_path, text, "config.yaml"), {})
    assert (config.problems, config.warnings) == ((), ())
    assert config.entries[0].settings is not None


def test_hermes_without_an_entry_denies(tmp_path: Path) -> None:
    """It is enabled in Hermes' list, or it would not have been loaded."""
    runner = hermes.runner_for(written(tmp_path, "plugins: {enabled: [clearance]}\n", "config.yaml"), {})
    assert all("tenant: is missing" in text for text in refusals(runner))


# --- the code and its pages


def test_the_adapters_read_no_environment() -> None:
    """Only the loader of the configuration and the doctor do."""
    folder = Path(activation_module.__file__).parent
    readers = {
        path.name for path in folder.rglob("*.py") if "environ" in path.read_text() and "os.environ" in path.read_text()
    }
    assert readers <= {"hostconfig.py", "doctor.py"}


def test_the_pages_have_the_table_that_the_doctor_prints() -> None:
    from clearance_hooks.capabilities import HOSTS
    from clearance_hooks.doctor import table

    docs = Path(__file__).parents[2] / "docs" / "hosts"
    for host in HOSTS.values():
        page = (docs / f"{host.id}.md").read_text(encoding="utf-8")
        for what, answer in table(host):
            assert f"| {what} | {answer} |" in page, (host.id, what, answer)
    assert HERMES.fail_open
