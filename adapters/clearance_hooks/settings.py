"""What stands under `config:` of the plugin's entry, read and checked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from clearance.config.amounts import parse_amount_of
from clearance.config.prices import read_prices
from clearance.config.problems import Path, Report, shown
from clearance.errors import InvalidRequest
from clearance.model.amount import Amount
from clearance.model.caps import ANY, Caps
from clearance.model.subject import LEVELS, Subject
from clearance_hooks.capabilities import Enforce
from clearance_hooks.secret import Secret

DENY_STYLES = ("completion", "error")
ENFORCE = ("per_call", "per_turn")
DEFAULT_SETTLE_WINDOW_MS = 2_000
DEFAULT_IDLE_RUN_MS = 900_000
MAX_MS = 86_400_000
MAX_TOOLS = 1_000
MAX_TOOL_NAME = 256

_KEYS = (
    "authority",
    *LEVELS,
    "run_budget",
    "enforce",
    "downgrade",
    "tools",
    "max_tool_calls",
    "budget_hint",
    "deny_style",
    "prices",
    "settle_window_ms",
    "idle_run_ms",
)
_TOOL_KEYS = ("cost", "unit", "kind", "max_calls", "approval")
_BARE = re.compile(r"\$([A-Z_][A-Z0-9_]*)", re.ASCII)
_PERCENT = re.compile(r"([0-9]{1,3})%", re.ASCII)


@dataclass(frozen=True, slots=True)
class ToolTerms:
    """One tool. `cost` None: the call is checked, with an amount of 0."""

    cost: Amount | None = None
    kind: str = "tool.call"
    max_calls: int | None = None
    approval: bool = False


@dataclass(frozen=True, slots=True)
class Downgrade:
    """`models`, the dearest first. Below `below_percent` of the run's budget the next one is used at once."""

    models: tuple[str, ...] = ()
    below_percent: int | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """A configuration that is valid.

    Attributes:
        url: the authority's; None for the place that commands use (CLEARANCE_URL, clearance.yaml, the data folder).
        run_budget: held for each attempt of a run, and all that it may spend. None: calls draw on the scopes.
        enforce: None: every call where the host can, else every turn.
        max_tool_calls: of one attempt of a run.
        settle_window_ms: how long after the end of a run usage may still come.
        idle_run_ms: a run that is not heard of for so long counts as over.
        prices, unknown: as in clearance.yaml; None for those of clearance.yaml.
    """

    subject: Subject
    url: str | None = field(default=None, repr=False)  # may carry a password
    token: Secret | None = None
    run_budget: Amount | None = None
    enforce: Enforce | None = None
    downgrade: Downgrade = Downgrade()
    tools: Mapping[str, ToolTerms] = field(default_factory=dict)
    max_tool_calls: int | None = None
    budget_hint: bool = False
    deny_style: str = "completion"
    prices: Mapping[str, Any] | None = None
    unknown: str | Amount = "deny"
    settle_window_ms: int = DEFAULT_SETTLE_WINDOW_MS
    idle_run_ms: int = DEFAULT_IDLE_RUN_MS

    def tool(self, name: str) -> ToolTerms:
        """Those of its own name, else of the longest name with a `*` that stands for it."""
        return self.tools.get(name) or self._like(name) or _UNNAMED_TOOL

    def _like(self, name: str) -> ToolTerms | None:
        fitting = [it for it in self.tools if ANY in it and _pattern(it).needs_approval(name)]
        return self.tools[max(fitting, key=len)] if fitting else None

    @property
    def fingerprint(self) -> str:
        """The same for equal settings; tells nothing of them."""
        hidden = (self.url, None if self.token is None else self.token.reveal())
        return hashlib.sha256(f"{self!r}{hidden!r}".encode()).hexdigest()[:16]


_UNNAMED_TOOL = ToolTerms()


@lru_cache(maxsize=MAX_TOOLS)
def _pattern(name: str) -> Caps:
    """The core's rule for names with a `*`."""
    return Caps(approval_tools=(name,))


def read_settings(report: Report, value: Any, path: Path) -> Settings | None:
    """None after a refusal."""
    before = len(report.found)
    given = report.mapping({} if value is None else value, path, _KEYS)
    if given is None:
        return None
    reader = _Reader(report, path, given)
    url, token = reader.authority()
    prices: dict[str, Any] | None = None
    unknown: str | Amount = "deny"
    if given.get("prices") is not None:
        prices, unknown = read_prices(report, given["prices"], _at(path, "prices"))
    fields: dict[str, Any] = {
        "url": url,
        "token": token,
        "run_budget": reader.money("run_budget"),
        "enforce": reader.choice("enforce", ENFORCE),
        "downgrade": reader.downgrade(),
        "tools": reader.tools(),
        "max_tool_calls": reader.count("max_tool_calls"),
        "budget_hint": reader.truth("budget_hint"),
        "deny_style": reader.choice("deny_style", DENY_STYLES) or "completion",
        "prices": prices,
        "unknown": unknown,
        "settle_window_ms": reader.ms("settle_window_ms", DEFAULT_SETTLE_WINDOW_MS),
        "idle_run_ms": reader.ms("idle_run_ms", DEFAULT_IDLE_RUN_MS),
    }
    subject = reader.subject()
    if subject is None or len(report.found) > before:
        return None
    return Settings(subject=subject, **fields)


def _at(path: Path, *names: str | int) -> Path:
    return (*path, *names)


