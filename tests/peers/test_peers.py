"""The protocol authors' own packages for agent frameworks against our server, from an environment of their own
(`make peers` builds it). Model requests are counted at the provider, holds and charges at the ledger.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.server.kit import ADMIN_KEY, Tenant, World, running

from clearance.authority.budgets import BudgetSpec
from clearance.authority.embedded import EmbeddedAuthority
from clearance.model.amount import Amount, risk_points, usd
from clearance.server.settings import Settings
from clearance.simulator import Simulator, ToolCall, sequence
from clearance.store.interface import EventQuery, ReservationQuery
from clearance.store.sqlite import MEMORY, SqliteStore

HERE = Path(__file__).parent
PYTHON = Path(os.environ.get("CLEARANCE_PEERS_PYTHON") or HERE.parents[1] / ".venvs" / "peers" / "bin" / "python")
SEARCHES_ONCE = [ToolCall("search", {"query": "x"}), "done"]
TWO_CALLS_AND_A_TOOL = 3


class Place:
    """A server, a provider and a tenant, and what they counted."""

    def __init__(self, world: World, provider: Simulator, home: Path) -> None:
        self.world, self.provider, self._home = world, provider, home
        self.tenant: Tenant = world.tenant("acme")

    @property
    def authority(self) -> EmbeddedAuthority:
        return self.world.running.authority

    def run(self, script: str, mode: str) -> dict[str, Any]:
        assert PYTHON.exists(), f"{PYTHON} is not there; `make peers` builds it"
        words = [str(PYTHON), str(HERE / script), self.world.running.url, self.tenant.secret, self.provider.base_url]
        clean = {"PATH": os.environ["PATH"], "HOME": str(self._home), "LANGSMITH_TRACING": "false"}
        done = subprocess.run([*words, mode], env=clean, cwd=self._home, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    def fund(self, money: Amount) -> None:
        """One of the two counts its tools in risk points."""
        self.authority.set_budget(BudgetSpec(scope="tenant:acme", allocated=money))
        self.authority.set_budget(BudgetSpec(scope="tenant:acme", allocated=risk_points(10**9)))

    def held(self) -> list[str]:
        """The states of all holds that there ever were."""
        return sorted(it.status for it in self.authority.reservations(ReservationQuery()).items)

    def charged(self) -> int:
        events = self.authority.events(EventQuery(types=("reservation.committed", "spend.recorded")))
        return sum(int(it.data["charged"]) for it in events if it.data["unit"] == usd(0).unit)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    authority = EmbeddedAuthority(SqliteStore(MEMORY))
    with (
        running(authority, Settings(admin_key=ADMIN_KEY)) as it,
        httpx.Client(base_url=it.url, timeout=20) as client,
        Simulator(script=sequence(SEARCHES_ONCE, then="done")) as provider,
    ):
        yield Place(World(it, client, None), provider, tmp_path)
    authority.close()


SCRIPTS = [
    ("langchain_agent.py", "sync"),
    ("langchain_agent.py", "async"),
    ("openai_agent.py", "run"),
    ("openai_agent.py", "stream"),
]


@pytest.mark.parametrize(("script", "mode"), SCRIPTS)
def test_its_whole_lifecycle_runs_against_our_server(place: Place, script: str, mode: str) -> None:
    place.fund(usd(10))
    answer = place.run(script, mode)
    assert answer == {"said": "done", "tool_ran": 1}
    assert place.provider.stats()["requests"] == 2
    assert place.held() == ["COMMITTED"] * TWO_CALLS_AND_A_TOOL
    balance = place.authority.balance("tenant:acme")
    assert (balance.spent, balance.reserved) == (place.charged(), 0)
    assert balance.spent > 0


@pytest.mark.parametrize(("script", "mode"), SCRIPTS)
def test_our_denial_stops_it_before_the_provider_is_asked(place: Place, script: str, mode: str) -> None:
    place.fund(usd("0.00000001"))
    answer = place.run(script, mode)
    assert "done" not in answer["said"]
    assert answer["tool_ran"] == 0
    assert place.provider.stats()["requests"] == 0
    assert place.held() == []
    assert place.charged() == 0


@pytest.mark.parametrize(("script", "mode"), SCRIPTS)
def test_it_is_stopped_between_its_steps_by_our_stop_button(place: Place, script: str, mode: str) -> None:
    place.fund(usd(10))
    place.authority.kill("tenant:acme", reason="enough")
    answer = place.run(script, mode)
    assert answer["tool_ran"] == 0
    assert place.provider.stats()["requests"] == 0
    place.authority.resume("tenant:acme", reason="go on")
    assert place.run(script, mode)["said"] == "done"
