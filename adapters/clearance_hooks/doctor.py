"""What `clearance hosts doctor` looks at: is the guard there, enabled, armed, and does its authority answer?"""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from clearance.connecting import (
    API_KEY_VARIABLE,
    LocalAuthority,
    default_place,
    is_postgres,
    is_server,
    ledger_file,
    open_ledger,
    open_store,
)
from clearance.errors import ClearanceError, Denied, InvalidRequest, UnitMismatch
from clearance.model.action import Action
from clearance.model.amount import Amount, Unit
from clearance.store.sqlite import MEMORY
from clearance_hooks.activation import StandsIn, inspect, installed, stands_in
from clearance_hooks.capabilities import HERMES, OPENCLAW, Capabilities
from clearance_hooks.denying import DenyingPlugin
from clearance_hooks.documents import VARIABLE, read
from clearance_hooks.hostconfig import HostConfig, load
from clearance_hooks.openclaw.entry import TENANT_OF_THE_KEY, own_entry
from clearance_hooks.plugin import PLUGIN_ID, ClearancePlugin
from clearance_hooks.settings import Settings
from clearance_hooks.specs import GATES

if TYPE_CHECKING:
    from clearance.remote import RemoteAuthority

Level = Literal["ok", "warn", "fail"]
PACKAGES = {"pydantic-ai": "pydantic_ai", "hermes": "hermes_cli"}
"""Host -> a module that is there when the host is installed in this Python."""
HERMES_ENTRY_POINTS = "hermes_agent.plugins"
_LIST = f"plugins.enabled: [{PLUGIN_ID}]"
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
    found = stands_in(config, lambda settings: ClearancePlugin(settings, host))
    findings = [*_plugin(host), *_listed(path, host), *_config(config, found, path)]
    findings += _secrets(path, variables)
    findings += _gates(found, host)
    for it in found:
        if isinstance(it.plugin, ClearancePlugin):
            findings += _asked(it.plugin, variables)
    return findings


def _loaded(path: Path, host: Capabilities, environ: Mapping[str, str]) -> HostConfig:
    if host is HERMES:
        from clearance_hooks.hosts.hermes import load as load_hermes

        return load_hermes(path, environ)
    shape = own_entry if host is OPENCLAW else None
    return load(path, host, environ=environ, known=tuple(installed()), shape=shape)


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


def _listed(path: Path, host: Capabilities) -> Iterator[Finding]:
    """Hermes loads only what its own list names."""
    if host is not HERMES:
        return
    try:
        value, _ = read(path)
    except InvalidRequest:
        return
    enabled, disabled = _names(value, "enabled"), _names(value, "disabled")
    if PLUGIN_ID not in enabled:
        near = difflib.get_close_matches(PLUGIN_ID, enabled, n=1)
        said = f"plugins.enabled does not name {PLUGIN_ID}" + (f", but {near[0]}" if near else "")
        yield Finding("loaded", "fail", f"{said}: Hermes does not load it, and nothing is gated", _LIST)
    elif PLUGIN_ID in disabled:
        yield Finding("loaded", "fail", f"plugins.disabled names {PLUGIN_ID}: nothing is gated", "take it out")


def _names(value: Any, name: str) -> list[str]:
    plugins = value.get("plugins") if isinstance(value, Mapping) else None
    names = plugins.get(name) if isinstance(plugins, Mapping) else None
    return [it for it in names if isinstance(it, str)] if isinstance(names, list) else []


def _config(config: HostConfig, found: list[StandsIn], path: Path) -> Iterator[Finding]:
    until = f"correct {path}; until then everything is denied"
    for problem in config.problems:
        yield Finding("configuration", "fail", str(problem), until)
    for warning in config.warnings:
        yield Finding("configuration", "warn", str(warning))
    for it in () if config.problems else found:
        if it.why and it.plugin is None:
            yield Finding(f"plugin {it.entry.id}", "warn", f"{it.why}; the host goes on without it")
        elif it.why:
            yield Finding(f"plugin {it.entry.id}", "fail", it.why, f"correct it or {path}; until then all is denied")
        if it.entry.on_error == "allow":
            todo = "on_error: deny, unless work must go on at any price"
            yield Finding("on_error", "warn", f"what the plugin {it.entry.id} cannot check is allowed", todo)
    entry = config.entry(PLUGIN_ID)
    if config.problems:
        return
    if entry is None:
        todo = f"add plugins.entries.{PLUGIN_ID} with enabled: true"
        gated = "" if found else ": nothing is gated"
        yield Finding("enabled", "fail", f"Clearance is not enabled here{gated}", todo)
    else:
        yield Finding("enabled", "ok", f"plugins.entries.{PLUGIN_ID}, asked at priority {entry.priority}")


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


