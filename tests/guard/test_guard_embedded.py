"""Guards on the embedded authority: the money is right at the end."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest

from clearance.errors import BudgetExceeded, Killed
from clearance.guard import acting_as
from clearance.model.amount import usd


def spent(real: Any) -> int:
    balance = real.balance("tenant:acme")
    assert balance.reserved == 0
    return int(balance.spent)


def test_a_run_spends_what_its_calls_cost(real: Any, acme: Any) -> None:
    work = real.guard("tool.call:x", usd("0.05"), actual=usd("0.02"))(lambda: 42)
    with real.run(acme, budget=usd(5)) as run:
        work()
        with real.run(budget=usd(1)):
            work()
        with pytest.raises(BudgetExceeded):
            real.guard("tool.call:x", usd(6))(lambda: pytest.fail("ran"))()
    assert spent(real) == usd("0.04").amount == run.report().spent().amount
    assert real.open() == []


def test_a_refused_overage_is_charged_in_full(real: Any, acme: Any) -> None:
    dear = real.guard("tool.call:x", usd("0.05"), subject=acme, overage_policy="REJECT", actual=usd(1))
    dear(lambda: 42)()
    assert spent(real) == usd(1).amount


def test_observed_spend_is_charged(real: Any, acme: Any) -> None:
    real.set_funds(usd(2).amount)
    observed = real.guard("tool.call:x", usd(3), subject=acme, dry_run="observe", actual=usd(1))
    assert observed(lambda: 42)() == 42
    assert spent(real) == usd(1).amount


def test_two_hundred_tasks_a_third_cancelled(real: Any, acme: Any) -> None:
    @real.guard("tool.call:x", usd("0.05"), actual=usd("0.02"), subject=acme)
    async def work() -> None:
        await asyncio.sleep(0.01)

    async def cancel_soon(task: asyncio.Task[None], n: int) -> None:
        await asyncio.sleep(0.0007 * (n % 40))
        task.cancel()

    async def main() -> None:
        tasks = [asyncio.create_task(work()) for _ in range(200)]
        killers = [asyncio.create_task(cancel_soon(task, n)) for n, task in enumerate(tasks) if n % 3 == 0]
        results = await asyncio.gather(*tasks, *killers, return_exceptions=True)
        assert {type(result).__name__ for result in results} <= {"NoneType", "CancelledError"}

    asyncio.run(main())
    assert real.flush(5)
    assert real.open() == []
    kinds = Counter((row.status, row.actual) for page in pages(real) for row in page)
    assert set(kinds) <= {("COMMITTED", usd("0.02").amount), ("COMMITTED", usd("0.05").amount), ("RELEASED", None)}
    assert spent(real) == sum((actual or 0) * n for (_, actual), n in kinds.items())


def pages(real: Any) -> Any:
    page = real.reservations(limit=200)
    yield page.items
    while page.next_cursor:
        page = real.reservations(limit=200, cursor=page.next_cursor)
        yield page.items


def test_threads_with_mixed_ends(real: Any, acme: Any) -> None:
    def body(n: int) -> None:
        if n % 3 == 0:
            raise ValueError

    work = real.guard("tool.call:x", 5, actual=2)(body)

    def loop() -> None:
        with acting_as(acme):
            for n in range(60):
                with suppress(ValueError):
                    work(n)

    threads = [threading.Thread(target=loop) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert spent(real) == 6 * (20 * 5 + 40 * 2)
    assert real.open() == []


def test_a_kill_ends_async_work_on_the_way(real: Any, acme: Any) -> None:
    async def main() -> None:
        async with real.run(acme, budget=usd(1)) as run:
            with pytest.raises(Killed):
                await work(run)
            with pytest.raises(Killed):
                real.guard("tool.call:y", 5)(lambda: pytest.fail("ran"))()
            assert run.stopped is not None

    async def work(run: Any) -> None:
        async with real.guard("tool.call:x", 5):
            await asyncio.to_thread(real.kill, f"run:{run.id}", reason="loop", actor="ada")
            await asyncio.sleep(30)

    asyncio.run(main())
    assert spent(real) == 5
    assert real.open() == []
