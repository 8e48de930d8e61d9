"""What each host lets a plugin do: what `clearance hosts doctor` prints. A setting that needs more is refused."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from clearance.errors import InvalidRequest
from clearance_hooks.events import BeforeModelCall

Enforce = Literal["per_call", "per_turn"]
Approvals = Literal["ask", "deny"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """One host.

    Attributes:
        id: as it stands in the configuration, e.g. `hermes`.
        turn: a run can be refused before it begins.
        model_call: every single model call can be refused.
        tool: every tool call can be refused.
        overrides_model: a call, or where calls cannot be gated a turn, can be sent to another model.
        caps_output: a model call can be given a lower limit of output.
        patches_params: a tool call can be given other arguments.
        patches_prompt: text can be added to the prompt.
        hides_tools: tools can be kept from the model.
        approvals: `ask`: a person can be asked; `deny`: what needs an approval is denied.
        stops_in_flight: a kill cancels work in flight; otherwise it refuses what comes next.
        raises: `deny_style: error` makes a refused run or model call raise.
        fail_open: the host goes on when a plugin raises, so its adapter never does.
    """

    id: str
    name: str
    turn: bool = False
    model_call: bool = False
    tool: bool = False
    overrides_model: bool = False
    caps_output: bool = False
    patches_params: bool = False
    patches_prompt: bool = False
    hides_tools: bool = False
    approvals: Approvals = "deny"
    stops_in_flight: bool = False
    raises: bool = False
    fail_open: bool = False

    def refusal(self, asked: BeforeModelCall, capped: BeforeModelCall) -> str | None:
        """Why this host cannot make the capped call instead of the one that was asked for."""
        if (asked.model, asked.provider) != (capped.model, capped.provider) and not self.overrides_model:
            return f"{self.name} cannot change the model of a call; allowed is {capped.model}"
        if asked.max_output_tokens != capped.max_output_tokens and not self.caps_output:
            return f"{self.name} cannot limit the output of a call to {capped.max_output_tokens} tokens"
        return None

    def enforces(self, enforce: Enforce) -> bool:
        return self.model_call if enforce == "per_call" else self.turn and not self.model_call

    def as_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


MINIHOST = Capabilities(
    id="minihost",
    name="MiniHost",
    turn=True,
    model_call=True,
    tool=True,
    overrides_model=True,
    caps_output=True,
    patches_params=True,
    patches_prompt=True,
    hides_tools=True,
    approvals="ask",
    raises=True,
)
PYDANTIC_AI = Capabilities(
    id="pydantic-ai",
    name="Pydantic AI",
    turn=True,
    model_call=True,
    tool=True,
    overrides_model=True,
    caps_output=True,
    patches_params=True,
    patches_prompt=True,
    hides_tools=True,
    approvals="ask",
    raises=True,
)
HERMES = Capabilities(
    id="hermes",
    name="Hermes Agent",
    turn=True,
    model_call=True,
    tool=True,
    overrides_model=True,
    caps_output=True,
    patches_prompt=True,
    hides_tools=True,
    fail_open=True,
)
OPENCLAW = Capabilities(
    id="openclaw",
    name="OpenClaw",
    turn=True,
    model_call=False,
    tool=True,
    overrides_model=True,
    patches_params=True,
    patches_prompt=True,
    hides_tools=True,
    approvals="ask",
)

HOSTS: dict[str, Capabilities] = {host.id: host for host in (MINIHOST, HERMES, PYDANTIC_AI, OPENCLAW)}


def capabilities_of(host: str) -> Capabilities:
    """Raises InvalidRequest for a host that is not in the table."""
    if host not in HOSTS:
        raise InvalidRequest("host", f"{host!r} is not known", ", ".join(HOSTS))
    return HOSTS[host]
