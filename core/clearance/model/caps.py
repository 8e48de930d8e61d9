"""Limits that come with ALLOW_WITH_CAPS."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field

from clearance.model.base import Model

Count = Annotated[int, Field(ge=0, le=2**63 - 1, strict=True)]
ToolName = Annotated[str, Field(min_length=1, max_length=256)]
MAX_NAMES = 256


class Caps(Model):
    """What the caller must keep to. Absent means no limit.

    `models` lists the models that may be used, the preferred first. `approval_tools` lists the tools of which each call
    needs a person's approval; a `*` in a name stands for any text. These two are ours, the rest is the protocol's
    `Caps`.
    """

    max_tokens: Count | None = None
    max_steps_remaining: Count | None = None
    tool_allowlist: Annotated[tuple[ToolName, ...], Field(max_length=MAX_NAMES)] = ()
    tool_denylist: Annotated[tuple[ToolName, ...], Field(max_length=MAX_NAMES)] = ()
    cooldown_ms: Count | None = None
    models: Annotated[tuple[ToolName, ...], Field(max_length=MAX_NAMES)] = ()
    approval_tools: Annotated[tuple[ToolName, ...], Field(max_length=MAX_NAMES)] = ()

    def allows_tool(self, name: str) -> bool:
        """A non-empty allowlist decides alone, else the denylist (protocol section 3, `Caps`)."""
        if self.tool_allowlist:
            return name in self.tool_allowlist
        return name not in self.tool_denylist

    def needs_approval(self, name: str) -> bool:
        return any(_matches(name, pattern) for pattern in self.approval_tools)

    def of_the_protocol(self, name: str) -> Caps:
        """The same for a client that knows the protocol's caps only, about to use `name`.

        What needs an approval, which it cannot give, is denied; the models cannot be told.
        """
        if not self.approval_tools:
            return self.model_copy(update={"models": ()})
        allow = tuple(tool for tool in self.tool_allowlist if not self.needs_approval(tool))
        deny = {*self.tool_denylist, *(tool for tool in self.approval_tools if ANY not in tool)}
        if self.needs_approval(name):
            deny.add(name)
        lists = {
            "tool_allowlist": allow or ((NO_TOOL,) if self.tool_allowlist else ()),
            "tool_denylist": () if self.tool_allowlist else tuple(sorted(deny)),
        }
        return self.model_copy(update={"models": (), "approval_tools": (), **lists})

    @property
    def of_tools(self) -> Caps:
        """Only what it says of tools."""
        return Caps(
            tool_allowlist=self.tool_allowlist, tool_denylist=self.tool_denylist, approval_tools=self.approval_tools
        )

    @property
    def wire(self) -> dict[str, object]:
        return self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)


class CapsRule(Model):
    """Caps on a budget: always, or once less than `below_percent` of the allocation remains."""

    caps: Caps
    below_percent: Annotated[int, Field(ge=1, le=100, strict=True)] | None = None

    def applies(self, remaining: int, allocated: int) -> bool:
        return self.below_percent is None or remaining * 100 < allocated * self.below_percent


ANY = "*"
NO_TOOL = "(no tool)"
"""Stands in an allowlist whose intersection is empty: an empty list would mean that every tool is allowed."""


def merge(all_caps: Iterable[Caps]) -> Caps | None:
    """The tightest of all: numbers by minimum, allowed names by intersection, denied names and approvals by union."""
    found = list(all_caps)
    if len(found) < 2:
        return found[0] if found else None
    denied = {name for caps in found for name in caps.tool_denylist}
    allow = _intersect(caps.tool_allowlist for caps in found)
    if allow is not None:
        allow = tuple(name for name in allow if name not in denied) or (NO_TOOL,)
    models = _intersect(caps.models for caps in found)
    return Caps(
        max_tokens=_least(caps.max_tokens for caps in found),
        max_steps_remaining=_least(caps.max_steps_remaining for caps in found),
        tool_allowlist=allow or (),
        tool_denylist=() if allow else tuple(sorted(denied)),
        cooldown_ms=max((caps.cooldown_ms for caps in found if caps.cooldown_ms is not None), default=None),
        models=(NO_TOOL,) if models == () else models or (),
        approval_tools=tuple(sorted({name for caps in found for name in caps.approval_tools})),
    )


def _matches(name: str, pattern: str) -> bool:
    if ANY not in pattern:
        return name == pattern
    return fnmatchcase(name, pattern.replace("[", "[[]").replace("?", "[?]"))


def _least(values: Iterable[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _intersect(lists: Iterable[tuple[str, ...]]) -> tuple[str, ...] | None:
    """None when no list restricts, else the common names in the order of the first."""
    limiting = [names for names in lists if names]
    if not limiting:
        return None
    return tuple(name for name in limiting[0] if all(name in names for names in limiting))