class _Reader:
    """Each method reads one key of the mapping, refuses what is wrong, and then answers as if it were absent."""

    def __init__(self, report: Report, path: Path, given: Mapping[str, Any]) -> None:
        self.report = report
        self.path = path
        self.given = given

    def subject(self) -> Subject | None:
        levels = {level: self.text(level) for level in LEVELS}
        if not any(levels.values()):
            if not any(self.given.get(level) is not None for level in LEVELS):
                self.refuse("tenant", "is missing: nobody says whose budget it is", "a name such as acme")
            return None
        for level, value in levels.items():
            try:
                Subject(**{level: value} if value else {"tenant": "x"})
            except InvalidRequest as error:
                self.refuse(level, f"{shown(self.given[level])} is not a name", error.allowed)
                return None
        return Subject(**levels)

    def authority(self) -> tuple[str | None, Secret | None]:
        if self.given.get("authority") is None:
            return None, None
        found = self.report.mapping(self.given["authority"], _at(self.path, "authority"), ("url", "token"))
        inner = _Reader(self.report, _at(self.path, "authority"), found or {})
        url, token = inner.text("url"), inner.text("token")
        if found is not None and url is None and "url" not in found:
            inner.refuse("url", "is missing", "sqlite:///path, postgresql://... or http://host:port")
        for name in ("url", "token"):
            given = (found or {}).get(name)
            if type(given) is str and (bare := _BARE.fullmatch(given)):
                inner.refuse(name, f"{shown(given)} is not filled in", f"${{{bare[1]}}}")
        if url is not None and url.startswith(("http://", "https://")) and "token" not in (found or {}):
            inner.refuse("token", "is missing for a server", "an API key, best as ${CLEARANCE_API_KEY}")
        return url, Secret(token) if token else None

    def tools(self) -> dict[str, ToolTerms]:
        given = self.given.get("tools")
        if given is None:
            return {}
        if not isinstance(given, Mapping):
            self.refuse("tools", f"{shown(given)} is not a mapping", "a mapping from a tool's name to its terms")
            return {}
        if len(given) > MAX_TOOLS:
            self.refuse("tools", f"has {len(given)} entries", f"at most {MAX_TOOLS}")
            return {}
        for name in given:
            if not 1 <= len(str(name)) <= MAX_TOOL_NAME:
                self.refuse("tools", f"{shown(name)} is not a tool's name", f"1 to {MAX_TOOL_NAME} characters")
                return {}
        return {str(name): self._tool(str(name), terms) for name, terms in given.items()}

    def _tool(self, name: str, terms: Any) -> ToolTerms:
        path = _at(self.path, "tools", name)
        found = self.report.mapping({} if terms is None else terms, path, _TOOL_KEYS)
        if found is None:
            return ToolTerms()
        inner = _Reader(self.report, path, found)
        return ToolTerms(
            cost=inner.money("cost", inner.text("unit") or "USD"),
            kind=inner.text("kind") or "tool.call",
            max_calls=inner.count("max_calls"),
            approval=inner.truth("approval"),
        )

    def downgrade(self) -> Downgrade:
        given = self.given.get("downgrade")
        if given is None:
            return Downgrade()
        if isinstance(given, list):
            given = {"models": given}
        path = _at(self.path, "downgrade")
        found = self.report.mapping(given, path, ("models", "below"))
        if found is None:
            return Downgrade()
        inner = _Reader(self.report, path, found)
        models = inner.names("models")
        if not models and "models" not in found:
            inner.refuse("models", "is missing", "models, the dearest first")
        return Downgrade(models, inner.percent("below"))

    # --- kinds of values

    def text(self, name: str) -> str | None:
        value = self.given.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip():
            self.refuse(name, f"{shown(value)} is refused", "text, in quotes where YAML reads it as something else")
            return None
        return str.__str__(value)  # plain from here on: what is shown is always taken from `given`

    def money(self, name: str, unit: str = "USD") -> Amount | None:
        value = self.given.get(name)
        if value is None:
            return None
        try:
            return parse_amount_of(value, unit)
        except InvalidRequest as error:
            self.report.refuse_as(_at(self.path, name), error)
            return None

    def names(self, name: str) -> tuple[str, ...]:
        value = self.given.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not value or not all(isinstance(it, str) and it.strip() for it in value):
            self.refuse(name, f"{shown(value)} is refused", "a list of names")
            return ()
        return tuple(str.__str__(it) for it in value)

    def choice(self, name: str, allowed: tuple[str, ...]) -> Any:
        value = self.given.get(name)
        if value is None or value in allowed:
            return value
        self.refuse(name, f"{shown(value)} is unknown", ", ".join(allowed))
        return None

    def count(self, name: str) -> int | None:
        value = self.given.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self.refuse(name, f"{shown(value)} is refused", "a whole number, 0 or more")
            return None
        return value

    def ms(self, name: str, default: int) -> int:
        value = self.count(name)
        if value is not None and value > MAX_MS:
            self.refuse(name, f"{value} is too long", f"at most {MAX_MS} ms")
        return default if value is None else value

    def truth(self, name: str) -> bool:
        value = self.given.get(name)
        if value is not None and not isinstance(value, bool):
            self.refuse(name, f"{shown(value)} is refused", "true, false")
        return value is True

    def percent(self, name: str) -> int | None:
        value = self.given.get(name)
        if value is None:
            return None
        match = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None or not 1 <= int(match[1]) <= 100:
            self.refuse(name, f"{shown(value)} is not a share of the budget", "1% to 100%")
            return None
        return int(match[1])

    def refuse(self, name: str, problem: str, allowed: str = "") -> None:
        self.report.refuse(_at(self.path, name), problem, allowed)
