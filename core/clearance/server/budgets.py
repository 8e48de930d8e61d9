"""Provisioning of budgets. A tenant's key reaches the budgets below its tenant, the operator all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clearance.authority import budgets
from clearance.authority.budgets import BudgetSpec
from clearance.authority.requests import place_of
from clearance.errors import BudgetClosed, BudgetFrozen, InvalidRequest, TenantClosed, UnitMismatch
from clearance.model.account import ACTIVE, CLOSED, FROZEN, Account
from clearance.model.amount import Amount, Unit
from clearance.model.subject import parse_scope, tenant_of
from clearance.server import cursors, parameters, wire
from clearance.server.adminbodies import (
    BudgetPatch,
    BudgetsBody,
    BudgetSpecBody,
    FundBody,
    NewBudget,
    ReasonBody,
)
from clearance.server.bodies import AmountBody
from clearance.server.context import Server
from clearance.server.errors import forbidden, not_found
from clearance.server.http import Call, Reply
from clearance.server.reads import account_cursor, more
from clearance.server.runtime import EXTENSIONS_HEADER
from clearance.store.interface import Transaction

STATUSES = (ACTIVE, FROZEN, CLOSED)


async def create_budget(server: Server, call: Call) -> Reply:
    body = await call.body(NewBudget, server.settings)
    scope = parse_scope(body.scope)
    if call.principal.is_admin:
        if body.tenant_id is None:
            raise InvalidRequest("tenant_id", "is missing", "required with the admin key")
        if tenant_of(scope) != body.tenant_id:
            raise InvalidRequest("scope", "lies outside the tenant", f"tenant:{body.tenant_id} or below it")
    elif body.tenant_id is not None:
        raise InvalidRequest("tenant_id", "must not be sent with a tenant's key", "no tenant_id")
    _require_own(call, scope)
    unit = body.unit
    _same_unit(body.allocated, unit, "allocated")
    limit = 0
    if body.overdraft_limit is not None:
        _same_unit(body.overdraft_limit, unit, "overdraft_limit")
        limit = body.overdraft_limit.amount
    spec = BudgetSpec(
        scope=scope,
        allocated=body.allocated.of(),
        overdraft_limit=limit,
        overage_policy=body.commit_overage_policy,
    )
    account = await _change(
        server, scope, lambda tx, now: budgets.put(tx, spec, now, must_be_new=True), spec.unit.value
    )
    return Reply(wire.ledger(account), status=201)


def _same_unit(amount: AmountBody, unit: Unit, field: str) -> None:
    if amount.unit is not unit:
        raise UnitMismatch(field, f"is in {amount.unit}", unit)


def _require_own(call: Call, scope: str) -> None:
    if not call.principal.is_admin and tenant_of(scope) != call.principal.tenant:
        raise forbidden("this budget belongs to another tenant")


async def _change(
    server: Server, scope: str, change: Callable[[Transaction, int], tuple[Account, Any]], unit: str
) -> Account:
    def apply(tx: Transaction, now_ms: int) -> Account:
        _require_open(tx, scope)
        account, changes = change(tx, now_ms)
        tx.write(changes, now_ms)
        return account

    return await server.authority.akeep(apply)


def _require_open(tx: Transaction, scope: str) -> None:
    row = tx.tenant(tenant_of(scope))
    if row is not None and row.status == CLOSED:
        raise TenantClosed(f"tenant {tenant_of(scope)} is closed, for good", scope=scope)


async def put_budget(server: Server, call: Call) -> Reply:
    """Our own route: create the budget or bring it to its spec, with its period and caps."""
    body = await call.body(BudgetSpecBody, server.settings)
    scope = parse_scope(body.scope)
    _require_own(call, scope)
    spec = BudgetSpec(**body.model_dump(exclude_unset=True))
    return Reply(_whole(await _change(server, scope, lambda tx, now: budgets.put(tx, spec, now), spec.unit.value)))


async def apply_budgets(server: Server, call: Call) -> Reply:
    """Our own route: many budgets brought to their specs in one transaction."""
    body = await call.body(BudgetsBody, server.settings)
    specs = [BudgetSpec(**it.model_dump(exclude_unset=True)) for it in body.budgets]
    for spec in specs:
        _require_own(call, spec.scope)

    def apply(tx: Transaction, now_ms: int) -> list[Account]:
        for spec in specs:
            _require_open(tx, spec.scope)
        found = []
        for spec in specs:
            account, changes = budgets.put(tx, spec, now_ms)
            tx.write(changes, now_ms)
            found.append(account)
        return found

    return Reply({"ledgers": [_whole(account) for account in await server.authority.akeep(apply)]})


def _whole(account: Account) -> wire.Wire:
    """With what only our own routes tell."""
    answer = wire.ledger(account)
    if account.period:
        answer["period"] = account.period.model_dump()
    if account.caps:
        answer["caps"] = [rule.model_dump(mode="json", exclude_defaults=True) for rule in account.caps]
    return answer


async def close_budget(server: Server, call: Call) -> Reply:
    """Our own route: for good."""
    body = await call.body(ReasonBody, server.settings, optional=True)
    scope, unit = _named(call)
    account = await _change(
        server, scope, lambda tx, _: budgets.with_new_status(tx, scope, unit, CLOSED, body.reason or ""), unit
    )
    return Reply(wire.ledger(account))


async def list_budgets(server: Server, call: Call) -> Reply:
    tenant = _tenant_filter(call)
    prefix = call.query.get("scope_prefix")
    path = parse_scope(prefix) if prefix else None
    unit, status = parameters.unit(call), parameters.choice(call, "status", STATUSES)
    limit = parameters.limit(call, 100)
    bound = f"budgets|{tenant}|{path}|{unit}|{status}"
    after = account_cursor(call.query.get("cursor"), bound)
    found = await server.off_loop(
        lambda: server.authority.accounts(tenant, prefix=path, unit=unit, status=status, limit=limit + 1, after=after)
    )
    page = found[:limit]
    cursor = cursors.encoded(page[-1].key, bound) if len(found) > limit else None
    shown = _shown_to(call)
    return Reply({"ledgers": [shown(it) for it in page]} | more(cursor))


def _shown_to(call: Call) -> Callable[[Account], wire.Wire]:
    """Strict clients of the protocol would refuse the period and the caps."""
    return _whole if EXTENSIONS_HEADER in call.headers else wire.ledger


def _tenant_filter(call: Call) -> str:
    given = call.query.get("tenant_id")
    if call.principal.is_admin:
        if not given:
            raise InvalidRequest(
                "tenant_id", "tenant_id query parameter is required when using admin key authentication"
            )
        return given
    if given and given != call.principal.tenant:
        raise forbidden("tenant_id is not the tenant of this API key")
    return call.principal.tenant


def _named(call: Call) -> tuple[str, str]:
    scope = parse_scope(parameters.required(call, "scope"))
    unit = parameters.unit(call, required=True)
    assert unit is not None
    _require_own(call, scope)
    return scope, unit


async def lookup_budget(server: Server, call: Call) -> Reply:
    scope, unit = _named(call)
    found = server.authority.accounts(tenant_of(scope), limit=8, after=(tenant_of(scope), scope, ""))
    for account in found:
        if account.scope == scope and account.unit == unit:
            return Reply(_shown_to(call)(account))
    raise not_found(f"{scope} has no budget in {unit}", "BUDGET_NOT_FOUND")


async def patch_budget(server: Server, call: Call) -> Reply:
    body = await call.body(BudgetPatch, server.settings)
    scope, unit = _named(call)
    if body.overdraft_limit is not None:
        _same_unit(body.overdraft_limit, Unit(unit), "overdraft_limit")

    def change(tx: Transaction, now_ms: int) -> tuple[Account, Any]:
        old = budgets.existing(tx, scope, unit)
        if old.status == CLOSED:
            raise BudgetClosed(f"{scope} is closed, for good", scope=scope)
        spec = BudgetSpec(
            scope=scope,
            allocated=Amount(unit=Unit(unit), amount=old.allocated),
            overdraft_limit=body.overdraft_limit.amount if body.overdraft_limit else old.overdraft_limit,
            overage_policy=body.commit_overage_policy or old.overage_policy,
            period=old.period,
            caps=old.caps,
        )
        return budgets.put(tx, spec, now_ms)

    return Reply(wire.ledger(await _change(server, scope, change, unit)))


async def fund_budget(server: Server, call: Call) -> Reply:
    body = await call.body(FundBody, server.settings)
    tenant = _tenant_filter(call)
    scope, unit = _named(call)
    if tenant_of(scope) != tenant:
        raise InvalidRequest("scope", "lies outside the tenant", f"tenant:{tenant} or below it")
    _same_unit(body.amount, Unit(unit), "amount")
    spent = body.spent.of() if body.spent is not None else None
    funding = budgets.check_funding(scope, body.operation, body.amount.of(), spent, body.reason)
    place = place_of(tenant, "fund", body.idempotency_key, list(funding)) if body.idempotency_key else None

    def change(tx: Transaction, now_ms: int) -> tuple[dict[str, Any], int]:
        replay = server.authority.replayed(tx, place)
        if replay is not None:
            return replay.data, replay.at_ms
        _require_open(tx, scope)
        _, changes = budgets.funded(tx, funding, now_ms)
        changes.place = place
        data = changes.events[0].data
        tx.write(changes, now_ms)
        return data, now_ms

    data, at_ms = await server.authority.akeep(change)
    return Reply(_funded(body.operation, unit, data["before"], data["figures"][scope], at_ms))


def _funded(operation: str, unit: str, before: list[int], after: list[int], at_ms: int) -> wire.Wire:
    answer: wire.Wire = {"operation": operation}
    for name, of in _FIGURES.items():
        answer[f"previous_{name}"] = wire.amount(unit, of(before))
        answer[f"new_{name}"] = wire.amount(unit, of(after))
    return answer | {"timestamp": wire.iso(at_ms)}


_FIGURES: dict[str, Callable[[list[int]], int]] = {
    "allocated": lambda it: it[0],
    "remaining": lambda it: it[0] - it[1] - it[2] - it[3],
    "debt": lambda it: it[3],
    "spent": lambda it: it[2],
}


async def freeze_budget(server: Server, call: Call) -> Reply:
    return await _transition(server, call, ACTIVE, FROZEN)


async def unfreeze_budget(server: Server, call: Call) -> Reply:
    return await _transition(server, call, FROZEN, ACTIVE)


async def _transition(server: Server, call: Call, before: str, after: str) -> Reply:
    body = await call.body(ReasonBody, server.settings, optional=True)
    scope, unit = _named(call)

    def change(tx: Transaction, now_ms: int) -> tuple[Account, Any]:
        old = budgets.existing(tx, scope, unit)
        if old.status == CLOSED:
            raise BudgetClosed(f"{scope} is closed, for good", scope=scope)
        if old.status != before:
            raise BudgetFrozen(f"{scope} is {old.status.lower()} already", scope=scope)
        return budgets.with_new_status(tx, scope, unit, after, body.reason or "")

    return Reply(wire.ledger(await _change(server, scope, change, unit)))
