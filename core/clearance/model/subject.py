"""Who acts, and the scopes that follow from it."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any

from pydantic import Field, model_validator

from clearance.errors import InvalidRequest
from clearance.model.base import Model

LEVELS = ("tenant", "workspace", "app", "workflow", "agent", "toolset")
"""Scope levels, root first (protocol section 4)."""

DEFAULT_TENANT = "default"
"""The effective tenant of a subject that names none, where no credential supplies one."""

NAME_PATTERN = r"^[a-zA-Z0-9_.-]+$"
MAX_DIMENSIONS = 16

Name = Annotated[str, Field(min_length=1, max_length=128, pattern=NAME_PATTERN)]
DimensionKey = Annotated[str, Field(min_length=1, max_length=128)]
DimensionValue = Annotated[str, Field(max_length=256)]


class Subject(Model):
    """Who acts: at least one of the six levels, and up to 16 free dimensions.

    `scopes` are the cumulative prefixes, root first, in lower case (protocol section 4 and A2); levels that are
    absent are skipped, so `{tenant, agent}` and `{tenant, workspace, agent}` are different scopes.
    """

    tenant: Name | None = None
    workspace: Name | None = None
    app: Name | None = None
    workflow: Name | None = None
    agent: Name | None = None
    toolset: Name | None = None
    dimensions: Annotated[dict[DimensionKey, DimensionValue], Field(max_length=MAX_DIMENSIONS)] = Field(
        default_factory=dict
    )

    @model_validator(mode="after")
    def _has_a_level(self) -> Subject:
        if not any((self.tenant, self.workspace, self.app, self.workflow, self.agent, self.toolset)):
            raise ValueError("a subject needs at least one of " + ", ".join(LEVELS))
        return self

    @cached_property
    def scopes(self) -> tuple[str, ...]:
        segments = [f"{level}:{value.lower()}" for level in LEVELS if (value := getattr(self, level))]
        return tuple("/".join(segments[: i + 1]) for i in range(len(segments)))

    @property
    def scope_path(self) -> str:
        return self.scopes[-1]

    @cached_property
    def tenant_key(self) -> str:
        """The tenant that the ledger is keyed by (protocol A3)."""
        return (self.tenant or DEFAULT_TENANT).lower()

    @cached_property
    def wire(self) -> dict[str, object]:
        """The subject as it was given, without what is absent, in one fixed order."""
        facts: dict[str, object] = {level: value for level in LEVELS if (value := getattr(self, level))}
        if self.dimensions:
            facts["dimensions"] = dict(sorted(self.dimensions.items()))
        return facts

    def narrowed(self, **levels: str | None) -> Subject:
        """The same subject with more levels or dimensions filled in; what is set already stays."""
        fields = {level: getattr(self, level) or levels.get(level) for level in LEVELS}
        return Subject(**fields, dimensions=self.dimensions)


def parse_scope(text: str) -> str:
    """A scope string as the ledger keeps it: known levels in canonical order, lower case.

    Accepts `tenant:acme/agent:bot`; raises InvalidRequest naming the segment that is wrong.
    """
    if not isinstance(text, str):
        raise InvalidRequest("scope", f"is a {type(text).__name__}", "a string such as tenant:acme/agent:bot")
    segments = text.strip().split("/")
    pairs = [_segment(part) for part in segments]
    order = [LEVELS.index(level) for level, _ in pairs]
    if order != sorted(set(order)):
        raise InvalidRequest("scope", f"{text!r} is out of order", "/".join(f"{level}:..." for level in LEVELS))
    levels: dict[str, Any] = dict(pairs)
    return Subject(**levels).scope_path


def _segment(text: str) -> tuple[str, str]:
    level, colon, value = text.partition(":")
    if not colon or level.lower() not in LEVELS:
        raise InvalidRequest("scope", f"{text!r} is not a segment", "level:name with level " + ", ".join(LEVELS))
    return level.lower(), value


def tenant_of(scope: str) -> str:
    """The ledger's tenant of a scope string."""
    level, _, value = scope.partition("/")[0].partition(":")
    return value if level == "tenant" else DEFAULT_TENANT


def covers(scope: str, path: str) -> bool:
    """True if `path` is `scope` or lies below it."""
    return path == scope or path.startswith(scope + "/")
