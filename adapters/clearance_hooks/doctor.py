"""What `clearance hosts doctor` looks at: is the guard there, enabled, armed, and does its authority answer?"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, NamedTuple

from clearance.errors import ClearanceError, Denied, InvalidRequest, UnitMismatch
from clearance.model.action import Action
from clearance.model.amount import Amount, Unit
from clearance_hooks.activation import inspect, installed
from clearance_hooks.capabilities import HERMES, Capabilities
from clearance_hooks.documents import VARIABLE, read
from clearance_hooks.hostconfig import Entry, HostConfig, load
from clearance_hooks.plugin import PLUGIN_ID, ClearancePlugin
from clearance_hooks.specs import GATES

Level = Literal["ok", "warn", "fail"]
PACKAGES = {"pydantic-ai": "pydantic_ai", "hermes": "hermes_cli"}
"""Host -> a module that is there when the host is installed in this Python."""
HERMES_ENTRY_POINTS = "hermes_agent.plugins"
_GATE_OF = {"before_agent_run": "turn", "before_model_call": "model_call", "before_tool_call": "tool"}


class Finding(NamedTuple):
    name: str
    level: Level
    text: str
    todo: str = ""


def examine(path: Path, host: Capabilities, environ: Mapping[str, str] | None = None) -> list[Finding]:
    """All findings for one host's configuration file. The authority is asked, and nothing is changed."""
    variables = os.environ if environ is None else environ
    config = _loaded(path, host, variables)
    entry = config.entry(PLUGIN_ID)
    findings = [*_plugin(host), *_config(config, entry, path)]
    if entry is None:
        return findings
    findings += _secrets(path, variables)
    findings += _gates(entry, host)
    if entry.settings is not None and not entry.problems:
        findings += _authority(ClearancePlugin(entry.settings, host))
    return findings


def _loaded(path: Path, host: Capabilities, environ: Mapping[str, str]) -> HostConfig:
    if host is HERMES:
        from clearance_hooks.hosts.hermes import load as load_hermes

        return load_hermes(path, environ)
    return load(path, host, environ=environ, known=tuple(installed()))


def _plugin(host: Capabilities) -> Iterator[Finding]:
    info = inspect()
    yield Finding("plugin", "ok", f"{info.id} {info.version}, {len(info.hooks)} hooks")
    module = PACKAGES.get(host.id)
    if module is not None:
        if importlib.util.find_spec(module) is None:
            text = f"{host.name} is not installed in this Python"
            yield Finding("host", "warn", text, "run the doctor in the host's own environment")
        else:
            yield Finding("host", "ok", f"{host.name} is installed here")
    if host is HERMES:
        found = any(point.name == PLUGIN_ID for point in entry_points(group=HERMES_ENTRY_POINTS))
        level: Level = "ok" if found else "fail"
        text = "the entry point is there" if found else f"no entry point {PLUGIN_ID!r} in {HERMES_ENTRY_POINTS}"
        yield Finding("entry point", level, text, "" if found else "pip install clearance where Hermes runs")


def _config(config: HostConfig, entry: Entry | None, path: Path) -> Iterator[Finding]:
    for problem in config.problems:
        yield Finding("configuration", "fail", str(problem), f"correct {path}; until then everything is denied")
    for warning in config.warnings:
        yield Finding("configuration", "warn", str(warning))
    if entry is None:
        todo = f"add plugins.entries.{PLUGIN_ID} with enabled: true"
        yield Finding("enabled", "fail", "Clearance is not enabled here: nothing is gated", todo)
    elif not config.problems:
        yield Finding("enabled", "ok", f"plugins.entries.{PLUGIN_ID}, asked at priority {entry.priority}")
        if entry.on_error == "allow":
            todo = "on_error: deny, unless work must go on at any price"
            yield Finding("on_error", "warn", "what the plugin cannot check is allowed", todo)


def _secrets(path: Path, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Which variables the file names, and whether they are there; never what is in them."""
    try:
        value, _ = read(path)
    except InvalidRequest:
        return
    for name in sorted(set(_variables(value))):
        if environ.get(name):
            yield Finding(f"variable {name}", "ok", "resolved: yes")
        else:
            yield Finding(f"variable {name}", "fail", "resolved: no", f"export {name}=...")


def _variables(value: Any) -> Iterator[str]:
    plugins = value.get("plugins") if isinstance(value, Mapping) else None
    entries = plugins.get("entries") if isinstance(plugins, Mapping) else None
    yield from _names_in(entries.get(PLUGIN_ID) if isinstance(entries, Mapping) else None)


def _names_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from (match[1] for match in VARIABLE.finditer(value) if match[1])
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _names_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _names_in(inner)


def _gates(entry: Entry, host: Capabilities) -> Iterator[Finding]:
    for gate in GATES:
        what = _GATE_OF[gate]
        if not getattr(host, what):
            yield Finding(f"gate {what}", "warn", f"{host.name} has no such gate", "see docs/hosts")
        elif entry.problems:
            yield Finding(f"gate {what}", "ok", "armed: denies everything, see above")
        else:
            yield Finding(f"gate {what}", "ok", "armed")


def _authority(plugin: ClearancePlugin) -> Iterator[Finding]:
    """One question that holds nothing."""
    subject = plugin.settings.subject
    try:
        authority = plugin.ready().authority
        nothing = Amount(unit=Unit.USD_MICROCENTS, amount=0)
        decision = authority.dry_run(subject, Action(kind="llm.completion", name="doctor"), nothing)
    except UnitMismatch:
        yield Finding("authority", "ok", f"answers; {subject.scope_path} has no budget in USD")
    except Denied as error:
        yield Finding("authority", "warn", f"answers, and denies now: {error.message}")
    except ClearanceError as error:
        yield Finding("authority", "fail", f"cannot be asked: {error.message}", "see authority: in the entry's config")
    else:
        if decision.allowed:
            yield Finding("authority", "ok", f"answers for {subject.scope_path}")
        else:
            yield Finding("authority", "warn", f"answers, and denies now: {decision.message}")
    finally:
        plugin.close()


def table(host: Capabilities) -> list[tuple[str, str]]:
    """What is gated in this host, in words: the table of docs/hosts."""
    return [
        ("a run is refused before it begins", _yes(host.turn)),
        ("every model call is refused by itself", _yes(host.model_call)),
        ("every tool call is refused by itself", _yes(host.tool)),
        ("work goes to a cheaper model", _yes(host.overrides_model)),
        ("the output of a call is limited", _yes(host.caps_output)),
        ("a tool gets other arguments", _yes(host.patches_params)),
        ("text is added to the prompt", _yes(host.patches_prompt)),
        ("forbidden tools are hidden from the model", _yes(host.hides_tools)),
        ("a tool that needs an approval", "asks a person" if host.approvals == "ask" else "is refused"),
        ("a kill stops what is in flight", _yes(host.stops_in_flight)),
        ("the host goes on when a plugin fails", "yes; the adapter never does" if host.fail_open else "no"),
        ("enforce", "per_call, per_turn" if host.model_call else "per_turn"),
    ]


def _yes(value: bool) -> str:
    return "yes" if value else "no"
