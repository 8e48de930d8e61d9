"""Where a scenario is played: a provider that counts, a ledger, a configuration, and a tool that leaves a mark."""

from __future__ import annotations

import json
import socket
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any, Protocol

from clearance.authority.budgets import BudgetSpec
from clearance.connecting import LocalAuthority, open_ledger
from clearance.model.amount import usd
from clearance.model.caps import Caps, CapsRule
from clearance.simulator import Script, ScriptedRequest, Simulator, default_script
from clearance.store.interface import ReservationQuery
from clearance_hooks.activation import shut_down
from clearance_hooks.capabilities import Capabilities

MODEL, CHEAPER_MODEL = "gpt-4o", "gpt-4o-mini"
TOOL = "echo"
SCOPE = "tenant:acme"
_REST_S = 10.0


class Violation(AssertionError):
    """A host did not do what it must."""


@dataclass(frozen=True, slots=True)
class Failure:
    scenario: str
    problem: str

    def __str__(self) -> str:
        return f"{self.scenario}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Reply:
    """What the user of the host sees: the last text, and the error that ended the turn, if one did."""

    text: str = ""
    error: str | None = None


class Driver(Protocol):
    """One host.

    Attributes:
        capabilities: of the host; scenarios that need more are not played.
        names_runs: `run_id` and `attempt` of a turn can be chosen.
        needs_settings: what this host's entry must have beside what a scenario sets, e.g. a `run_budget`.
        turn_s: how long a refused turn may take at the most, the host's own start included.
    """

    capabilities: Capabilities
    names_runs: bool
    needs_settings: Mapping[str, Any]
    turn_s: float

    def turn(self, stage: Stage, prompt: str, *, run_id: str | None = None, attempt: int = 1, loads: int = 1) -> Reply:
        """Play one turn: model `MODEL` at `stage.base_url`, with the one tool `TOOL`, whose body is `stage.echo`.

        `loads` says how often the host loads the plugin before it. Ends only when the host is done with the turn.
        """
        ...


