"""Webhooks against a real receiver that answers, fails, redirects and hangs."""

from __future__ import annotations

import hashlib
import hmac
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.server.kit import Tenant, World, amount, problem, until
from tests.server.process import Child
from tests.server.receiver import SECRET, Receiver

from clearance.authority.clock import ManualClock


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    it = Receiver()
    yield it
    it.close()


def subscribe(tenant: Tenant, receiver: Receiver, **facts: Any) -> str:
    body = {
        "url": receiver.url,
        "event_types": ["budget.created", "reservation.denied"],
        "signing_secret": SECRET,
        **facts,
    }
    answer = tenant.post("/v1/webhooks", body)
    assert answer.status_code == 201, answer.text
    assert answer.json()["signing_secret"] == facts.get("signing_secret", SECRET)
    return str(answer.json()["subscription_id"])


def deliveries(tenant: Tenant, webhook: str, **query: Any) -> list[dict[str, Any]]:
    answer = tenant.get(f"/v1/webhooks/{webhook}/deliveries", **query)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["deliveries"])


def ended(tenant: Tenant, webhook: str, count: int = 1) -> list[dict[str, Any]]:
    def all_ended() -> list[dict[str, Any]] | None:
        rows = deliveries(tenant, webhook)
        done = [row for row in rows if row["status"] in ("SUCCESS", "FAILED")]
        return rows if len(done) == len(rows) >= count else None

    found: list[dict[str, Any]] = until(all_ended)
    return found


def test_an_event_is_signed_traced_and_delivered_once(funded: Tenant, receiver: Receiver) -> None:
    webhook = subscribe(funded, receiver, headers={"X-Team": "blue"})
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    asked = funded.post(
        "/v1/reservations", funded.reserve_body(5000), headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-00"}
    )
    assert asked.status_code == 409
    (row,) = ended(funded, webhook)
    ((headers, raw),) = receiver.got
    expected = hmac.new(SECRET.encode(), raw, hashlib.sha256).hexdigest()
    assert headers["x-cycles-signature"] == f"sha256={expected}"
    event = json.loads(raw)
    assert headers["x-cycles-event-id"] == event["event_id"] == row["event_id"]
    assert headers["x-cycles-event-type"] == event["event_type"] == "reservation.denied"
    assert headers["x-cycles-trace-id"] == event["trace_id"] == trace
    assert headers["traceparent"].startswith(f"00-{trace}-")
    assert headers["traceparent"].endswith("-00")
    assert headers["content-type"] == "application/json"
    assert headers["x-team"] == "blue"
    assert headers["user-agent"].startswith("clearance")
    assert (row["status"], row["attempts"], row["response_status"]) == ("SUCCESS", 1, 200)
    assert row["traceparent_inbound_valid"] is True


def test_first_attempts_are_in_order(funded: Tenant, receiver: Receiver) -> None:
    webhook = subscribe(funded, receiver)
    for number in range(30):
        funded.budget(1, f"/agent:a{number}")
    ended(funded, webhook, 30)
    assert [it["scope"].rpartition(":")[2] for it in receiver.events] == [f"a{number}" for number in range(30)]


def test_a_failure_is_tried_again_later(funded: Tenant, receiver: Receiver, clock: ManualClock) -> None:
    receiver.answers = [500, 301]
    webhook = subscribe(funded, receiver)
    funded.reserve(5000)
    (row,) = until(lambda: [it for it in deliveries(funded, webhook) if it["status"] == "RETRYING"])
    assert row["error_message"] == "HTTP 500"
    assert row["next_retry_at"]
    clock.advance(1000)
    until(lambda: len(receiver.got) == 2)
    until(lambda: deliveries(funded, webhook)[0]["attempts"] == 2)
    assert deliveries(funded, webhook, status="RETRYING")[0]["error_message"] == "HTTP 301"
    clock.advance(2000)
    (row,) = ended(funded, webhook)
    assert (row["status"], row["attempts"]) == ("SUCCESS", 3)
    assert len({raw for _, raw in receiver.got}) == 1
    assert "error_message" not in row


def test_it_gives_up_and_says_so(funded: Tenant, receiver: Receiver, world: World) -> None:
    receiver.answers = [500] * 5
    webhook = subscribe(funded, receiver, retry_policy={"max_retries": 0})
    funded.reserve(5000)
    (row,) = ended(funded, webhook)
    assert (row["status"], row["attempts"]) == ("FAILED", 1)
    query = {"event_type": "system.webhook_delivery_failed", "tenant_id": funded.name}
    (event,) = world.admin("GET", "/v1/admin/events", params=query).json()["events"]
    assert event["data"]["subscription_id"] == webhook


