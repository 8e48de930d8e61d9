"""Rates, sizes, slowness and the end of a server."""

from __future__ import annotations

import re
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.server.kit import ADMIN_KEY, World, amount, problem, running
from tests.server.process import Child

from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import InvalidRequest
from clearance.server.limits import RateLimit
from clearance.server.serving import serve, with_admin_key
from clearance.server.settings import Settings
from clearance.store.sqlite import MEMORY, SqliteStore


@pytest.fixture
def small() -> Iterator[World]:
    """A server with little patience."""
    authority = EmbeddedAuthority(SqliteStore(MEMORY), background=False)
    settings = Settings(
        admin_key=ADMIN_KEY,
        requests_per_second=3,
        max_body_bytes=2000,
        max_header_bytes=2000,
        read_seconds=0.4,
        max_streams=1,
    )
    with running(authority, settings) as it, httpx.Client(base_url=it.url, timeout=10) as client:
        yield World(it, client, None)
    authority.close()


def test_a_key_that_asks_too_often_is_told_when_to_come_back(small: World) -> None:
    tenant, other = small.tenant(), small.tenant()
    answers = [tenant.get("/v1/auth/introspect") for _ in range(5)]
    assert [answer.status_code for answer in answers][:3] == [200] * 3
    refused = answers[-1]
    assert problem(refused) == (429, "LIMIT_EXCEEDED")
    assert refused.headers["Retry-After"].isdigit()
    assert refused.headers["X-RateLimit-Remaining"] == "0"
    assert abs(int(refused.headers["X-RateLimit-Reset"]) - time.time()) < 5
    assert len(refused.headers.get_list("X-RateLimit-Remaining")) == 1
    assert other.get("/v1/auth/introspect").headers["X-RateLimit-Remaining"] == "2"
    assert small.admin("GET", "/v1/admin/tenants").status_code == 200


def test_tokens_come_back_with_time() -> None:
    now = [100.0]
    limit = RateLimit(2, lambda: now[0])
    limit.take("a"), limit.take("a")
    with pytest.raises(Exception, match="2 requests a second"):
        limit.take("a")
    now[0] += 0.5
    limit.take("a")
    now[0] -= 50  # a clock that was set back gives nothing and takes nothing
    with pytest.raises(Exception, match="2 requests a second"):
        limit.take("a")


def test_a_body_that_is_too_long_with_and_without_its_length(small: World) -> None:
    tenant = small.tenant()
    assert problem(tenant.request("POST", "/v1/decide", content=b" " * 2001)) == (413, "INVALID_REQUEST")
    chunks = tenant.request("POST", "/v1/decide", content=iter([b" " * 1500] * 2))
    assert problem(chunks) == (413, "INVALID_REQUEST")


def test_headers_that_are_too_long(small: World) -> None:
    assert problem(small.client.get("/healthz", headers={"X-Long": "x" * 3000})) == (431, "INVALID_REQUEST")


def talk(world: World, text: bytes, *, then: bytes = b"") -> bytes:
    host, port = world.running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(text)
        found = b""
        while True:
            try:
                part = connection.recv(65536)
            except ConnectionResetError:
                return found
            if not part:
                return found
            found += part


def test_a_head_without_an_end(small: World) -> None:
    assert b" 431 " in talk(small, b"GET /healthz HTTP/1.1\r\n" + b"x: y\r\n" * 3000)


@pytest.mark.parametrize(
    "text", [b"", b"GET /hea", b"POST /v1/decide HTTP/1.1\r\nHost: x\r\n"], ids=["silent", "line", "head"]
)
def test_a_client_that_dawdles_is_let_go(text: bytes, small: World) -> None:
    began = time.monotonic()
    assert b" 408 " in talk(small, text)
    assert time.monotonic() - began < 3


def test_a_body_that_does_not_come(small: World) -> None:
    key = small.tenant().secret.encode()
    head = b"POST /v1/decide HTTP/1.1\r\nHost: x\r\nX-Cycles-API-Key: " + key + b"\r\nContent-Length: 10\r\n\r\n"
    assert b" 408 " in talk(small, head + b"{")


def test_streams_are_counted(small: World) -> None:
    tenant = small.tenant()
    url = small.running.url + "/v1/x-clearance/stream"
    with httpx.stream("GET", url, headers=tenant.headers) as response:
        lines = response.iter_lines()
        next(lines)
        answer = tenant.get("/v1/x-clearance/stream")
        assert problem(answer) == (429, "LIMIT_EXCEEDED")
        assert answer.headers["Retry-After"] == "5"


# -- a server of its own --------------------------------------------------------------------------


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    it = Child(tmp_path)
    yield it
    if it.process.poll() is None:
        it.process.kill()
        it.process.wait(10)


