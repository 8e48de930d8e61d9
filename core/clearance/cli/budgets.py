"""`clearance budget ...`: make, fund, freeze and look at budgets."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearance.cli import facts, views
from clearance.cli.options import (
    AllowTool,
    AmountText,
    ApproveTool,
    Below,
    Cooldown,
    DenyTool,
    Every,
    MaxSteps,
    MaxTokens,
    Names,
    NoCaps,
    OnlyModel,
    Overdraft,
    Policy,
    Rolling,
    Scope,
    Text,
    Timezone,
    UnitName,
    Why,
)
from clearance.cli.session import Session, command
from clearance.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from clearance.authority.budgets import BudgetSpec
    from clearance.ledger.funding import FundingOperation

NONE = "none"


def register(app: typer.Typer) -> None:
    budget = typer.Typer(name="budget", help="Make, fund, freeze and look at budgets.", invoke_without_command=True)
    budget.callback()(_help)
    app.add_typer(budget, rich_help_panel="Budgets")
    verbs: dict[str, Callable[..., None]] = {"set": set_budget, "fund": fund, "close": close}
    verbs |= {"freeze": freeze, "unfreeze": unfreeze, "show": show, "tree": tree}
    for name, function in verbs.items():
        command(budget, name)(function)


def _help(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), nl=False)


def set_budget(
    session: Session,
    scope: Scope,
    amount: AmountText,
    unit: UnitName = "USD",
    period: Every = None,
    rolling: Rolling = False,
    timezone: Timezone = None,
    overdraft: Overdraft = None,
    overage_policy: Policy = None,
    below: Below = None,
    max_tokens: MaxTokens = None,
    max_steps: MaxSteps = None,
    allow_tool: AllowTool = None,
    deny_tool: DenyTool = None,
    approve_tool: ApproveTool = None,
    model: OnlyModel = None,
    cooldown: Cooldown = None,
    no_caps: NoCaps = False,
) -> None:
    """Make a budget, or change one: what is not given stays, and so does what was spent and is held."""
    rule = _rule(below, max_tokens, max_steps, allow_tool, deny_tool, approve_tool, model, cooldown)
    if rule and no_caps:
        raise InvalidRequest("no_caps", "does not go with other caps", "one of them")
    given: dict[str, Any] = {
        "scope": scope,
        "allocated": amount,
        "unit": unit,
        "period": _period(period, rolling, timezone),
        "overdraft": overdraft,
        "overage_policy": None if overage_policy == NONE else overage_policy,
        "caps": [rule] if rule else None,
    }
    kept = {
        "period": period is None and not rolling and timezone is None,
        "overdraft_limit": overdraft is None,
        "overage_policy": overage_policy is None,
        "caps": not rule and not no_caps,
    }
    _put(session, _spec(given), [name for name, keep in kept.items() if keep])


def _rule(
    below: Text,
    tokens: int | None,
    steps: int | None,
    allow: Names,
    deny: Names,
    approve: Names,
    models: Names,
    cooldown: Text,
) -> dict[str, Any]:
    """The caps given, as an entry of `caps:`."""
    tools = {key: list(names) for key, names in (("allow", allow), ("deny", deny)) if names}
    rule: dict[str, Any] = {"below": below, "max_tokens": tokens, "max_steps_remaining": steps, "cooldown": cooldown}
    rule |= {"models": models or None, "tools": tools or None, "approval_tools": approve or None}
    return {key: value for key, value in rule.items() if value is not None}


def _period(every: Text, rolling: bool, timezone: Text) -> dict[str, str] | None:
    if every == NONE or (every is None and not rolling and timezone is None):
        if rolling or timezone:
            raise InvalidRequest("period", "is none, so there is nothing to roll", "hour, day, week, month")
        return None
    if every is None:
        raise InvalidRequest("period", "is missing beside --rolling or --timezone", "hour, day, week, month")
    kind = {"every": every, "kind": "rolling" if rolling else "calendar"}
    return kind if timezone is None else {**kind, "timezone": timezone}


def _spec(given: dict[str, Any]) -> BudgetSpec:
    """Options are read as the same words in clearance.yaml are."""
    from clearance.config import Report, read_budget

    report = Report("")
    spec = read_budget(report, {key: value for key, value in given.items() if value is not None})
    if spec is None:
        first = report.found[0][1]
        raise InvalidRequest(first.path, first.problem, first.allowed)
    return spec


def _put(session: Session, spec: BudgetSpec, kept: list[str]) -> None:
    from clearance.config import differences, spec_of

    with session.authority(create=True) as authority:
        now = None
        with contextlib.suppress(NotFound):
            now = spec_of(authority.balance(spec.scope, spec.unit.value))
        if now:
            spec = spec.model_copy(update={name: getattr(now, name) for name in kept})
        balance = facts.amended(authority, now, spec, kept) if now else authority.set_budget(spec)
        changes = [change._asdict() for change in differences(now, spec)]
        session.show({"budget": balance.as_dict(), "created": now is None, "changes": changes}, views.budget_set)


def fund(
    session: Session,
    scope: Scope,
    amount: AmountText,
    unit: UnitName = "USD",
    operation: Annotated[
        str, typer.Option("--operation", help="credit, debit, reset, reset-spent or repay-debt.")
    ] = "credit",
    spent: Annotated[Text, typer.Option("--spent", help="With reset-spent: what counts as spent (default 0).")] = None,
    reason: Why = None,
    key: Annotated[Text, typer.Option("--idempotency-key", help="The same key again changes nothing.")] = None,
) -> None:
    """Change a budget's money: credit and debit add and take, reset sets, reset-spent also clears what was spent."""
    from clearance.config import parse_amount_of

    name = _operation(operation)
    money = parse_amount_of(amount, unit)
    so_far = parse_amount_of(spent, unit) if spent is not None else None
    with session.authority() as authority:
        balance = authority.fund(scope, name, money, spent=so_far, reason=reason, idempotency_key=key)
        session.show({"budget": balance.as_dict(), "operation": name, "amount": money.amount}, views.budget_funded)


