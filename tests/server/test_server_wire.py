"""Requests as bytes: what clients send in one packet, in pieces, in old versions of HTTP, and what comes back."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator

import pytest
from tests.server.kit import ACTION, Tenant, amount

from clearance.server.openapi import document
from clearance.server.openapi_answers import ANSWERS, OTHER_TYPES
from clearance.server.routes import ROUTES


class Line:
    """One connection, read answer by answer."""

    def __init__(self, url: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10)
        self._buffer = b""

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.socket.sendall(part)
            time.sleep(0.02 if len(parts) > 1 else 0)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers["content-length"])
        while len(self._buffer) < length:
            self._more()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return int(first.split(" ")[1]), headers, body

    def _more(self) -> None:
        data = self.socket.recv(65536)
        assert data, "the connection ended"
        self._buffer += data

    def ended(self) -> bool:
        return self.socket.recv(1) == b""


@pytest.fixture
def line(funded: Tenant) -> Iterator[Line]:
    made = Line(funded.world.running.url)
    yield made
    made.socket.close()


def reserve(tenant: Tenant, *headers: str, version: str = "1.1", body: bytes | None = None) -> bytes:
    facts = {"subject": tenant.subject(), "action": ACTION, "estimate": amount(1), "idempotency_key": tenant.key()}
    raw = body or json.dumps(facts).encode()
    lines = [f"POST /v1/reservations HTTP/{version}", "Host: x", f"X-Cycles-API-Key: {tenant.secret}", *headers]
    lines += ["Content-Type: application/json", f"Content-Length: {len(raw)}", "", ""]
    return "\r\n".join(lines).encode() + raw


def test_an_answer_has_each_header_once_and_a_date(funded: Tenant, line: Line) -> None:
    line.send(reserve(funded))
    status, headers, body = line.answer()
    assert status == 200
    assert json.loads(body)["decision"] == "ALLOW"
    assert {"date", "x-request-id", "x-cycles-trace-id", "x-cycles-tenant", "cache-control"} <= set(headers)
    assert "connection" not in headers


def test_requests_in_one_packet_are_answered_in_their_order(funded: Tenant, line: Line) -> None:
    get = f"GET /v1/balances?tenant={funded.name} HTTP/1.1\r\nHost: x\r\nX-Cycles-API-Key: {funded.secret}\r\n\r\n"
    line.send(reserve(funded) + get.encode() + reserve(funded))
    answers = [line.answer() for _ in range(3)]
    assert [status for status, _, _ in answers] == [200, 200, 200]
    assert ["reservation_id" in json.loads(body) for _, _, body in answers] == [True, False, True]


def test_a_request_in_pieces_is_one_request(funded: Tenant, line: Line) -> None:
    raw = reserve(funded)
    line.send(*(raw[at : at + 40] for at in range(0, len(raw), 40)))
    assert line.answer()[0] == 200
    line.send(reserve(funded))
    assert line.answer()[0] == 200


def test_a_large_body_in_pieces_does_not_stop_the_connection(funded: Tenant, line: Line) -> None:
    facts = funded.reserve_body(1, metadata={"text": "x" * 15_000})
    spaces = b" " * 200_000  # more than the server takes in before somebody reads
    line.send(reserve(funded, body=json.dumps(facts).encode() + spaces))
    assert line.answer()[0] == 200
    line.send(reserve(funded))
    assert line.answer()[0] == 200


@pytest.mark.parametrize(("version", "headers"), [("1.1", ("Connection: close",)), ("1.0", ())])
def test_a_client_that_wants_an_end_gets_one(
    funded: Tenant, line: Line, version: str, headers: tuple[str, ...]
) -> None:
    line.send(reserve(funded, *headers, version=version))
    status, found, _ = line.answer()
    assert (status, found["connection"]) == (200, "close")
    assert line.ended()


@pytest.mark.parametrize("cut", [None, 50, 100_000], ids=["alone", "behind a part", "behind another"])
def test_a_long_head_is_refused_wherever_it_begins(funded: Tenant, line: Line, cut: int | None) -> None:
    long = reserve(funded, "X-Filler: " + "x" * 20_000)
    if cut is None:
        line.send(long)
    else:
        both = reserve(funded) + long
        line.send(*filter(None, (both[:cut], both[cut:])))
        assert line.answer()[0] == 200
    assert line.answer()[0] == 431


def test_a_client_that_expects_to_be_asked_first_is(funded: Tenant, line: Line) -> None:
    raw = reserve(funded, "Expect: 100-continue")
    head, _, body = raw.partition(b"\r\n\r\n")
    line.send(head + b"\r\n\r\n")
    assert line.socket.recv(100).startswith(b"HTTP/1.1 100 Continue")
    line.send(body)
    assert line.answer()[0] == 200


def test_a_client_that_reads_slowly_gets_everything(funded: Tenant) -> None:
    line = Line(funded.world.running.url)
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    line.send(ask * 60)
    time.sleep(0.5)
    bodies = {line.answer()[2] for _ in range(60)}
    assert len(bodies) == 1
    line.socket.close()


def test_every_route_says_what_it_answers() -> None:
    names = {f"{route.handler.__module__.rpartition('.')[2]}.{route.handler.__name__}" for route in ROUTES}
    assert names - set(ANSWERS) - set(OTHER_TYPES) == {"webhooks.delete"}
    text = json.dumps(document())
    assert set(re.findall(r"#/components/(\w+/[\w-]+)", text)) <= {
        f"{kind}/{name}" for kind, found in document()["components"].items() for name in found
    }
