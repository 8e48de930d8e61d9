"""A person's yes to one tool call: what is asked, how the answer is read, and the way of the yes to the tool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from clearance.errors import ApprovalRequired
from clearance.guard.admission import MAX_APPROVER

KIND = "clearance_approval"
UNNAMED = "unnamed"
"""Stands for the person where the answer was a bare yes."""

_YES = ("yes", "y", "approve", "approved", "true")
_SHOWN = ("arguments_sha256", "arguments_bytes", "arguments")


@dataclass(slots=True)
class Yes:
    """To this call only, and once: what the tool's body calls in turn asks for itself."""

    tool: str
    tool_call_id: str | None
    by: str
    used: bool = False


_yes: ContextVar[Yes | None] = ContextVar("clearance_langchain_yes", default=None)


@contextmanager
def saying(yes: Yes | None) -> Iterator[None]:
    token = _yes.set(yes)
    try:
        yield
    finally:
        _yes.reset(token)


def approver_of(tool: str, tool_call_id: str | None) -> str | None:
    """Who has approved this call; asked once, at the tool's gate."""
    yes = _yes.get()
    if yes is None or yes.used or (yes.tool, yes.tool_call_id) != (tool, tool_call_id):
        return None
    yes.used = True
    return yes.by


def question(needed: ApprovalRequired) -> dict[str, Any]:
    """The payload of the interrupt: the call by hash and size, in clear only what `arguments=` has let through."""
    details = needed.details
    shown = {name: details[name] for name in _SHOWN if name in details}
    return {
        "type": KIND,
        "tool": details["tool"],
        "tool_call_id": details.get("tool_call_id"),
        **shown,
        "reason": needed.message,
        "scope": needed.scope,
    }


def answer(said: object, asked: Mapping[str, Any]) -> tuple[str | None, str]:
    """Who says yes (None: it is a no), and why not.

    `said` is a bool, a word, or {"approved": bool, "by": "...", "reason": "..."}. An "arguments_sha256" in it must be
    that of the call: then a yes is worth nothing for other arguments. What is not clearly a yes is a no.
    """
    if not isinstance(said, Mapping):
        return (UNNAMED if _is_yes(said) else None), ""
    why = said.get("reason")
    reason = why if isinstance(why, str) else ""
    if said.get("arguments_sha256", asked.get("arguments_sha256")) != asked.get("arguments_sha256"):
        return None, "the arguments are not those that were approved"
    if not _is_yes(said.get("approved")):
        return None, reason
    by = said.get("by") or said.get("approved_by")
    return (by.strip()[:MAX_APPROVER] if isinstance(by, str) and by.strip() else UNNAMED), reason


def _is_yes(said: object) -> bool:
    return said is True or (isinstance(said, str) and said.strip().lower() in _YES)