def _operation(text: str) -> FundingOperation:
    from clearance.ledger.funding import OPERATIONS

    for name in OPERATIONS:
        if name == text.upper().replace("-", "_"):
            return name
    allowed = ", ".join(it.lower().replace("_", "-") for it in OPERATIONS)
    raise InvalidRequest("operation", f"{text!r} is unknown", allowed)


def freeze(session: Session, scope: Scope, unit: UnitName = "USD", reason: Why = None) -> None:
    """Grant nothing new from a budget. What is held may settle."""
    _set_status(session, "freeze", scope, unit, reason)


def unfreeze(session: Session, scope: Scope, unit: UnitName = "USD", reason: Why = None) -> None:
    """Use a frozen budget again."""
    _set_status(session, "unfreeze", scope, unit, reason)


def close(
    session: Session,
    scope: Scope,
    unit: UnitName = "USD",
    reason: Why = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Close a budget for good. Asks first when someone is there to answer."""
    if not yes and not session.as_json and sys.stdin.isatty():
        typer.confirm(f"Close the budget of {scope} for good?", abort=True, err=True)
    _set_status(session, "close_budget", scope, unit, reason)


def _set_status(session: Session, verb: str, scope: str, unit: str, reason: str | None) -> None:
    from clearance.model.amount import parse_unit

    kind = parse_unit(unit)
    with session.authority() as authority:
        balance = getattr(authority, verb)(scope, kind, reason=reason or "")
        session.show({"budget": balance.as_dict()}, views.budget_status)


def show(
    session: Session,
    scope: Scope,
    unit: Annotated[Text, typer.Option("--unit", help="Only this unit; else all that the scope has.")] = None,
) -> None:
    """One budget in full."""
    from clearance.model.amount import Unit, parse_unit
    from clearance.model.subject import parse_scope

    path, units = parse_scope(scope), [parse_unit(unit)] if unit else list(Unit)
    found = []
    with session.authority() as authority:
        for kind in units:
            with contextlib.suppress(NotFound):
                found.append(authority.balance(path, kind.value).as_dict())
        if not found:
            what = f"no budget in {units[0].value}" if unit else "no budget"
            raise NotFound(f"{path} has {what}; `clearance budget tree` shows those there are", scope=path)
        session.show({"scope": path, "budgets": found}, views.budget_show)


def tree(
    session: Session, scope: Annotated[Text, typer.Argument(metavar="[SCOPE]", help="Only here and below.")] = None
) -> None:
    """All budgets below each other, with bars of what is spent, held and left."""
    from clearance.model.subject import parse_scope

    path = parse_scope(scope) if scope else None
    with session.authority() as authority:
        found = facts.all_balances(authority, path)
        if path and not found:
            raise NotFound(f"no budget at or below {path}", scope=path)
        session.show({"tree": facts.tree(found, path)}, views.budget_tree)
