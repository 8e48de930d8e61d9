"""What a scraper reads is what happened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.server.kit import ADMIN, Running, World, running

from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import AuthorityUnavailable
from clearance.server import metrics
from clearance.store.sqlite import SqliteStore

DOCUMENTED = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(metrics, "LOOK_EVERY_SECONDS", 0.0)
    authority = EmbeddedAuthority(SqliteStore(tmp_path / "ledger.db"), background=False)
    with running(authority) as it:
        yield it
    authority.close()


def scraped(server: Running) -> dict[tuple[str, ...], float]:
    """Value by name and label values, ours only."""
    answer = httpx.get(f"{server.url}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name.startswith("clearance_")
    }


def test_requests_are_counted_by_route_and_status(server: Running) -> None:
    for _ in range(3):
        httpx.get(f"{server.url}/v1/admin/tenants/nobody", headers=ADMIN)
    httpx.get(f"{server.url}/no/such/place")
    found = scraped(server)
    route = "/v1/admin/tenants/{tenant_id}"
    assert found["clearance_answers_total", "GET", route, "404"] == 3
    assert found["clearance_request_seconds_count", "GET", route] == 3
    assert found["clearance_answers_total", "unknown", "unknown", "404"] == 1
    assert not [labels for labels in found if "nobody" in labels]


def test_refusals_are_counted_by_reason(server: Running) -> None:
    with httpx.Client(base_url=server.url) as client:
        tenant = World(server, client, None).tenant()
        tenant.budget(10)
        assert tenant.post("/v1/reservations", tenant.reserve_body(11)).status_code == 409
    httpx.get(f"{server.url}/v1/balances")
    found = scraped(server)
    assert found["clearance_refusals_total", "BUDGET_EXCEEDED"] == 1
    assert found["clearance_refusals_total", "UNAUTHORIZED"] == 1


def test_the_ledgers_state_is_a_figure_also_in_an_outage(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    server.authority.kill("tenant:acme", reason="a drill")
    server.authority.pause("tenant:beta", reason="a drill")
    found = scraped(server)
    assert found["clearance_ledger_up",] == 1
    assert found["clearance_ledger_bytes",] > 0
    assert (found["clearance_stops", "KILLED"], found["clearance_stops", "PAUSED"]) == (1, 1)

    def fail() -> None:
        raise AuthorityUnavailable("the ledger is away")

    monkeypatch.setattr(server.authority, "describe", fail)
    assert scraped(server)["clearance_ledger_up",] == 0


def test_the_ledger_is_not_asked_by_every_scrape(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "LOOK_EVERY_SECONDS", 60.0)
    asked = []
    describe = server.authority.describe
    monkeypatch.setattr(server.authority, "describe", lambda: asked.append(1) or describe())
    for _ in range(5):
        scraped(server)
    assert len(asked) == 1


def test_every_name_is_documented(server: Running) -> None:
    names = {name for name, *_ in scraped(server)}
    bare = {name.removesuffix("_created").removesuffix("_bucket").removesuffix("_sum") for name in names}
    text = DOCUMENTED.read_text()
    assert [name for name in sorted(bare) if name.removesuffix("_count") not in text] == []