def _gates(found: list[StandsIn], host: Capabilities) -> Iterator[Finding]:
    denies = any(isinstance(it.plugin, DenyingPlugin) for it in found)
    if not denies and not any(isinstance(it.plugin, ClearancePlugin) for it in found):
        return
    for gate in GATES:
        what = _GATE_OF[gate]
        if not getattr(host, what):
            yield Finding(f"gate {what}", "warn", f"{host.name} has no such gate", "see docs/hosts")
        elif denies:
            yield Finding(f"gate {what}", "ok", "armed: denies everything, see above")
        else:
            yield Finding(f"gate {what}", "ok", "armed")


def _asked(plugin: ClearancePlugin, environ: Mapping[str, str]) -> Iterator[Finding]:
    settings = plugin.settings
    if settings.subject.tenant == TENANT_OF_THE_KEY:
        yield Finding("authority", "ok", "is asked by `clearance openclaw doctor`")
        return
    try:
        authority = _opened(settings, environ)
    except ClearanceError as error:
        yield Finding("authority", "fail", f"cannot be asked: {error.message}", "see authority: in the entry's config")
        return
    if authority is None:
        todo = (
            f"correct authority.url, or clearance budget set {settings.subject.scope_path} 50.00 --ledger URL makes it"
        )
        yield Finding("authority", "fail", "there is no such ledger, so everything is denied", todo)
        return
    try:
        yield from _authority(ClearancePlugin(settings, plugin.capabilities, authority=authority))
    finally:
        authority.close()


def _opened(settings: Settings, environ: Mapping[str, str]) -> LocalAuthority | RemoteAuthority | None:
    """The authority as it is: nothing is made and nothing changed. None: a ledger that does not exist."""
    url = settings.url or default_place()[0]
    if is_server(url):
        from clearance.remote import RemoteAuthority

        key = environ.get(API_KEY_VARIABLE, "") if settings.token is None else settings.token.reveal()
        return RemoteAuthority(url, api_key=key, journal=None)
    if is_postgres(url):
        return LocalAuthority(open_store(url, migrate=False))
    file = ledger_file(url)
    is_there = file == MEMORY or _has_content(Path(file).expanduser())
    return open_ledger(url) if is_there else None


def _has_content(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:
        return False
    except OSError:
        return True  # opening it says what is wrong


def _authority(plugin: ClearancePlugin) -> Iterator[Finding]:
    """One question that holds nothing: is there what a run holds?"""
    subject = plugin.settings.subject
    wanted = plugin.settings.run_budget or Amount(unit=Unit.USD_MICROCENTS, amount=0)
    try:
        authority = plugin.ready().authority
        decision = authority.dry_run(subject, Action(kind="llm.completion", name="doctor"), wanted)
    except UnitMismatch:
        text = f"answers, and denies what costs USD: {subject.scope_path} has no budget in it"
        yield Finding("authority", "warn", text, f"clearance budget set {subject.scope_path} 50.00")
    except Denied as error:
        yield Finding("authority", "warn", f"answers, and denies now: {error.message}")
    except ClearanceError as error:
        yield Finding("authority", "fail", f"cannot be asked: {error.message}", "see authority: in the entry's config")
    else:
        if decision.allowed:
            yield Finding("authority", "ok", f"answers for {subject.scope_path}")
        else:
            yield Finding("authority", "warn", f"answers, and denies now: {decision.message}")


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
        ("enforce", "per_call" if host.model_call else "per_turn"),
    ]


def _yes(value: bool) -> str:
    return "yes" if value else "no"