def test_it_is_disabled_after_failures_in_a_row(funded: Tenant, receiver: Receiver, world: World) -> None:
    receiver.answers = [500, 200, 500, 500]
    webhook = subscribe(funded, receiver, retry_policy={"max_retries": 0}, disable_after_failures=2)
    for number in range(4):
        funded.budget(1, f"/agent:a{number}")
        ended(funded, webhook, number + 1)
    path = f"/v1/webhooks/{webhook}"
    assert until(lambda: funded.get(path).json()["status"]) == "DISABLED"
    funded.budget(1, "/agent:late")
    kinds = world.admin("GET", "/v1/admin/events", params={"tenant_id": funded.name, "category": "webhook"}).json()
    assert "webhook.disabled" in [it["event_type"] for it in kinds["events"]]
    assert funded.request("PATCH", path, {"status": "ACTIVE"}).json()["consecutive_failures"] == 0
    funded.budget(1, "/agent:again")
    until(lambda: receiver.events[-1]["scope"].endswith("agent:again"))


def test_a_receiver_that_is_not_there(funded: Tenant, receiver: Receiver) -> None:
    webhook = subscribe(funded, receiver, url="http://127.0.0.1:9/none", retry_policy={"max_retries": 0})
    funded.reserve(5000)
    (row,) = ended(funded, webhook)
    assert (row["status"], row["error_message"]) == ("FAILED", "ConnectError")


def test_replay(funded: Tenant, receiver: Receiver, world: World, clock: ManualClock) -> None:
    for number in range(3):
        funded.budget(1, f"/agent:r{number}")
    webhook = subscribe(funded, receiver)
    path = f"/v1/admin/webhooks/{webhook}/replay"
    body = {"from": "2020-01-01T00:00:00Z", "to": "2030-01-01T00:00:00Z"}
    assert problem(world.admin("POST", path, {**body, "max_events": 2})) == (400, "INVALID_REQUEST")
    answer = world.admin("POST", path, body)
    assert answer.status_code == 202
    assert answer.json()["events_queued"] == 4
    ended(funded, webhook, 4)
    found = [it["scope"] for it in receiver.events]
    assert found == [f"tenant:{funded.name}", *(f"tenant:{funded.name}/agent:r{number}" for number in range(3))]
    assert world.admin("POST", path, {**body, "event_types": ["reservation.denied"]}).json()["events_queued"] == 0
    reversed_window = {"from": body["to"], "to": body["from"]}
    assert problem(world.admin("POST", path, reversed_window)) == (400, "INVALID_REQUEST")
    missing = world.admin("POST", "/v1/admin/webhooks/none/replay", body)
    assert problem(missing) == (404, "WEBHOOK_NOT_FOUND")


def test_one_replay_at_a_time(funded: Tenant, receiver: Receiver, world: World, clock: ManualClock) -> None:
    receiver.answers = [500]
    webhook = subscribe(funded, receiver)
    path = f"/v1/admin/webhooks/{webhook}/replay"
    body = {"from": "2020-01-01T00:00:00Z", "to": "2030-01-01T00:00:00Z"}
    assert world.admin("POST", path, body).status_code == 202
    until(lambda: deliveries(funded, webhook, status="RETRYING"))
    assert problem(world.admin("POST", path, body)) == (409, "REPLAY_IN_PROGRESS")
    clock.advance(1000)
    ended(funded, webhook)
    assert world.admin("POST", path, body).status_code == 202


@pytest.mark.parametrize(
    ("pattern", "arrives"),
    [
        ("*", True),
        ("tenant:{t}", False),
        ("tenant:{t}/*", True),
        ("tenant:{t}/agent:x", True),
        ("tenant:other*", False),
    ],
)
def test_scope_filters(pattern: str, arrives: bool, funded: Tenant, receiver: Receiver) -> None:
    webhook = subscribe(funded, receiver, scope_filter=pattern.format(t=funded.name))
    everything = subscribe(funded, receiver)
    funded.budget(1, "/agent:x")
    ended(funded, everything)
    assert bool(deliveries(funded, webhook)) is arrives


# -- kill -9 --------------------------------------------------------------------------------------


def test_the_outbox_survives_a_kill(tmp_path: Path, receiver: Receiver) -> None:
    child = Child(tmp_path)
    try:
        child.tenant()
        receiver.answers = [503] * 3
        hook = {
            "tenant_id": "acme",
            "url": receiver.url,
            "event_types": ["budget.created"],
            "retry_policy": {"initial_delay_ms": 1500},
        }
        made = child.admin("POST", "/v1/admin/webhooks", hook)
        assert made.status_code == 201, made.text
        for number in range(20):
            budget = {"tenant_id": "acme", "scope": f"tenant:acme/agent:a{number}", "unit": "TOKENS"}
            assert child.admin("POST", "/v1/admin/budgets", {**budget, "allocated": amount(1)}).status_code == 201
        assert child.end(signal.SIGKILL)
        child.start()
        wanted = {f"tenant:acme/agent:a{number}" for number in range(20)}
        until(lambda: {it["scope"] for it in receiver.events} >= wanted and not receiver.answers, 20)
        path = f"/v1/admin/webhooks/{made.json()['subscription_id']}/deliveries?limit=100"
        until(lambda: {it["status"] for it in child.admin("GET", path).json()["deliveries"]} == {"SUCCESS"}, 20)
        assert len(child.admin("GET", path).json()["deliveries"]) == 20
    finally:
        child.process.kill()
        child.process.wait(10)
