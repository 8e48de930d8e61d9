"""What a subscription may be, and where a webhook may not go."""

from __future__ import annotations

from typing import Any

import pytest
from tests.server.kit import Tenant, World, problem

from clearance.server.names import names
from clearance.server.settings import Settings
from clearance.server.subscriptions import RetryPolicy, delay_ms
from clearance.server.targets import Blocked, check_url, resolve

INVALID: list[tuple[dict[str, Any], str]] = [
    ({"event_types": []}, "INVALID_REQUEST"),
    ({"event_types": ["no.such"]}, "INVALID_REQUEST"),
    ({"event_types": ["api_key.created"]}, "INVALID_REQUEST"),
    ({"event_categories": ["system"]}, "INVALID_REQUEST"),
    ({"event_categories": ["weather"]}, "INVALID_REQUEST"),
    ({"headers": {"Host": "x"}}, "INVALID_REQUEST"),
    ({"headers": {"X-Cycles-Signature": "x"}}, "INVALID_REQUEST"),
    ({"headers": {"X-A": "a\r\nb"}}, "INVALID_REQUEST"),
    ({"retry_policy": {"max_retries": 11}}, "INVALID_REQUEST"),
    ({"url": "ftp://example.com"}, "WEBHOOK_URL_INVALID"),
    ({"url": "https://user:pass@example.com"}, "WEBHOOK_URL_INVALID"),
    ({"url": "https://"}, "WEBHOOK_URL_INVALID"),
    ({"url": "https://example.com:99999/"}, "WEBHOOK_URL_INVALID"),
]


@pytest.mark.parametrize(("change", "code"), INVALID)
def test_subscriptions_that_are_refused(change: dict[str, Any], code: str, funded: Tenant) -> None:
    body = {"url": "https://example.com/h", "event_types": ["budget.created"], **change}
    assert problem(funded.post("/v1/webhooks", body)) == (400, code)


def test_the_invariants_hold_through_changes(funded: Tenant, world: World) -> None:
    body = {"url": "https://example.com/h", "event_types": ["budget.created"]}
    path = f"/v1/webhooks/{funded.post('/v1/webhooks', body).json()['subscription_id']}"
    assert problem(funded.request("PATCH", path, {"event_types": []})) == (400, "INVALID_REQUEST")
    changed = funded.request("PATCH", path, {"event_types": [], "event_categories": ["budget"]})
    assert changed.status_code == 200
    assert problem(funded.request("PATCH", path, {"event_categories": []})) == (400, "INVALID_REQUEST")
    owned = {**body, "tenant_id": funded.name, "event_types": ["system.high_latency"]}
    assert problem(world.admin("POST", "/v1/admin/webhooks", owned)) == (400, "INVALID_REQUEST")
    system = {**body, "event_types": ["system.high_latency"]}
    made = world.admin("POST", "/v1/admin/webhooks", system)
    assert made.json()["tenant_id"] == "__system__"
    own = made.json()["subscription_id"]
    assert problem(funded.get(f"/v1/webhooks/{own}")) == (404, "WEBHOOK_NOT_FOUND")
    assert world.admin("DELETE", f"/v1/admin/webhooks/{own}").status_code == 204
    assert problem(world.admin("GET", f"/v1/admin/webhooks/{own}")) == (404, "WEBHOOK_NOT_FOUND")
    listed = funded.get("/v1/webhooks").json()["subscriptions"]
    assert [f"/v1/webhooks/{it['subscription_id']}" for it in listed] == [path]
    assert "signing_secret" not in str(listed)


# -- where a webhook may not go -------------------------------------------------------------------

STRICT = Settings()


@pytest.mark.parametrize(
    "host",
    names(
        "127.0.0.1 10.1.2.3 192.168.0.1 172.16.0.1 169.254.169.254 [::1] [fc00::1] [fe80::1] "
        "[::ffff:127.0.0.1] 0.0.0.0 100.64.0.1 224.0.0.1 [64:ff9b::7f00:1] [2002:7f00:1::]"
    ),
)
def test_private_addresses(host: str) -> None:
    with pytest.raises(Exception, match="not public"):
        check_url(f"https://{host}/x", STRICT)


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f.1", "127.1"])
@pytest.mark.anyio
async def test_names_of_private_addresses(host: str, anyio_backend: str) -> None:
    with pytest.raises(Blocked):
        await resolve(f"https://{host}/x", STRICT)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_the_connection_goes_to_the_address_that_was_checked(anyio_backend: str) -> None:
    target = await resolve("http://localhost:81/a?b", Settings(webhook_http=True, webhook_private=True))
    assert target.url in ("http://127.0.0.1:81/a?b", "http://[::1]:81/a?b")
    assert (target.host, target.netloc) == ("localhost", "localhost:81")


def test_waits_grow_to_their_most() -> None:
    policy = RetryPolicy()
    assert [delay_ms(policy, n) for n in range(1, 6)] == [1000, 2000, 4000, 8000, 16_000]
    assert delay_ms(RetryPolicy(max_delay_ms=5000), 10) == 5000
