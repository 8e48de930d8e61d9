"""What a host tells its plugins. Everything is frozen; sizes and names only, no prompts and no answers.

Times are in ms, token counts are whole numbers. Names are OpenClaw's where it has them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from clearance.errors import InvalidRequest
from clearance.pricing.usage import Usage

CallOutcome = Literal["ok", "error", "cancelled", "blocked"]
ToolOutcome = Literal["ok", "error", "cancelled", "blocked", "denied"]
"""`blocked`: a gate said no, so nothing ran. `denied`: a person refused the approval, so nothing ran."""

MODEL_OUTCOMES = ("ok", "error", "cancelled", "blocked")
TOOL_OUTCOMES = (*MODEL_OUTCOMES, "denied")
_PLAIN = (str, int, float, bool, type(None))


class Caller:
    """Who waits for a handler's answer; `gone` when nobody does any more (cancelled, timed out)."""

    __slots__ = ("gone",)

    def __init__(self) -> None:
        self.gone = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HookContext:
    """Where an event happens.

    Attributes:
        run_id: the host's id of the agent run. The same run may be tried several times: see `attempt`.
        attempt: 1 for the first try of the run; a retry has the same `run_id` and the next number.
        agent_id: which of the host's agents acts; it narrows the configured subject.
        parent_run_id: for a sub-agent, the run that started it.
        deadline: when the host stops waiting, in seconds of `time.monotonic()`, or None.
        caller: set by the runner, for `is_abandoned`.
    """

    run_id: str
    attempt: int = 1
    host: str = ""
    session_key: str | None = None
    agent_id: str | None = None
    parent_run_id: str | None = None
    tenant: str | None = None
    workspace: str | None = None
    app: str | None = None
    workflow: str | None = None
    agent: str | None = None
    toolset: str | None = None
    requester: str | None = None
    trace: str | None = None
    deadline: float | None = None
    caller: Caller | None = field(default=None, repr=False, compare=False)

    @property
    def is_abandoned(self) -> bool:
        """Nobody waits for the answer any more. A handler that has got hold of something then gives it back itself."""
        if self.caller is not None and self.caller.gone:
            return True
        return self.deadline is not None and time.monotonic() > self.deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class BeforeModelResolve:
    prompt_chars: int = 0
    attachments: int = 0
    requested_model: str | None = None
    provider: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BeforePromptBuild:
    """`tools` are the names that the model would be shown."""

    prompt_chars: int = 0
    tools: tuple[str, ...] = ()
    model: str | None = None
    provider: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BeforeAgentRun:
    prompt_chars: int = 0
    model: str | None = None
    provider: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BeforeModelCall:
    """One request to a provider is about to be made.

    Attributes:
        call_id: unique among the calls of this attempt of the run; a retry of the request has a new one.
        model: None where the host does not say; it is then priced by the policy for unknown models.
        est_input_tokens: an upper bound; the bytes of the whole request are one. None: the model's context window.
        max_output_tokens: what the request asks for, None without a limit.
    """

    call_id: str
    model: str | None = None
    provider: str | None = None
    est_input_tokens: int | None = None
    max_output_tokens: int | None = None
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AfterModelCall:
    """The request has ended. Order does not matter: it may come after the next gate, or after `agent_end`.

    Attributes:
        usage: what the provider reported, None where it did not.
        model: the model that served, None where that is not known.
        status_code: the provider's HTTP status for an error, where there was one.
        error: the type name of the error.
    """

    call_id: str
    outcome: CallOutcome = "ok"
    usage: Usage | None = None
    model: str | None = None
    provider: str | None = None
    duration_ms: int | None = None
    status_code: int | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        _one_of(self.outcome, MODEL_OUTCOMES)


@dataclass(frozen=True, slots=True, kw_only=True)
class BeforeToolCall:
    """A tool is about to run.

    Attributes:
        params: its arguments, JSON-able. Every handler gets a copy of its own.
        tool_call_id: unique among the tool calls of this attempt of the run that are in flight.
        approved_by: who has approved this call, when it is asked for the second time.

    No arguments (None) are {}. Arguments of another kind are kept as they are: the gate refuses the call.
    """

    tool: str
    params: Mapping[str, Any] = field(default_factory=dict)
    tool_call_id: str = ""
    approved_by: str | None = None

    def __post_init__(self) -> None:
        if self.params is None:
            object.__setattr__(self, "params", {})
        if self.approved_by is not None and not (isinstance(self.approved_by, str) and self.approved_by.strip()):
            raise InvalidRequest("approved_by", f"{self.approved_by!r} names nobody", "a name, or None")


@dataclass(frozen=True, slots=True, kw_only=True)
class AfterToolCall:
    """A tool call has ended, or was not made (`blocked`, `denied`). `result_meta` has sizes, never the result."""

    tool: str
    tool_call_id: str = ""
    outcome: ToolOutcome = "ok"
    result_meta: Mapping[str, Any] = field(default_factory=dict)
    duration_ms: int | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        _one_of(self.outcome, TOOL_OUTCOMES)
        if not isinstance(self.result_meta, Mapping):
            raise InvalidRequest("result_meta", f"is a {type(self.result_meta).__name__}", "a mapping")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEnd:
    """One attempt of a run is over."""

    success: bool = True
    error: str | None = None
    duration_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubagentStarted:
    child_run_id: str
    agent_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubagentEnded:
    child_run_id: str
    outcome: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStarted:
    session_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded:
    session_key: str
    reason: str | None = None


def isolated(event: Any) -> Any:
    """The event for one handler: whatever it does to it, the others do not see."""
    if isinstance(event, BeforeToolCall):
        return replace(event, params=copied(event.params))
    if isinstance(event, AfterToolCall):
        return replace(event, result_meta=copied(event.result_meta))
    return event


def params_problem(params: object) -> str | None:
    """Why nobody can be asked about these arguments of a tool."""
    if not isinstance(params, Mapping):
        return f"are a {type(params).__name__}, not a mapping from names to values"
    if not all(isinstance(name, str) for name in params):
        return "have a name that is not text"
    if all(isinstance(value, _PLAIN) for value in params.values()):
        return None
    try:
        json.dumps(copied(params), default=str)
    except Exception as error:  # of whatever the values are
        return f"cannot be copied and written down ({type(error).__name__})"
    return None


def copied(values: Mapping[str, Any]) -> dict[str, Any]:
    plain = dict(values)
    return plain if all(isinstance(value, _PLAIN) for value in plain.values()) else deepcopy(plain)


def _one_of(outcome: str, allowed: tuple[str, ...]) -> None:
    if outcome not in allowed:
        raise InvalidRequest("outcome", f"{outcome!r} is unknown", ", ".join(allowed))
