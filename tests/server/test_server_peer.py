"""The real client of the protocol's authors against this server, where it is installed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import runcycles
from tests.server.kit import Tenant, amount, problem, until


@pytest.fixture
def config(funded: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HOME", str(tmp_path))
    return runcycles.CyclesConfig(base_url=funded.world.running.url, api_key=funded.secret, tenant=funded.name)


def decorated(config: Any, client: Any, **options: Any) -> Any:
    return runcycles.cycles(
        estimate=100, unit="TOKENS", action_kind="llm.completion", action_name="m", client=client, **options
    )


def test_the_decorator(config: Any, funded: Tenant) -> None:
    with runcycles.CyclesClient(config) as client:

        @decorated(config, client, actual=lambda text: len(text))
        def answer() -> str:
            return "x" * 42

        assert answer() == "x" * 42
        until(lambda: funded.balance()["spent"] == amount(42))
        assert funded.balance()["reserved"] == amount(0)

        @decorated(config, client)
        def fails() -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fails()
        until(lambda: funded.balance()["reserved"] == amount(0))


def test_a_denial_is_understood(config: Any, funded: Tenant) -> None:
    ran: list[int] = []
    with runcycles.CyclesClient(config) as client:

        @runcycles.cycles(estimate=5000, unit="TOKENS", action_kind="llm.completion", action_name="m", client=client)
        def costly() -> None:
            ran.append(1)

        with pytest.raises(runcycles.BudgetExceededError):
            costly()
    assert ran == []


def test_async(config: Any, funded: Tenant) -> None:
    async def work() -> None:
        async with runcycles.AsyncCyclesClient(config) as client:

            @decorated(config, client, actual=lambda _: 7)
            async def answer() -> str:
                return "ok"

            assert await asyncio.gather(*(answer() for _ in range(5))) == ["ok"] * 5
            for _ in range(100):
                if funded.balance()["spent"] == amount(35):
                    return
                await asyncio.sleep(0.05)
            raise AssertionError(funded.balance())

    asyncio.run(work())


def test_a_stream_with_a_heartbeat(config: Any, funded: Tenant) -> None:
    with runcycles.CyclesClient(config) as client:
        with client.stream_reservation(
            action=runcycles.Action(kind="llm.completion", name="m"),
            estimate=runcycles.Amount(unit="TOKENS", amount=100),
        ) as held:
            held.usage.set_actual_cost(55)
        assert funded.balance()["spent"] == amount(55)


def test_every_answer_parses_in_its_models(config: Any, funded: Tenant) -> None:
    """Its models refuse unknown fields, so each must be exactly the schema's."""
    models = runcycles
    created = funded.reserve(10).json()
    held = models.ReservationCreateResponse.model_validate(created).reservation_id
    models.DecisionResponse.model_validate(funded.decide(10).json())
    models.ReservationCreateResponse.model_validate(funded.reserve(10, dry_run=True).json())
    models.ReservationExtendResponse.model_validate(funded.settle("extend", held).json())
    models.ReservationDetail.model_validate(funded.get(f"/v1/reservations/{held}").json())
    models.CommitResponse.model_validate(funded.settle("commit", held, actual=amount(3)).json())
    models.ReleaseResponse.model_validate(funded.settle("release", funded.hold(1)).json())
    models.EventCreateResponse.model_validate(funded.event(1).json())
    models.BalanceResponse.model_validate(funded.get("/v1/balances", tenant=funded.name).json())
    # 0.5.3 does not know `committed` and `finalized_at_ms` in lists.
    open_ones = funded.get("/v1/reservations", status="ACTIVE").json()
    models.ReservationListResponse.model_validate(open_ones)
    body = funded.reserve(5000).json()
    assert problem(funded.reserve(5000))[1] in list(models.ErrorCode)
    # 0.5.3 does not know the trace_id that the protocol wants in every error.
    body.pop("trace_id")
    models.ErrorResponse.model_validate(body)
