"""The key `prices:`: the user's own prices by model, and what an unknown model costs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from clearance.config.amounts import parse_amount_of
from clearance.config.problems import Path, Report, Unquoted, quoted, shown
from clearance.errors import InvalidRequest
from clearance.model.amount import Amount

UNKNOWN_KEY = "unknown"
_POLICIES = ("deny", "most_expensive")
_ALLOWED = 'deny, most_expensive, or a price in USD for each call such as "0.05"'


def read_prices(report: Report, value: Any, path: Path) -> tuple[dict[str, Any], str | Amount]:
    """The prices by model name, and the policy for unknown models."""
    if value is None:
        return {}, "deny"
    if not isinstance(value, Mapping):
        report.refuse(path, f"{shown(value)} is not a mapping", "unknown: ..., and a mapping for each model's name")
        return {}, "deny"
    models = {name: entry for name, entry in value.items() if name != UNKNOWN_KEY}
    for name, entry in models.items():
        _check_model(report, name, entry, (*path, name))
    if not report.found:
        _check_together(report, models, path)
    return models, _unknown(report, value.get(UNKNOWN_KEY, "deny"), (*path, UNKNOWN_KEY))


def _unknown(report: Report, value: Any, path: Path) -> str | Amount:
    if value in _POLICIES:
        return str(value)
    if isinstance(value, str) and not value.strip()[:1].isdigit():
        near = difflib.get_close_matches(value, _POLICIES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        report.refuse(path, f"{shown(value)} is not a policy{hint}", _ALLOWED)
        return "deny"
    try:
        amount = parse_amount_of(value)
    except InvalidRequest as error:
        report.refuse(path, error.problem, error.allowed if isinstance(value, Unquoted) else _ALLOWED)
        return "deny"
    if not amount.amount:
        report.refuse(path, "would make unknown models free", _ALLOWED)
    return amount


def _check_model(report: Report, name: str, entry: Any, path: Path) -> None:
    from clearance.pricing import ModelPrice

    given = report.mapping(entry, path, ModelPrice.model_fields)
    if given is None:
        return
    for key in ("input", "output"):
        if key not in given:
            report.refuse(path, f"has no {key}", 'USD per million tokens such as "2.50"')
    for key, value in given.items():
        try:
            if isinstance(value, Unquoted):
                raise quoted(value)
            ModelPrice(**{"input": "0", "output": "0", key: value})
        except InvalidRequest as error:
            report.refuse((*path, key), error.problem, error.allowed)


def _check_together(report: Report, models: dict[str, Any], path: Path) -> None:
    from clearance.pricing import Overrides

    try:
        Overrides.parse(models)
    except InvalidRequest as error:
        report.refuse((*path, error.field.removeprefix("prices.")), error.problem, error.allowed)
