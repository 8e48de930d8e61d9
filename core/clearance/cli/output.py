"""Where answers go: facts as JSON for programs, as rich tables for people. Errors go to standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from clearance.errors import ClearanceError

NOT_OFFERED = "NOT_OFFERED"
PIPED_WIDTH = 200
"""Columns of output that goes into a file or another program, which nothing wraps."""


def show(facts: dict[str, Any], view: Callable[[dict[str, Any]], RenderableType], as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    console().print(view(facts))


def line(facts: dict[str, Any]) -> None:
    """One JSON object on one line, at once."""
    print(json.dumps(facts), flush=True)


def say(text: str) -> None:
    """A remark for people that is no part of the answer."""
    print(plain(text), file=sys.stderr)


def console() -> Console:
    from rich.console import Console

    found = Console(highlight=False, markup=False, emoji=False, soft_wrap=False)
    if not found.is_terminal:
        found.width = PIPED_WIDTH
    return found


def plain(text: object) -> str:
    """Text from the ledger on one line, without control characters that could steer the terminal."""
    return "".join(
        c if c.isprintable() else (" " if c.isspace() else c.encode("unicode_escape").decode()) for c in str(text)
    )


def forgiving() -> None:
    """Output never fails for a character that the terminal cannot show."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def hang_up() -> None:
    """Whoever read our output has had enough; nothing more is written, not even at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(error: ClearanceError, as_json: bool) -> int:
    """Print one of our errors and say the exit code that goes with it."""
    from clearance.errors import Conflict, Denied, NotFound

    refused = isinstance(error, Denied | Conflict) or error.code == NOT_OFFERED
    code = 2 if refused and not isinstance(error, NotFound) else 1
    complain(error.message, error.reason_code, as_json, field=getattr(error, "field", None), details=_details(error))
    return code


def _details(error: ClearanceError) -> dict[str, Any]:
    facts = {"scope": error.scope, "retry_after_ms": error.retry_after_ms}
    return {**error.details, **{name: value for name, value in facts.items() if value is not None}}


def complain(
    message: str, code: str, as_json: bool, *, field: str | None = None, details: dict[str, Any] | None = None
) -> None:
    if as_json:
        error = {"code": code, "message": message, "field": field, "details": details or {}}
        print(json.dumps({"error": error}), file=sys.stderr)
        return
    for part in message.splitlines() or [""]:
        print(f"error: {plain(part)}", file=sys.stderr)
