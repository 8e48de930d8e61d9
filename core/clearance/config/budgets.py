"""Budgets as `clearance.yaml` and the command line give them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, get_args

from clearance.authority.budgets import BudgetSpec
from clearance.config.amounts import parse_amount_of
from clearance.config.caps import read_rules
from clearance.config.problems import Path, Report, dotted, shown
from clearance.errors import InvalidRequest
from clearance.model.account import OveragePolicy
from clearance.model.amount import parse_unit
from clearance.model.period import Period
from clearance.model.subject import LEVELS, parse_scope

KEYS = ("scope", "allocated", "unit", "period", "overdraft", "overage_policy", "caps")
_EVERY = get_args(Period.model_fields["every"].annotation)
_POLICIES = get_args(OveragePolicy)


def read_budgets(report: Report, value: Any, path: Path) -> tuple[BudgetSpec, ...]:
    """A list of budgets, or a mapping from scope to the rest of a budget."""
    if value is None:
        return ()
    if isinstance(value, Mapping):
        entries = [
            (_with_scope(report, scope, entry, (*path, scope)), (*path, scope)) for scope, entry in value.items()
        ]
    elif isinstance(value, list):
        entries = [(entry, (*path, number)) for number, entry in enumerate(value)]
    else:
        report.refuse(path, f"{shown(value)} is not a list", "a list of budgets, or a mapping from scope to budget")
        return ()
    found: dict[tuple[str, str], Path] = {}
    specs = []
    for entry, place in entries:
        spec = read_budget(report, entry, place) if entry is not None else None
        if spec is None:
            continue
        first = found.setdefault((spec.scope, spec.unit.value), place)
        if first != place:
            report.refuse(
                place, f"{spec.scope} in {spec.unit} is there twice, first as {dotted(first)}", "each budget once"
            )
        specs.append(spec)
    return tuple(specs)


def _with_scope(report: Report, scope: str, entry: Any, path: Path) -> Any:
    if not isinstance(entry, Mapping):
        report.refuse(path, f"{shown(entry)} is not a mapping", "a mapping with " + ", ".join(KEYS[1:]))
        return None
    if "scope" in entry:
        report.refuse((*path, "scope"), "is the key of this entry already", "only one of them")
        return None
    return {"scope": scope, **entry}


def read_budget(report: Report, entry: Any, path: Path = ()) -> BudgetSpec | None:
    """One budget; None after a refusal."""
    before = len(report.found)
    given = report.mapping(entry, path, KEYS)
    if given is None:
        return None
    scope = _scope(report, given, path)
    unit = _unit(report, given.get("unit", "USD"), (*path, "unit"))
    fields: dict[str, Any] = {
        "period": _period(report, given.get("period"), (*path, "period")),
        "overage_policy": _policy(report, given.get("overage_policy"), (*path, "overage_policy")),
        "caps": read_rules(report, given.get("caps"), (*path, "caps")),
    }
    if unit is not None:
        fields["allocated"] = _amount(report, given.get("allocated"), unit, (*path, "allocated"))
        if given.get("overdraft") is not None:
            overdraft = _amount(report, given["overdraft"], unit, (*path, "overdraft"))
            fields["overdraft_limit"] = overdraft.amount if overdraft else 0
    if len(report.found) > before:
        return None
    try:
        return BudgetSpec(scope=scope, **fields)
    except InvalidRequest as error:
        report.refuse((*path, error.field), error.problem, error.allowed)
        return None


def _scope(report: Report, given: dict[str, Any], path: Path) -> str | None:
    if "scope" not in given:
        report.refuse(path, "has no scope", "scope: " + "/".join(f"{level}:..." for level in LEVELS))
        return None
    if not isinstance(given["scope"], str):
        report.refuse((*path, "scope"), f"{shown(given['scope'])} is not a scope", "text such as tenant:acme/agent:bot")
        return None
    try:
        return parse_scope(given["scope"])
    except InvalidRequest as error:
        report.refuse_as((*path, "scope"), error)
        return None


def _unit(report: Report, value: Any, path: Path) -> str | None:
    try:
        parse_unit(value if isinstance(value, str) else shown(value))
    except InvalidRequest as error:
        report.refuse_as(path, error)
        return None
    return str(value)


def _amount(report: Report, value: Any, unit: str, path: Path) -> Any:
    if value is None:
        report.refuse(path, "is missing", f'an amount in {unit} such as "10"')
        return None
    try:
        return parse_amount_of(value, unit)
    except InvalidRequest as error:
        report.refuse_as(path, error)
        return None


def _period(report: Report, value: Any, path: Path) -> Period | None:
    if value is None:
        return None
    given = {"every": value} if isinstance(value, str) else report.mapping(value, path, Period.model_fields)
    if given is None:
        return None
    if given.get("every") not in _EVERY:
        place = path if isinstance(value, str) else (*path, "every")
        near = difflib.get_close_matches(str(given.get("every")), _EVERY, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        report.refuse(place, f"{shown(given.get('every'))} is not a period{hint}", ", ".join(_EVERY))
        return None
    try:
        return Period(**given)
    except InvalidRequest as error:
        report.refuse((*path, error.field), error.problem, error.allowed)
        return None


def _policy(report: Report, value: Any, path: Path) -> str | None:
    if value is None:
        return None
    name = value.strip().upper().replace("-", "_") if isinstance(value, str) else ""
    if name not in _POLICIES:
        report.refuse(path, f"{shown(value)} is unknown", ", ".join(_POLICIES))
        return None
    return name
