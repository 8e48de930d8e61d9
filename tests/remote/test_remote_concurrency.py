"""Many callers, threads, event loops and processes on one client."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from clearance.authority.budgets import BudgetSpec
from clearance.errors import BudgetExceeded
from clearance.model.amount import usd
from clearance.model.subject import Subject
from clearance.remote import RemoteAuthority
from clearance.remote.transport import MAX_CONNECTIONS
from remote.conftest import ACME, TOOL, Open, RealServer, records, together
from remote.faulty import FaultyServer

CALLERS = 150


def test_150_async_callers_share_a_bounded_number_of_connections(
    server: FaultyServer, connect: Open, tmp_path: Path
) -> None:
    client = connect(journal=tmp_path, timeout_ms=9_000)

    async def one() -> None:
        async with client.guard(TOOL, "0.01", subject=ACME) as permit:
            await asyncio.sleep(0)
            permit.settle("0.005")

    async def main() -> None:
        await asyncio.gather(*(one() for _ in range(CALLERS)))
        await client.aclose()

    asyncio.run(main())
    assert server.charged == CALLERS * usd("0.005").amount
    assert server.open == []
    assert server.count()["reserve"] == server.count()["commit"] == CALLERS
    assert server.connections <= MAX_CONNECTIONS + 1, "one more for the heartbeat, which is sync"
    assert records(tmp_path) == []


def test_150_async_callers_of_the_real_server_spend_exactly_the_budget(real: RealServer, tmp_path: Path) -> None:
    subject = Subject(tenant="acme", app=f"crowd-{os.getpid()}")
    client = RemoteAuthority(real.url, api_key=real.api_key, journal=tmp_path, timeout_ms=9_000)
    client.set_budget(BudgetSpec(scope=subject.scope_path, allocated=usd(1)))

    async def one() -> int:
        try:
            async with client.guard(TOOL, "0.01", subject=subject):
                return 1
        except BudgetExceeded:
            return 0

    async def main() -> int:
        done = sum(await asyncio.gather(*(one() for _ in range(CALLERS))))
        await client.aclose()
        return done

    granted = asyncio.run(main())
    balance = client.balance(subject.scope_path)
    assert balance.spent == granted * usd("0.01").amount == usd(1).amount
    assert balance.reserved == 0
    client.close()


def test_40_threads(server: FaultyServer, connect: Open, tmp_path: Path) -> None:
    client = connect(journal=tmp_path, timeout_ms=9_000)

    def work(_: int) -> None:
        for _ in range(5):
            with client.guard(TOOL, "0.01", subject=ACME):
                pass

    assert together(40, work) == []
    assert server.charged == 200 * usd("0.01").amount
    assert server.open == []
    assert server.connections <= MAX_CONNECTIONS


def test_one_client_serves_one_event_loop_after_the_other(server: FaultyServer, connect: Open) -> None:
    client = connect()

    async def one() -> None:
        await client.areserve(ACME, TOOL, usd("0.01"))
        await client.aclose()

    for _ in range(3):
        asyncio.run(one())
    client.reserve(ACME, TOOL, usd("0.01"))
    assert server.count()["reserve"] == 4, "nothing is sent twice"


def test_a_connection_that_the_server_has_closed_is_not_an_outage(server: FaultyServer, connect: Open) -> None:
    client = connect()
    client.reserve(ACME, TOOL, usd("0.01"))
    for writer in list(server._writers):
        server._loop.call_soon_threadsafe(writer.transport.abort)
    time.sleep(0.05)
    client.reserve(ACME, TOOL, usd("0.01"))
    assert server.count()["reserve"] == 2


def test_sequential_calls_use_one_connection(server: FaultyServer, connect: Open) -> None:
    client = connect()
    for _ in range(20):
        client.reserve(ACME, TOOL, usd("0.01"))
    assert server.connections == 1


def test_a_cancelled_commit_is_kept_and_made_later(server: FaultyServer, connect: Open, tmp_path: Path) -> None:
    client = connect(journal=tmp_path)
    server.fail("commit", "hang")

    async def main() -> None:
        held = await client.areserve(ACME, TOOL, usd(1))
        task = asyncio.create_task(client.acommit(held.reservation_id or "", usd("0.5")))
        await asyncio.to_thread(server.wait_for, "commit")
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await client.aclose()

    asyncio.run(main())
    assert len(records(tmp_path)) == 1
    assert client.flush(5)
    assert server.charged == usd("0.5").amount
    assert len({key for _, key in server.settlements()}) == 1


def test_a_forked_child_has_connections_of_its_own(server: FaultyServer, connect: Open, tmp_path: Path) -> None:
    client = connect(journal=tmp_path, background=True)
    client.reserve(ACME, TOOL, usd("0.01"))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for _ in range(5):
                with client.guard(TOOL, "0.01", subject=ACME):
                    pass
            status = 0
        finally:
            os._exit(status)
    for _ in range(20):
        client.reserve(ACME, TOOL, usd("0.01"))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert server.count()["reserve"] == 26
    assert server.count()["commit"] == 5
    assert server.connections == 2
