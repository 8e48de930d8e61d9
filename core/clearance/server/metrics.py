"""What this server counts, for Prometheus: `GET /metrics`.

Each server has a registry of its own, so nothing is global. No label holds a tenant, a key or an id: whoever may scrape
learns how much is done, not by whom. The names are documented in docs/operations.md and stay.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from clearance.authority.embedded import EmbeddedAuthority
from clearance.errors import ClearanceError
from clearance.server.errors import told
from clearance.server.http import Call, Reply, Stream

if TYPE_CHECKING:
    from clearance.server.context import Server

log = logging.getLogger("clearance.server")

TEXT = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
LOOK_EVERY_SECONDS = 1.0
"""The ledger is asked at most so often, however many scrape."""
UNKNOWN = "unknown"
"""The route of a request that found none."""


_Counting = tuple[Callable[..., None], Callable[..., None]]


class Metrics:
    def __init__(self, authority: EmbeddedAuthority) -> None:
        self._authority = authority
        self._looked_at = float("-inf")
        self._counting: dict[tuple[str, str, int], _Counting] = {}
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        registry = self.registry
        self._seconds = Histogram(
            "clearance_request_seconds",
            "From a request's headers to its answer.",
            ["method", "route"],
            buckets=SECONDS,
            registry=registry,
        )
        self._answers = Counter(
            "clearance_answers", "Requests answered, by status.", ["method", "route", "status"], registry=registry
        )
        self._refusals = Counter("clearance_refusals", "Requests refused, by reason code.", ["code"], registry=registry)
        self._up = Gauge("clearance_ledger_up", "1 while the ledger answers.", registry=registry)
        self._bytes = Gauge("clearance_ledger_bytes", "What the ledger takes on its disk.", registry=registry)
        self._stops = Gauge("clearance_stops", "Kills and pauses in force.", ["state"], registry=registry)

    def answered(self, call: Call, reply: Reply | Stream, seconds: float) -> None:
        status = reply.status if isinstance(reply, Reply) else 200
        counting = self._counting.get((call.method, call.route, status))
        if counting is None:
            counting = self._counted(call, status)
        counting[0](seconds)
        counting[1]()

    def _counted(self, call: Call, status: int) -> _Counting:
        """Found once for each route and status: to look them up by their labels takes longer than to count."""
        route = call.route or UNKNOWN
        method = call.method if call.route else UNKNOWN
        found = (self._seconds.labels(method, route).observe, self._answers.labels(method, route, str(status)).inc)
        if call.route:  # else the method is anybody's word, and there would be no end of them
            self._counting[call.method, call.route, status] = found
        return found

    def refused(self, error: Exception) -> None:
        self._refusals.labels(told(error).code).inc()

    def exposition(self) -> bytes:
        """Asks the ledger, so it may wait for it. An outage is a figure, not an error."""
        if time.monotonic() >= self._looked_at + LOOK_EVERY_SECONDS:
            self._looked_at = time.monotonic()
            self._look()
        return generate_latest(self.registry)

    def _look(self) -> None:
        try:
            facts, stops = self._authority.describe(), self._authority.stops()
        except ClearanceError as error:
            log.warning("the ledger does not answer (%s)", error)
            self._up.set(0)
            return
        self._up.set(1)
        self._bytes.set(facts.get("bytes", 0))
        for state in ("KILLED", "PAUSED"):
            self._stops.labels(state).set(sum(stop.state == state for stop in stops))


async def metrics(server: Server, call: Call) -> Reply:
    return Reply(await server.off_loop(server.metrics.exposition), headers=[TEXT])
