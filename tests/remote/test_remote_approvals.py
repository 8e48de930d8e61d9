"""Approvals over the wire: our client asks for them, a client of the base protocol is refused the tool."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from clearance.authority.budgets import BudgetSpec
from clearance.errors import ApprovalRequired
from clearance.model.amount import usd
from clearance.model.caps import Caps, CapsRule
from clearance.model.subject import Subject
from clearance.remote import RemoteAuthority
from remote.conftest import ADMIN, RealServer

BOT = Subject(tenant="acme", workspace="approvals")
CAPS = Caps(max_tokens=7, approval_tools=("send", "pay_*"))


@pytest.fixture
def client(real: RealServer, tmp_path: Path) -> Iterator[RemoteAuthority]:
    made = RemoteAuthority(
        real.url, api_key=real.api_key, admin_key=ADMIN, tenant="acme", journal=tmp_path, timeout_ms=8_000
    )
    made.set_budget(BudgetSpec(scope=BOT.scope_path, allocated=usd(10), caps=(CapsRule(caps=CAPS),)))
    yield made
    made.close()


def test_our_client_asks_and_tells_who_has_approved(client: RemoteAuthority) -> None:
    with pytest.raises(ApprovalRequired):
        client.guard("tool.call:pay_all", "1", subject=BOT)(lambda: pytest.fail("ran"))()
    assert client.balance(BOT.scope_path).reserved == 0
    with client.guard("tool.call:pay_all", "1", subject=BOT, approved_by="ann") as permit:
        assert permit.caps == CAPS
    found = client.get(permit.id)
    assert (found.status, found.metadata) == ("COMMITTED", {"approved_by": "ann"})


@pytest.mark.parametrize(
    ("name", "denied"), [("search", ["send"]), ("send", ["send"]), ("pay_all", ["pay_all", "send"])]
)
def test_for_a_client_of_the_base_protocol_the_tool_is_denied(
    real: RealServer, client: RemoteAuthority, name: str, denied: list[str]
) -> None:
    body: dict[str, Any] = {
        "idempotency_key": f"base-{name}",
        "subject": BOT.wire,
        "action": {"kind": "tool.call", "name": name},
        "estimate": {"unit": "USD_MICROCENTS", "amount": 5},
        "dry_run": True,
    }
    url, key = real.url + "/v1/reservations", {"X-Cycles-API-Key": real.api_key}
    assert httpx.post(url, json=body, headers=key).json()["caps"] == {"max_tokens": 7, "tool_denylist": denied}
    ours = httpx.post(url, json=body, headers={**key, "X-Clearance-Extensions": "1"}).json()
    assert ours["caps"] == {"max_tokens": 7, "approval_tools": ["send", "pay_*"]}
