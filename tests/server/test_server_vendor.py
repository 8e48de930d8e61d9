"""Runs, the stop button and the live stream."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
from tests.server.kit import ADMIN, Tenant, World, amount, problem, until

RUNS = "/v1/x-clearance/runs"


def start_run(tenant: Tenant, value: int | None = 100, **more: Any) -> str:
    body = {"subject": tenant.subject(), **({"budget": amount(value)} if value is not None else {}), **more}
    answer = tenant.post(RUNS, body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["reservation_id"])


def inside(tenant: Tenant, run: str, value: int = 10) -> httpx.Response:
    return tenant.post("/v1/reservations", tenant.reserve_body(value), headers={"X-Clearance-Run-Id": run})


def test_capabilities(funded: Tenant) -> None:
    body = funded.get("/v1/x-clearance/capabilities").json()
    assert body["protocol"] == "0.1.25"
    assert {"runs", "stops", "stream"} <= set(body["extensions"])


def test_a_run_is_the_account_of_its_calls(funded: Tenant) -> None:
    run = start_run(funded)
    assert funded.remaining() == 900
    call = inside(funded, run, 30).json()["reservation_id"]
    assert problem(inside(funded, run, 80)) == (409, "BUDGET_EXCEEDED")
    funded.settle("commit", call, actual=amount(25))
    done = funded.post(f"{RUNS}/{run}/end", {}).json()
    assert (done["charged"], done["released"]) == (amount(25), amount(75))
    assert funded.remaining() == 975
    assert problem(inside(funded, run)) == (409, "RESERVATION_FINALIZED")
    assert problem(inside(funded, "run_none")) == (404, "NOT_FOUND")


def test_runs_nest_and_extend(funded: Tenant) -> None:
    outer = start_run(funded, 100)
    inner = start_run(funded, 40, run_id=outer)
    assert funded.remaining() == 900
    assert funded.settle("extend", outer).status_code == 200
    assert problem(funded.settle("commit", inner)) == (409, "RESERVATION_FINALIZED")
    funded.post(f"{RUNS}/{inner}/end", {})
    assert funded.post(f"{RUNS}/{outer}/end", {}).json()["charged"] == amount(0)


def test_an_event_inside_a_run(funded: Tenant) -> None:
    run = start_run(funded)
    body = {"idempotency_key": "e", "subject": funded.subject(), "action": {"kind": "a", "name": "b"}}
    answer = funded.post("/v1/events", {**body, "actual": amount(7)}, headers={"X-Clearance-Run-Id": run})
    assert answer.status_code == 201
    assert funded.post(f"{RUNS}/{run}/end", {}).json()["charged"] == amount(7)


def test_kill_names_what_is_in_flight_and_resume_ends_it(funded: Tenant) -> None:
    held = funded.hold(10)
    stop = {"scope": f"tenant:{funded.name}", "reason": "runaway", "actor": "ann"}
    killed = funded.post("/v1/x-clearance/kill", stop).json()
    assert (killed["state"], killed["in_flight"], killed["actor"]) == ("KILLED", [held], "ann")
    assert problem(funded.reserve(1)) == (409, "BUDGET_FROZEN")
    assert problem(funded.settle("extend", held)) == (409, "BUDGET_FROZEN")
    seen = funded.post("/v1/x-clearance/stopped", {"reservation_ids": [held]}).json()["stopped"]
    assert seen[held]["reason"] == "runaway"
    assert [it["state"] for it in funded.get("/v1/x-clearance/stops").json()["stops"]] == ["KILLED"]
    assert funded.settle("commit", held, actual=amount(10)).status_code == 200
    assert funded.post("/v1/x-clearance/resume", stop).json()["state"] == "RUNNING"
    assert funded.reserve(1).status_code == 200


def test_a_paused_run(funded: Tenant) -> None:
    run = start_run(funded)
    assert funded.post("/v1/x-clearance/pause", {"scope": f"run:{run}", "reason": "wait"}).status_code == 200
    assert inside(funded, run).json()["details"]["reason_code"] == "PAUSED"
    assert funded.reserve(1).status_code == 200


def test_the_operator_stops_everybody(funded: Tenant, world: World) -> None:
    stop = {"scope": "*", "reason": "all"}
    try:
        assert world.admin("POST", "/v1/x-clearance/kill", stop).status_code == 200
        assert funded.reserve(1).json()["details"]["reason_code"] == "KILLED"
    finally:
        assert world.admin("POST", "/v1/x-clearance/resume", stop).status_code == 200
    assert funded.reserve(1).status_code == 200


# -- the stream -----------------------------------------------------------------------------------


def messages(response: httpx.Response) -> Iterator[tuple[int, str, dict[str, Any]]]:
    found: dict[str, str] = {}
    for line in response.iter_lines():
        if line.startswith(":"):
            continue
        if not line:
            if "id" in found:
                yield int(found["id"]), found["event"], json.loads(found["data"])
            found = {}
            continue
        name, _, value = line.partition(": ")
        found[name] = value


class Listening:
    """A stream, read in a thread until enough has come."""

    def __init__(
        self, world: World, headers: dict[str, str], enough: int, path: str = "/v1/x-clearance/stream"
    ) -> None:
        self.found: list[tuple[int, str, dict[str, Any]]] = []
        self.connected = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(world.running.url + path, headers, enough))
        self._thread.start()
        assert self.connected.wait(10)

    def _read(self, url: str, headers: dict[str, str], enough: int) -> None:
        with httpx.stream("GET", url, headers=headers, timeout=20) as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            assert response.headers["X-Cycles-Trace-Id"]
            lines = messages(response)
            self.connected.set()
            for message in lines:
                self.found.append(message)
                if len(self.found) == enough:
                    return

    def all(self) -> list[tuple[int, str, dict[str, Any]]]:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.found


def test_the_stream_tells_what_happens_and_goes_on_where_it_was_left(funded: Tenant, world: World) -> None:
    first = Listening(world, funded.headers, 2)
    held = funded.hold(10)
    funded.settle("commit", held, actual=amount(4))
    seen = first.all()
    assert [kind for _, kind, _ in seen] == ["custom.reservation.created", "custom.reservation.committed"]
    assert seen[0][2]["data"]["reservation_id"] == held
    # While nobody listens:
    funded.settle("release", funded.hold(3))
    again = Listening(world, {**funded.headers, "Last-Event-ID": str(seen[0][0])}, 3)
    assert [kind.rpartition(".")[2] for _, kind, _ in again.all()] == ["committed", "created", "released"]
    assert again.found[0] == seen[1]


def test_a_stream_shows_its_tenant_only_and_the_operator_all(funded: Tenant, world: World) -> None:
    other = world.tenant()
    other.budget(5)
    mine = Listening(world, funded.headers, 1)
    everything = Listening(world, ADMIN, 2)
    other.hold(1)
    funded.hold(1)
    assert mine.all()[0][2]["tenant_id"] == funded.name
    assert {message["tenant_id"] for _, _, message in everything.all()} == {funded.name, other.name}


def test_a_stream_that_is_left_is_forgotten(funded: Tenant, world: World) -> None:
    watch = world.running.app.watch
    until(lambda: watch.open_streams == 0)
    with httpx.stream("GET", world.running.url + "/v1/x-clearance/stream", headers=funded.headers) as response:
        lines = response.iter_lines()
        next(lines)
        assert watch.open_streams == 1
    until(lambda: watch.open_streams == 0)


def test_where_to_go_on_must_be_ours(funded: Tenant) -> None:
    answer = funded.request("GET", "/v1/x-clearance/stream", headers={"Last-Event-ID": "x"})
    assert problem(answer) == (400, "INVALID_REQUEST")
