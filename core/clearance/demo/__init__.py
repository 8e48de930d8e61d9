"""`clearance demo`: a real agent, a simulated provider, and the authority in between. Needs no key and no network.

    run("runaway")   an agent that never stops, stopped by its budget
    run("tools")     a tool that may run three times and no more
    run("parallel")  eight processes that share the last dollar
    run("crash")     a process that is killed, and what the books say afterwards

Needs the extra `clearance[demo]`, loaded by `run` and not before.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from clearance.errors import InvalidRequest

if TYPE_CHECKING:
    from clearance.demo.facts import Facts

__all__ = ["SCENARIOS", "quiet", "run"]

SCENARIOS = ("runaway", "tools", "parallel", "crash")
MIN_SECONDS, MAX_SECONDS = 0.5, 30.0

_NEEDED = (
    "genai_prices",
    "langchain",
    "langchain_classic",
    "langchain_core",
    "langchain_openai",
    "rich",
    "starlette",
    "uvicorn",
)
_HINT = "the demo needs more than the core; install it with: pip install 'clearance[demo]'"
_INTERRUPTED = 130
_LOCAL = "127.0.0.1,localhost"
_QUIET_VARIABLES = {
    "LANGSMITH_TRACING": "false",
    "LANGSMITH_TRACING_V2": "false",
    "LANGCHAIN_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "NO_PROXY": _LOCAL,
    "no_proxy": _LOCAL,
}
_QUIET_LOGGERS = ("clearance", "langchain_core", "langchain_openai", "openai", "httpx")


def run(scenario: str = "runaway", *, as_json: bool = False, seconds: float = 6.0) -> int:
    """Play one scenario and show it; answers the exit code.

    0: every check held. 1: one did not, or the extra is not installed. 130: interrupted.

    Args:
        scenario: one of SCENARIOS.
        as_json: nothing but one JSON object at the end: `scenario`, `ok`, `figures`, `checks`, `ledger`, `seconds`.
        seconds: how long the unguarded agent of `runaway` may go on, 0.5 to 30.

    The ledger stays in a temporary folder, for a look at it. Raises InvalidRequest for another scenario or time.
    """
    if scenario not in SCENARIOS:
        raise InvalidRequest("scenario", f"{scenario!r} is unknown", ", ".join(SCENARIOS))
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise InvalidRequest("seconds", f"{seconds} is refused", f"{MIN_SECONDS} to {MAX_SECONDS:.0f}")
    if any(find_spec(name) is None for name in _NEEDED):
        print(_HINT, file=sys.stderr)
        return 1
    folder = new_folder()
    try:
        with quiet():
            return _play(scenario, folder, as_json=as_json, seconds=seconds)
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        return _INTERRUPTED
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def new_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="clearance-demo-"))


def _play(scenario: str, folder: Path, *, as_json: bool, seconds: float) -> int:
    from clearance.demo import views

    began = time.monotonic()
    with views.view(silent=as_json) as view:
        view.begin(scenario)
        facts: Facts = importlib.import_module(f"clearance.demo.{scenario}").play(view, folder, seconds)
        elapsed = time.monotonic() - began
        view.end(facts, elapsed)
    if as_json:
        print(json.dumps({"scenario": scenario, **facts.as_dict(), "seconds": round(elapsed, 3)}, indent=2))
    return 0 if facts.ok else 1


@contextmanager
def quiet() -> Iterator[None]:
    """No telemetry of the frameworks, no proxy for loopback, no log lines in the picture. For this process only."""
    before = {name: os.environ.get(name) for name in _QUIET_VARIABLES}
    handler = logging.NullHandler()  # a logger with a handler does not write to stderr by itself
    os.environ.update(_QUIET_VARIABLES)
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).addHandler(handler)
    try:
        yield
    finally:
        for name in _QUIET_LOGGERS:
            logging.getLogger(name).removeHandler(handler)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
