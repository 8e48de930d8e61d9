"""One authority's guard does not open the door of another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from langchain.agents import create_agent
from langchain_world import World

from clearance.authority.budgets import BudgetSpec
from clearance.connecting import LocalAuthority, open_ledger
from clearance.errors import Denied, InvalidRequest
from clearance.model.amount import usd
from clearance.model.subject import Subject
from clearance_langchain import ClearanceCallbackHandler, ClearanceMiddleware, guard

ACME = Subject(tenant="acme")


@pytest.fixture
def poor() -> Iterator[LocalAuthority]:
    authority = open_ledger("memory://")
    authority.set_budget(BudgetSpec(scope="tenant:acme", allocated=usd("0.00000001")))
    yield authority
    authority.close()


def test_a_handler_still_denies_what_another_authority_guards(world: World, poor: LocalAuthority) -> None:
    model = guard(world.model(), world.authority, ACME)
    with pytest.raises(Denied):
        model.invoke("hi", {"callbacks": [ClearanceCallbackHandler(poor, ACME)]})
    assert world.sim.requests == []


def test_a_middleware_refuses_a_model_that_another_authority_guards(world: World, poor: LocalAuthority) -> None:
    model = guard(world.model(), world.authority, ACME)
    agent = create_agent(model, [], middleware=[ClearanceMiddleware(poor, ACME)])
    with pytest.raises(InvalidRequest, match="another authority"):
        agent.invoke({"messages": [("user", "hi")]})
    assert world.sim.requests == []
