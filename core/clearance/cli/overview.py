"""`clearance status`, `price`, `demo` and `version`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearance.cli import facts, overviews
from clearance.cli.session import Session, command
from clearance.errors import ClearanceError, InvalidRequest

if TYPE_CHECKING:
    from clearance.cli.session import Ledger

SCENARIOS = ("runaway", "tools", "parallel", "crash")
MAX_COUNTED = 1_000


def register(app: typer.Typer) -> None:
    command(app, "status", rich_help_panel="Look")(status)
    command(app, "price", rich_help_panel="Look")(price)
    command(app, "demo", rich_help_panel="Look")(demo)
    command(app, "version", rich_help_panel="Look")(version)


def status(session: Session) -> None:
    """Budgets at a glance, stops in force, open reservations and the ledger."""
    with session.authority() as authority:
        answer = {
            "ledger": {**authority.describe(), "durability": authority.durability},
            "budgets": [it.as_dict() for it in facts.all_balances(authority)],
            "stops": [facts.stop_facts(stop) for stop in facts.stops_in_force(authority)],
            "open_reservations": _open(authority),
        }
        session.show(answer, overviews.status)


def _open(authority: Ledger) -> dict[str, Any]:
    from clearance.store.interface import ReservationQuery

    query, kinds, cursor = ReservationQuery(status="ACTIVE"), {"call": 0, "run": 0}, None
    while sum(kinds.values()) < MAX_COUNTED:
        page = authority.reservations(query, limit=facts.PAGE, cursor=cursor)
        for it in page.items:
            kinds[it.kind] += 1
        cursor = page.next_cursor
        if cursor is None:
            break
    return {"calls": kinds["call"], "runs": kinds["run"], "more": cursor is not None}


def price(
    session: Session,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Such as gpt-4o-mini.")],
    provider: Annotated[str | None, typer.Option("--provider", help="Where several providers have the model.")] = None,
    input_tokens: Annotated[int, typer.Option("--input", min=0, help="Prompt tokens, cached and audio included.")] = 0,
    output_tokens: Annotated[int, typer.Option("--output", min=0, help="Generated tokens, reasoning included.")] = 0,
    cached: Annotated[int, typer.Option("--cached", min=0, help="Of the prompt: read from the cache.")] = 0,
    cache_write: Annotated[int, typer.Option("--cache-write", min=0, help="Of the prompt: written to the cache.")] = 0,
    reasoning: Annotated[int, typer.Option("--reasoning", min=0, help="Of the output: reasoning.")] = 0,
    audio_input: Annotated[int, typer.Option("--audio-input", min=0, help="Of the prompt: audio.")] = 0,
    audio_output: Annotated[int, typer.Option("--audio-output", min=0, help="Of the output: audio.")] = 0,
) -> None:
    """What a model costs, where the price is from, and what a call with these tokens would be charged."""
    from clearance.pricing import PriceBook, Usage

    config = session.config(("prices",))
    book = config.price_book() if config else PriceBook()
    answer = book.explain(model, provider)
    usage = Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_input_tokens=cached,
        cache_write_tokens=cache_write,
        reasoning_tokens=reasoning,
        audio_input_tokens=audio_input,
        audio_output_tokens=audio_output,
    )
    if usage != Usage():
        cost = book.price(model, usage, provider)
        counts = {name: getattr(usage, name) for name in usage.__slots__ if getattr(usage, name)}
        answer = {**answer, "call": {"usage": counts, "amount": cost.amount, "unit": cost.unit.value}}
    session.show(answer, overviews.price)


def demo(
    session: Session,
    scenario: Annotated[str, typer.Option("--scenario", help=", ".join(SCENARIOS) + ".")] = SCENARIOS[0],
    seconds: Annotated[float, typer.Option("--seconds", help="How long runaway's unguarded agent may go on.")] = 6.0,
) -> None:
    """A runaway agent against a simulated provider, stopped at its budget. Needs the extra `demo`, no key."""
    if scenario not in SCENARIOS:
        raise InvalidRequest("scenario", f"{scenario!r} is unknown", ", ".join(SCENARIOS))
    try:
        code = importlib.import_module("clearance.demo").run(scenario, as_json=session.as_json, seconds=seconds)
    except ModuleNotFoundError as error:
        missing = error.name or "a package"
        if missing.startswith("clearance.") and missing != "clearance.demo":
            raise
        hint = "pip install 'clearance[demo]'"
        raise ClearanceError(f"the demo needs {missing}, which is not installed: {hint}") from None
    if code:
        raise typer.Exit(int(code))


def version(session: Session) -> None:
    """The versions of Clearance, Python and SQLite."""
    from clearance.cli.doctor import versions

    session.show(versions(), overviews.versions)
