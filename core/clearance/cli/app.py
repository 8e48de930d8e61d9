"""`clearance`: the commands together, and what becomes of errors."""

from __future__ import annotations

import os
import re
import sys
import traceback
from typing import Any

import typer

from clearance.cli import (
    budgets,
    changes,
    checks,
    controls,
    hosts,
    journal,
    keys,
    openclaw,
    overview,
    records,
    servers,
    tenants,
    webhooks,
)
from clearance.cli.output import complain, fail, forgiving, hang_up
from clearance.cli.session import ConfigOption, JsonOption, LedgerOption, Session
from clearance.errors import ClearanceError

DEBUG_VARIABLE = "CLEARANCE_DEBUG"
INTERRUPTED = 130
EPILOG = (
    "Exit codes: 0 done. 1 error: bad input, not found, ledger unavailable, or a failure found by doctor. "
    "2 denied, refused by state (frozen, closed), or not to be done at a server. "
    "3 apply --dry-run found changes, or journal flush left something. "
    "130 interrupted.\n\n"
    "The ledger is --ledger, else CLEARANCE_URL, else `ledger:` in the configuration, else a file in your data folder. "
    "A server's (http://...) is reached with CLEARANCE_ADMIN_KEY, or a tenant's key in CLEARANCE_API_KEY. "
    "NO_COLOR=1 turns colours off. CLEARANCE_DEBUG=1 shows tracebacks of unexpected errors."
)

app = typer.Typer(
    name="clearance",
    add_completion=False,
    epilog=EPILOG,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def everywhere(
    ctx: typer.Context, ledger: LedgerOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """The runtime authority for AI agents: budgets, holds, the stop button and the audit log of one ledger."""
    ctx.obj = Session(ledger, config, as_json)
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), nl=False)


overview.register(app)
budgets.register(app)
changes.register(app)
records.register(app)
controls.register(app)
checks.register(app)
servers.register(app)
hosts.register(app)
openclaw.register(app)
tenants.register(app)
keys.register(app)
webhooks.register(app)
journal.register(app)


def run(arguments: list[str]) -> int:
    """Run one command line; every error becomes one line and an exit code."""
    forgiving()
    as_json = "--json" in arguments
    try:
        code = app(arguments, prog_name="clearance", standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except typer.Exit as stop:
        return stop.exit_code
    except ClearanceError as error:
        return fail(error, as_json)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        hang_up()
        return 0
    except Exception as error:
        return _unexpected(error, arguments, as_json)


def _unexpected(error: Exception, arguments: list[str], as_json: bool) -> int:
    if callable(describe := getattr(error, "format_message", None)):
        complain(_usage(error, str(describe()), arguments), "USAGE", as_json)
        return 1
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exc()
    what = f"{type(error).__name__}: {error}".removesuffix(": ")
    hint = f"set {DEBUG_VARIABLE}=1 to see the traceback"
    complain(f"unexpected {' '.join(what.split())} ({hint})", "INTERNAL_ERROR", as_json)
    return 1


def _usage(error: Any, message: str, arguments: list[str]) -> str:
    """A usage error of the parser on one line, with the command whose help says more."""
    context = getattr(error, "ctx", None)
    see = f"see `{context.command_path if context else 'clearance'} --help`"
    if re.search(r"No such option: -[0-9.]", message):
        given = next((it for it in arguments if re.match(r"-[0-9.]", it)), "an amount")
        return f"{given} is negative; allowed: 0 or more; {see}"
    if "unexpected extra argument" in message and {"kill", "pause", "resume"} & set(arguments):
        message += " (for everybody, quote the star: '*')"
    return f"{' '.join(message.split()).rstrip('.')}; {see}"