@dataclass
class Stage:
    """One scenario's world. `on_request(number)` is called when the provider gets its n-th request."""

    folder: Path
    capabilities: Capabilities
    needs_settings: Mapping[str, Any]
    script: Script = default_script
    on_request: Callable[[int], object] = lambda number: None
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ledger = f"sqlite:///{self.folder}/ledger.db"
        self.config = self.folder / "host.json"
        self.marks = self.folder / "echo.log"
        self.authority: LocalAuthority = open_ledger(self.ledger, durability="process")
        self.sim = Simulator(script=self._answer)
        self._silent: _SilentServer | None = None

    def __enter__(self) -> Stage:
        self.sim.start()
        self.budget("5.00")
        self.configure()
        return self

    def __exit__(self, *_: object) -> None:
        shut_down()
        self.sim.stop()
        self.authority.close()
        if self._silent is not None:
            self._silent.stop()

    def _answer(self, request: ScriptedRequest) -> Any:
        self.on_request(request.number)
        return self.script(request)

    # --- setting the scene

    def budget(self, amount: str, caps: Caps | None = None) -> None:
        rules = () if caps is None else (CapsRule(caps=caps),)
        self.authority.set_budget(BudgetSpec(scope=SCOPE, allocated=usd(amount), caps=rules))

    def spend_all(self) -> None:
        """From now on there is nothing left, whatever was held is spent."""
        balance = self.authority.balance(SCOPE)
        left = balance.spent + balance.reserved
        self.authority.set_budget(BudgetSpec(scope=SCOPE, allocated=left))

    def configure(self, *, entry: Mapping[str, Any] | None = None, **settings: Any) -> None:
        """Write the host's configuration: the plugin enabled for tenant acme, with these settings over the usual."""
        config = {"authority": {"url": self.ledger}, "tenant": "acme", "settle_window_ms": 200}
        config |= {**self.needs_settings, **settings}
        terms = {"enabled": True, "timeout_ms": 30_000, **(entry or {})}  # a busy machine is no hung handler
        entries = {"clearance": {**terms, "config": config}}
        self.config.write_text(json.dumps({"plugins": {"entries": entries}}))

    def silent_server(self) -> str:
        """The URL of something that takes connections and never answers."""
        self._silent = self._silent or _SilentServer()
        return self._silent.url

    @property
    def base_url(self) -> str:
        return self.sim.base_url

    def echo(self, text: str = "") -> str:
        """The tool's body. It leaves its mark in a file, so that a host in another process counts too."""
        with self.marks.open("a") as marks:
            marks.write(json.dumps(text) + "\n")
        return f"echo: {text}"

    # --- looking

    @property
    def requests(self) -> int:
        assert self.sim.wait_idle(_REST_S), "a request is still in flight"
        return self.sim.stats()["requests"]

    @property
    def tool_runs(self) -> int:
        return len(self.marks.read_text().splitlines()) if self.marks.exists() else 0

    @property
    def spent(self) -> int:
        """Microcents charged to the budget; waits until nothing is held."""
        self.at_rest()
        return self.authority.balance(SCOPE).spent

    @property
    def cost(self) -> int:
        """Microcents that the provider's requests have cost."""
        return self.sim.stats()["cost"]

    def held(self) -> list[str]:
        found = self.authority.reservations(ReservationQuery(status="ACTIVE"), limit=200).items
        return [f"{row.kind} {row.id}" for row in found]

    def calls(self) -> list[Any]:
        """The ledger's rows of model and tool calls."""
        return [row for row in self.authority.reservations(limit=200).items if row.kind == "call"]

    def at_rest(self) -> None:
        deadline = time.monotonic() + _REST_S
        while held := self.held():
            if time.monotonic() > deadline:
                raise Violation(f"still held: {', '.join(held)}")
            time.sleep(0.02)

    # --- what must hold

    def expect(self, *, requests: int, tool_runs: int, charged: str = "cost") -> None:
        """Exactly so many requests and executions, nothing held, a sound ledger, and the money right.

        `charged`: `cost` for exactly what the provider's requests cost, `nothing`, or `any`.
        """
        if self.requests != requests:
            raise Violation(f"expected {requests} provider requests, got {self.requests}")
        if self.tool_runs != tool_runs:
            raise Violation(f"expected {tool_runs} tool executions, got {self.tool_runs}")
        wanted = {"cost": self.cost, "nothing": 0}.get(charged, self.spent)
        if self.spent != wanted:
            raise Violation(f"expected {wanted} microcents charged, got {self.spent}")
        if problems := self.authority.check():
            raise Violation(f"the ledger is not sound: {problems[0]}")


class _SilentServer:
    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self._over = Event()
        self._kept: list[socket.socket] = []
        self._thread = Thread(target=self._accept, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                self._kept.append(self._listener.accept()[0])
            except TimeoutError:
                continue

    def stop(self) -> None:
        self._over.set()
        self._thread.join(1.0)
        for kept in (*self._kept, self._listener):
            kept.close()


@dataclass(frozen=True)
class Scenario:
    """`check` plays it and raises Violation; `needs` are names of capabilities, or `names_runs`."""

    name: str
    check: Callable[[Stage, Driver], None]
    needs: tuple[str, ...] = ()

    def fits(self, driver: Driver) -> bool:
        return all(getattr(driver.capabilities, need, False) or getattr(driver, need, False) for need in self.needs)

    def run(self, driver: Driver, folder: str | Path) -> None:
        place = Path(tempfile.mkdtemp(dir=folder))
        with Stage(place, driver.capabilities, driver.needs_settings) as stage:
            self.check(stage, driver)

    def failure(self, driver: Driver, folder: str | Path) -> Failure | None:
        try:
            self.run(driver, folder)
        except Violation as violation:
            return Failure(self.name, str(violation))
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            return Failure(self.name, f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})")
        return None
