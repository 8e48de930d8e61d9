"""What a plugin may answer, and what the runner makes of all answers. None is always "no opinion"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clearance.errors import InvalidRequest

MAX_TITLE, MAX_DESCRIPTION = 80, 512
DEFAULT_APPROVAL_MS, MAX_APPROVAL_MS = 120_000, 600_000
MAX_MESSAGE = 500
MAX_NAME = 128


@dataclass(frozen=True, slots=True)
class Allow:
    """Go on; the same as None, for those who like to say it."""


@dataclass(frozen=True, slots=True)
class Block:
    """The action must not happen.

    Attributes:
        code: for programs, e.g. `BUDGET_EXCEEDED`.
        message: for people; one sentence. It may reach the end user: no secrets.
    """

    code: str
    message: str = ""

    def __post_init__(self) -> None:
        _text("code", self.code, 64)
        if not isinstance(self.message, str):
            raise InvalidRequest("message", f"is a {type(self.message).__name__}", "text")
        object.__setattr__(self, "message", (self.message or self.code)[:MAX_MESSAGE])


@dataclass(frozen=True, slots=True)
class Caps:
    """The model call may be made, with this model and at most so many tokens of output."""

    model: str | None = None
    max_output_tokens: int | None = None
    provider: str | None = None

    def __post_init__(self) -> None:
        for name in ("model", "provider"):
            if getattr(self, name) is not None:
                _text(name, getattr(self, name), 256)
        _count("max_output_tokens", self.max_output_tokens)


@dataclass(frozen=True, slots=True)
class ModelOverride:
    model: str | None = None
    provider: str | None = None

    def __post_init__(self) -> None:
        for name in ("model", "provider"):
            if getattr(self, name) is not None:
                _text(name, getattr(self, name), 256)


@dataclass(frozen=True, slots=True)
class PromptPatch:
    """Texts are joined in the order of the handlers; `tools_allow` are intersected, None leaves the tools alone."""

    prepend: str = ""
    append: str = ""
    system_append: str = ""
    tools_allow: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("prepend", "append", "system_append"):
            if not isinstance(getattr(self, name), str):
                raise InvalidRequest(name, f"is a {type(getattr(self, name)).__name__}", "text")
        names = self.tools_allow
        if names is not None and not (isinstance(names, tuple | list) and all(isinstance(name, str) for name in names)):
            raise InvalidRequest("tools_allow", "is not a list of names", "names of tools, or None")


@dataclass(frozen=True, slots=True)
class Patch:
    """The tool may run, with these arguments instead."""

    params: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.params, Mapping):
            raise InvalidRequest("params", f"is a {type(self.params).__name__}", "a mapping")


@dataclass(frozen=True, slots=True)
class RequireApproval:
    """A person must say yes first. Unanswered within `timeout_ms` is no."""

    title: str
    description: str = ""
    timeout_ms: int = DEFAULT_APPROVAL_MS

    def __post_init__(self) -> None:
        _text("title", self.title, None)
        object.__setattr__(self, "title", self.title[:MAX_TITLE])
        object.__setattr__(self, "description", str(self.description)[:MAX_DESCRIPTION])
        _count("timeout_ms", self.timeout_ms)
        if not 1 <= self.timeout_ms <= MAX_APPROVAL_MS:
            raise InvalidRequest("timeout_ms", f"{self.timeout_ms} is out of range", f"1 to {MAX_APPROVAL_MS}")


@dataclass(frozen=True, slots=True)
class Approved:
    """A person's yes to a `RequireApproval`, the only answer of an approver that is one. `by`: who, for the ledger."""

    by: str

    def __post_init__(self) -> None:
        _text("by", self.by, MAX_NAME)


# --- what comes out of a hook, all handlers together


@dataclass(frozen=True, slots=True)
class RunVerdict:
    block: Block | None = None


@dataclass(frozen=True, slots=True)
class ModelVerdict:
    """`model`, `provider` and `max_output_tokens` are what the call must be made with; None: as it was asked for."""

    block: Block | None = None
    model: str | None = None
    provider: str | None = None
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class ToolVerdict:
    """`params` are what the tool must be called with. With `approval` it must not be called before a person agrees."""

    block: Block | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    approval: RequireApproval | None = None


def _text(field_name: str, value: object, most: int | None) -> None:
    if not isinstance(value, str) or not value.strip() or (most is not None and len(value) > most):
        limit = "" if most is None else f" of at most {most} characters"
        raise InvalidRequest(field_name, f"{repr(value)[:40]} is refused", f"text{limit}")


def _count(field_name: str, value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise InvalidRequest(field_name, f"{repr(value)[:40]} is refused", "a whole number, 0 or more")
