"""What agent hosts that are not written in Python ask: their hook events, answered in their own words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from clearance.server.bodies import ABSENT, Body
from clearance.server.context import Server
from clearance.server.errors import forbidden
from clearance.server.http import Call, Reply

if TYPE_CHECKING:
    from clearance_hooks.openclaw import Answer, Desk

Facts = dict[str, Any]
MAX_TIMEOUT_MS = 60_000


class HookBody(Body):
    """`config` is what stands under `config:` of the plugin's entry, without `authority`."""

    hook: Annotated[str, Field(min_length=1, max_length=64)]
    event: Facts
    ctx: Facts
    config: Facts
    timeout_ms: Annotated[int, Field(ge=1, le=MAX_TIMEOUT_MS)] = ABSENT


async def openclaw(server: Server, call: Call) -> Reply:
    body = await call.body(HookBody, server.settings)
    tenant = call.principal.tenant
    if body.config.get("tenant", tenant) != tenant:
        raise forbidden("config.tenant is not the tenant of this API key")

    def answer() -> Answer:
        return _desk(server).answer(tenant, body.hook, body.event, body.ctx, body.config, body.timeout_ms)

    return Reply((await server.off_loop(answer)).as_dict())


def _desk(server: Server) -> Desk:
    from clearance_hooks.openclaw import Desk

    return server.once(Desk, lambda: Desk(server.authority))
