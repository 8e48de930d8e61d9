from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.cli.served import ADMIN_KEY, Served, Tenant
from tests.server.kit import unique

import clearance
from clearance.authority.budgets import BudgetSpec
from clearance.cli import main
from clearance.connecting import LocalAuthority, connect
from clearance.model.action import action
from clearance.model.amount import usd
from clearance.model.subject import Subject


@dataclass
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Answer]


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has a folder, a ledger and a home of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLEARANCE_URL", f"sqlite:///{tmp_path}/ledger.db")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("CLEARANCE_DEBUG", raising=False)
    # The source may be on the path by a relative name; processes of their own start in another folder.
    monkeypatch.setenv("PYTHONPATH", str(Path(clearance.__file__).resolve().parents[1]))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command line in this process; a traceback is never right."""

    def run(*arguments: str) -> Answer:
        capsys.readouterr()
        code = main(list(arguments))
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Answer(code, out, err)

    return run


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger that is made once and copied for every test."""
    path = tmp_path_factory.mktemp("template") / "ledger.db"
    assert main(["--ledger", str(path), "budget", "set", "tenant:acme", "10"]) == 0
    assert main(["--ledger", str(path), "budget", "set", "tenant:acme/agent:bot", "5"]) == 0
    return path


@pytest.fixture
def ledger(tmp_path: Path, _template: Path) -> Iterator[LocalAuthority]:
    """The ledger that the command line uses, with 10 USD for acme, 5 of them for its bot."""
    shutil.copy(_template, tmp_path / "ledger.db")
    opened = connect(tmp_path / "ledger.db")
    yield opened
    opened.close()


@pytest.fixture
def hold(ledger: LocalAuthority) -> Callable[..., str]:
    """Reserve for acme's bot; answers the reservation's id."""

    def reserve(amount: str = "1.00", name: str = "gpt-4o") -> str:
        bot = Subject(tenant="acme", agent="bot")
        held = ledger.reserve(bot, action(f"llm.completion:{name}"), usd(amount)).reservation_id
        assert held is not None
        return held

    return reserve


def figures(authority: LocalAuthority) -> dict[str, tuple[int, int, int, int]]:
    """Of every budget: allocated, reserved, spent, debt."""
    return {
        f"{it.scope} {it.unit}": (it.allocated, it.reserved, it.spent, it.debt) for it in authority.balances().items
    }


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One `clearance serve` for all tests, each of which has tenants of its own."""
    made = Served(tmp_path_factory.mktemp("served"))
    yield made
    made.stop()


@pytest.fixture
def acme(served: Served, monkeypatch: pytest.MonkeyPatch) -> Tenant:
    """A tenant with 10 USD; the commands talk to the server with the operator's key."""
    monkeypatch.setenv("CLEARANCE_URL", served.url)
    monkeypatch.setenv("CLEARANCE_ADMIN_KEY", ADMIN_KEY)
    monkeypatch.delenv("CLEARANCE_API_KEY", raising=False)
    made = served.tenant(unique("acme"))
    with made.agent() as agent:
        agent.set_budget(BudgetSpec(scope=made.scope, allocated=usd("10")))
    return made


@pytest.fixture
def as_tenant(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """From here on the commands have a tenant's key alone."""

    def change(tenant: Tenant = acme) -> None:
        monkeypatch.delenv("CLEARANCE_ADMIN_KEY")
        monkeypatch.setenv("CLEARANCE_API_KEY", tenant.secret)

    return change