def reserve_body(key: str) -> dict[str, object]:
    action = {"kind": "llm.completion", "name": "x"}
    return {"idempotency_key": key, "subject": {"tenant": "acme"}, "action": action, "estimate": amount(1)}


def test_the_first_start_makes_an_admin_key_and_tells_it_once(child: Child) -> None:
    told = child.told.read_text()
    assert told.count(child.key) == 1
    assert re.search("listening on http://127.0.0.1:", told)
    assert stat.S_IMODE((child.folder / "admin.key").stat().st_mode) == 0o600
    assert child.admin("GET", "/v1/admin/tenants").status_code == 200
    assert len(set(child.urls)) == 2
    child.end(signal.SIGTERM)
    child.start()
    assert child.key not in child.told.read_text()
    assert child.admin("GET", "/v1/admin/tenants").status_code == 200


def test_what_was_accepted_is_answered_before_the_end(child: Child) -> None:
    """Clients that ask while the server stops see whole answers or closed connections; each answer is in the ledger."""
    headers = child.tenant()
    answered: list[str] = []
    broken: list[str] = []
    begun = threading.Event()

    def ask(worker: int) -> None:
        with httpx.Client(base_url=child.urls[0], headers=headers, timeout=10) as client:
            for number in range(10_000):
                try:
                    answer = client.post("/v1/reservations", json=reserve_body(f"{worker}-{number}"))
                except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
                    broken.append(repr(error))
                    return
                assert answer.status_code == 200, answer.text
                answered.append(answer.json()["reservation_id"])
                begun.set()

    workers = [threading.Thread(target=ask, args=(worker,)) for worker in range(8)]
    for worker in workers:
        worker.start()
    assert begun.wait(10)
    time.sleep(0.3)
    with httpx.stream("GET", child.urls[0] + "/v1/x-clearance/stream", headers={"X-Admin-API-Key": child.key}) as it:
        lines = it.iter_lines()
        next(lines)
        assert child.end(signal.SIGTERM) == 0
    for worker in workers:
        worker.join(20)
    assert answered
    authority = EmbeddedAuthority(SqliteStore(child.folder / "ledger.db"), background=False)
    held = authority.balance("tenant:acme", "TOKENS").reserved
    authority.close()
    # A request whose connection broke before it was read may not have been counted; none was counted twice or lost.
    assert len(answered) <= held <= len(answered) + len(broken)


def test_a_killed_server_has_kept_its_word(child: Child) -> None:
    headers = child.tenant()
    with httpx.Client(base_url=child.urls[0], headers=headers) as client:
        held = [client.post("/v1/reservations", json=reserve_body(str(n))).json()["reservation_id"] for n in range(20)]
        body = {"idempotency_key": "c", "actual": amount(1)}
        client.post(f"/v1/reservations/{held[0]}/commit", json=body)
        assert child.end(signal.SIGKILL) == -signal.SIGKILL
    child.start()
    again = httpx.post(child.urls[0] + f"/v1/reservations/{held[0]}/commit", json=body, headers=headers)
    assert again.status_code == 200
    found = httpx.get(child.urls[0] + "/v1/balances?tenant=acme", headers=headers).json()["balances"][0]
    assert (found["reserved"], found["spent"]) == (amount(19), amount(1))


# -- where it may listen, and with which key ------------------------------------------------------


def test_a_host_for_everybody_needs_a_key_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLEARANCE_ADMIN_KEY", raising=False)
    settings = Settings(admin_key_file=tmp_path / "admin.key")
    with pytest.raises(InvalidRequest, match="without keys"):
        serve(tmp_path / "ledger.db", host="0.0.0.0", port=0, settings=settings, tell=lambda line: None)
    assert not (tmp_path / "admin.key").exists()


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(admin_key=ADMIN_KEY)
        with pytest.raises(InvalidRequest, match="cannot be used"):
            serve(tmp_path / "l.db", port=taken.getsockname()[1], settings=settings, tell=lambda line: None)


def test_the_admin_key_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = EmbeddedAuthority(SqliteStore(MEMORY), background=False)
    settings = Settings(admin_key_file=tmp_path / "admin.key")
    told: list[str] = []
    monkeypatch.setenv("CLEARANCE_ADMIN_KEY", "from-the-environment")
    assert with_admin_key(settings, told.append, False, authority).admin_key == "from-the-environment"
    monkeypatch.setenv("CLEARANCE_ADMIN_KEY", "short")
    with pytest.raises(InvalidRequest, match="too short"):
        with_admin_key(settings, told.append, True, authority)
    assert told == []
    authority.close()
