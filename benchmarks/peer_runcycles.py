"""runcycles: the HTTP client of the Cycles protocol, against a server that always answers the same."""

from __future__ import annotations

import http.client
import json
from contextlib import ExitStack
from pathlib import Path

from benchmarks.constant_server import serving
from benchmarks.samples import Measure, timed
from benchmarks.workload import ACTION, ACTUAL, ESTIMATE, SUBJECT

RESERVED = {
    "decision": "ALLOW",
    "reservation_id": "rsv_0199a0000000aaaaaaaaaaaaaaaaaaaa",
    "affected_scopes": list(SUBJECT.scopes),
    "expires_at_ms": 4_000_000_000_000,
    "remaining_ttl_ms": 60_000,
    "scope_path": SUBJECT.scope_path,
    "reserved": {"unit": "USD_MICROCENTS", "amount": ESTIMATE.amount},
}
COMMITTED = {"status": "COMMITTED", "charged": {"unit": "USD_MICROCENTS", "amount": ACTUAL.amount}}
PATIENCE = 30.0


def measures(place: Path, stack: ExitStack) -> dict[str, Measure]:
    import runcycles

    port = stack.enter_context(serving(json.dumps(RESERVED), json.dumps(COMMITTED)))
    config = runcycles.CyclesConfig(
        base_url=f"http://127.0.0.1:{port}", api_key="none", tenant="acme", journal_dir=str(place / "journal")
    )
    client = stack.enter_context(runcycles.CyclesClient(config))
    levels = SUBJECT.wire

    @runcycles.cycles(
        ESTIMATE.amount, actual=ACTUAL.amount, action_kind=ACTION.kind, action_name=ACTION.name, client=client, **levels
    )
    def decorated() -> None:
        pass

    plain = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    stack.callback(plain.close)
    body = json.dumps({"subject": levels, "action": ACTION.wire, "estimate": RESERVED["reserved"]})

    def two_requests(_: int) -> None:
        for path in ("/v1/reservations", "/v1/reservations/1/commit"):
            plain.request("POST", path, body, {"Content-Type": "application/json"})
            plain.getresponse().read()

    return {
        "http": lambda limit: timed(two_requests, limit),
        "runcycles": lambda limit: timed(lambda _: decorated(), limit),
    }
