"""`clearance openclaw`: puts the plugin into OpenClaw and looks whether it is armed there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from clearance.cli import overviews
from clearance.cli.session import Session, command
from clearance.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from rich.console import RenderableType

PLUGIN_ID = "clearance"
ENTRY = f"plugins.entries.{PLUGIN_ID}"
DEFAULT_URL = "http://127.0.0.1:7878"
KEY_VARIABLE = "CLEARANCE_API_KEY"
REDACTED = "__OPENCLAW_REDACTED__"
"""What OpenClaw shows in the place of a secret that it has."""
PATIENCE_S = 120
"""What one call of OpenClaw's command may take; a first start compiles for a while."""
MAX_OUTPUT_BYTES = 16_000_000
_KILLED_S = 2.0
NEEDED = (
    "before_agent_run",
    "before_tool_call",
    "before_model_resolve",
    "before_prompt_build",
    "after_tool_call",
    "agent_end",
    "llm_output",
    "model_call_ended",
)

openclaw = typer.Typer(help="The plugin for OpenClaw: where it is, install it, is it armed?", no_args_is_help=True)

Program = Annotated[str, typer.Option("--openclaw", metavar="PROGRAM", help="OpenClaw's own command.")]
Url = Annotated[str, typer.Option("--url", help="The Clearance server that is asked.")]
Variable = Annotated[
    str, typer.Option("--key-variable", metavar="NAME", help="The variable of OpenClaw's environment with the API key.")
]
RunBudget = Annotated[str, typer.Option("--run-budget", metavar="USD", help="Held for each turn: all it may spend.")]
Patience = Annotated[
    int, typer.Option("--timeout", metavar="SECONDS", min=1, help="How long one call of OpenClaw's command may take.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


def register(app: typer.Typer) -> None:
    app.add_typer(openclaw, name="openclaw", rich_help_panel="Serve and move")
    command(openclaw, "install")(install)
    command(openclaw, "path")(path)
    command(openclaw, "doctor")(doctor)


def path(session: Session) -> None:
    """The plugin's folder, for `openclaw plugins install --link` or `plugins.load.paths`."""
    session.show({"path": str(_plugin())}, lambda facts: _line(facts["path"]))


def install(
    session: Session,
    program: Program = "openclaw",
    url: Url = DEFAULT_URL,
    key_variable: Variable = KEY_VARIABLE,
    run_budget: RunBudget = "1.00",
    dry_run: DryRun = False,
    timeout: Patience = PATIENCE_S,
) -> None:
    """Link the plugin, grant it what it needs, point it to the server, enable it. A second time changes nothing.

    The key itself is not written: OpenClaw takes it from its environment.
    """
    _check(url, key_variable, run_budget)
    steps = _steps(url, key_variable, run_budget)
    if not dry_run:
        found = _found(program)
        for step in steps:
            _run([found, *step], timeout)
    facts = {"installed": not dry_run, "path": str(_plugin()), "commands": [[program, *step] for step in steps]}
    session.show({**facts, "key_variable": key_variable}, _installed)


def doctor(
    session: Session,
    program: Program = "openclaw",
    key_variable: Variable = KEY_VARIABLE,
    timeout: Patience = PATIENCE_S,
) -> None:
    """Load the plugin as OpenClaw does and look: every gate there, no diagnostics, the authority answers. 1 if not.

    Run it with OpenClaw's own environment, which has the API key.
    """
    checks = _checks(_found(program), key_variable, timeout)
    failed = sum(check["level"] == "fail" for check in checks)
    warned = sum(check["level"] == "warn" for check in checks)
    session.show({"checks": checks, "failed": failed, "warned": warned}, overviews.doctor)
    if failed:
        raise typer.Exit(1)


# --- install


def _check(url: str, key_variable: str, run_budget: str) -> None:
    from clearance.model.amount import usd

    if not url.startswith(("http://", "https://")):
        raise InvalidRequest("url", f"{url!r} is no server's URL", DEFAULT_URL)
    if not (key_variable.isascii() and key_variable.replace("_", "").isalnum() and key_variable.isupper()):
        raise InvalidRequest("key-variable", f"{key_variable!r} is no name of a variable", "capitals, digits and _")
    usd(run_budget)


def _steps(url: str, key_variable: str, run_budget: str) -> list[list[str]]:
    values = {
        f"{ENTRY}.hooks.allowConversationAccess": True,
        f"{ENTRY}.config.authority.url": url,
        f"{ENTRY}.config.authority.token": f"${{{key_variable}}}",
        f"{ENTRY}.config.run_budget": run_budget,
    }
    batch = [{"path": name, "value": value} for name, value in values.items()]
    return [
        ["plugins", "install", "--link", str(_plugin()), "--force", "--accept-capabilities"],
        ["config", "set", "--batch-json", json.dumps(batch)],
        ["plugins", "enable", PLUGIN_ID],
    ]


def _installed(facts: dict[str, Any]) -> RenderableType:
    import shlex

    lines = [shlex.join(line) for line in facts["commands"]]
    if facts["installed"]:
        name = facts["key_variable"]
        lines += [f"installed; start OpenClaw with {name} set to an API key (clearance key create TENANT), and then:"]
        lines += ["clearance openclaw doctor"]
    return _line("\n".join(lines))


# --- doctor


def _checks(program: str, key_variable: str, timeout_s: int) -> list[dict[str, str]]:
    try:
        inspected = _json([program, "plugins", "inspect", PLUGIN_ID, "--runtime", "--json"], timeout_s)
    except TimedOut as error:
        return [_check_of("plugin", "fail", error.problem, error.allowed)]
    except InvalidRequest as error:
        return [_check_of("plugin", "fail", error.problem, error.allowed or "clearance openclaw install")]
    plugin = inspected.get("plugin")
    checks = [_loaded(plugin if isinstance(plugin, dict) else {})]
    checks += [
        _check_of("diagnostic", "fail", str(it.get("message", it)), f"see {ENTRY}.hooks in OpenClaw's configuration")
        for it in _dicts(inspected, "diagnostics")
    ]
    there = {str(hook.get("name")) for hook in _dicts(inspected, "typedHooks")}
    missing = [name for name in NEEDED if name not in there]
    text = f"not registered: {', '.join(missing)}" if missing else f"{len(there)} hooks"
    grant = f"openclaw config set {ENTRY}.hooks.allowConversationAccess true"
    checks.append(_check_of("gates", "fail" if missing else "ok", text, grant if missing else ""))
    try:
        entry = _json([program, "config", "get", ENTRY, "--json"], timeout_s)
    except TimedOut as error:
        return [*checks, _check_of("configuration", "fail", error.problem, error.allowed)]
    except InvalidRequest as error:
        return [*checks, _check_of("configuration", "fail", error.problem, "clearance openclaw install")]
    return checks + _authority(entry, key_variable)


def _dicts(facts: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of objects; what is said in another shape is wrapped, so that it is shown."""
    found = facts.get(name)
    told = found if isinstance(found, list) else [found] if found else []
    return [it if isinstance(it, dict) else {"message": it} for it in told]


def _loaded(plugin: dict[str, Any]) -> dict[str, str]:
    if plugin.get("enabled") and plugin.get("status") == "loaded":
        return _check_of("plugin", "ok", f"{plugin.get('id')} {plugin.get('version')} from {plugin.get('rootDir')}")
    why = plugin.get("error") or f"status {plugin.get('status')}, enabled: {plugin.get('enabled')}"
    return _check_of("plugin", "fail", str(why), "openclaw plugins enable clearance")


def _authority(entry: dict[str, Any], key_variable: str) -> list[dict[str, str]]:
    from clearance.config.problems import Report
    from clearance_hooks.documents import interpolated

    report = Report("openclaw.json")
    config = interpolated(entry.get("config") or {}, (ENTRY, "config"), report, os.environ)
    if report.found:
        todo = "run the doctor with OpenClaw's own environment"
        return [_check_of("secret", "fail", str(problem), todo) for _, problem in report.found]
    authority = config.pop("authority", None)
    if not isinstance(authority, dict) or not all(isinstance(authority.get(it), str) for it in ("url", "token")):
        return [_check_of("authority", "fail", f"{ENTRY}.config.authority has no url and token", "set both")]
    token = authority["token"]
    if token == REDACTED:
        token = os.environ.get(key_variable, "")
    if not token:
        todo = f"{key_variable}=... clearance openclaw doctor, or --key-variable"
        return [_check_of("secret", "warn", "OpenClaw has a key; the doctor has none to ask with", todo)]
    return [_check_of("secret", "ok", "resolved: yes"), _asked(authority["url"], token, config)]


def _asked(url: str, token: str, config: dict[str, Any]) -> dict[str, str]:
    import httpx

    config.pop("timeout_ms", None)
    # A tool of no admitted run: a server whose guard works refuses it with exactly this code, and holds nothing.
    content = {
        "hook": "before_tool_call",
        "event": {"toolName": "doctor", "toolCallId": "doctor"},
        "ctx": {"runId": "doctor"},
        "config": config,
    }
    headers = {"X-Cycles-API-Key": token}
    where = f"{url.rstrip('/')}/v1/x-clearance/hooks/openclaw"
    try:
        answer = httpx.post(where, json=content, headers=headers, timeout=5.0)
        told = answer.json()
        told = told if isinstance(told, dict) else {}
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return _check_of("authority", "fail", f"{url} gives no answer ({type(error).__name__})", "clearance serve")
    if answer.status_code != 200:
        problem = f"{url} refuses the key or the request: {told.get('message', answer.status_code)}"
        return _check_of("authority", "fail", problem, "clearance key create TENANT")
    if told.get("code") != "RUN_NOT_ADMITTED":
        reason = (told.get("result") or {}).get("blockReason", told.get("code"))
        return _check_of("configuration", "fail", str(reason), f"correct {ENTRY}.config; until then all is denied")
    return _check_of("authority", "ok", f"{url} answers")


def _check_of(name: str, level: str, text: str, todo: str = "") -> dict[str, str]:
    return {"name": name, "level": level, "text": text, "todo": todo}


# --- OpenClaw's own command


def _found(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise NotFound(f"there is no program {program!r}; npm install -g openclaw, or --openclaw PROGRAM")
    return found


class TimedOut(InvalidRequest):
    """OpenClaw's command did not end."""


def _json(line: list[str], timeout_s: int) -> dict[str, Any]:
    text = _run(line, timeout_s)
    try:
        found = json.loads(text)
    except ValueError:
        raise InvalidRequest("openclaw", f"`{' '.join(line[1:3])}` answered no JSON", "a newer OpenClaw") from None
    return found if isinstance(found, dict) else {}


def _run(line: list[str], timeout_s: int) -> str:
    """What the command prints. Whatever it does, it is over in time, with all that it has started."""
    named = f"`{' '.join(line[1:3])}`"
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
        except OSError as error:
            raise InvalidRequest("openclaw", f"{line[0]} cannot be run ({error.strerror})") from None
        try:
            code = _code(process, time.monotonic() + timeout_s, (out.fileno(), err.fileno()))
        except BaseException:
            _end(process)
            raise
        if code is None:
            _end(process)
            allowed = "a command of OpenClaw, or a longer --timeout"
            raise TimedOut("openclaw", f"{line[0]}: {named} did not end in {timeout_s} s", allowed)
        said, complained = _text(out), _text(err)
    if code:
        lines = [text for text in (complained or said).splitlines() if text.strip()]
        last = lines[-1].strip()[:300] if lines else f"exit code {code}"
        raise InvalidRequest("openclaw", f"{named} failed: {last}")
    return said


def _code(process: subprocess.Popen[bytes], deadline: float, files: tuple[int, int]) -> int | None:
    """Its exit code, None if it does not end in time. Raises InvalidRequest when it prints without end."""
    while (code := process.poll()) is None and time.monotonic() < deadline:
        if any(os.fstat(file).st_size > MAX_OUTPUT_BYTES for file in files):
            raise InvalidRequest("openclaw", f"prints more than {MAX_OUTPUT_BYTES:,} bytes", "OpenClaw's own command")
        with suppress(subprocess.TimeoutExpired):
            process.wait(min(0.05, max(0.001, deadline - time.monotonic())))
    return code


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill it with its children, which are in a session of their own with it."""
    with suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_KILLED_S)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(MAX_OUTPUT_BYTES).decode("utf-8", "replace")


def _plugin() -> Path:
    try:
        from clearance_hooks.openclaw import PLUGIN
    except ModuleNotFoundError as error:
        raise InvalidRequest(
            "openclaw", f"needs {error.name}, which is not installed", "pip install clearance"
        ) from None
    return PLUGIN


def _line(text: str) -> RenderableType:
    from rich.text import Text

    return Text(text)
