"""What is counted, what it costs, and where it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import FrozenInstanceError
from types import SimpleNamespace

import httpx
import openai
import pytest

from clearance.errors import PriceUnknown
from clearance.simulator import Reply, SimulatedUsage, Simulator, always, prices, sequence

MODEL = "gpt-4o-mini"
HELLO = [{"role": "user", "content": "hello there"}]


def ask(client, model=MODEL, **options):
    return client.chat.completions.create(model=model, messages=HELLO, **options)


def flat_price(model, usage):
    return 10 * usage.input_tokens + 100 * usage.output_tokens


def test_stats_count_each_model_and_all_together(start, client_for):
    sim = start(price=flat_price)
    client = client_for(sim)
    ask(client)
    ask(client, "gpt-4o+cached-1+reasoning-2")
    with pytest.raises(openai.InternalServerError):
        ask(client, "gpt-4o+500")
    stats = sim.stats()
    assert (stats["requests"], stats["answered"], stats["error"]) == (3, 2, 1)
    assert stats["tokens"] == {"input": 6, "cached_input": 1, "output": 18, "reasoning": 2}
    assert stats["cost"] == (30 + 800) + (30 + 1000)
    assert stats["models"]["gpt-4o"]["error"] == 1
    assert stats["models"][MODEL]["cost"] == 830
    assert stats["statuses"] == {"200": 2, "500": 1}
    assert stats["unpriced"] == 0


def test_the_price_is_asked_for_the_plain_model(start, client_for):
    asked = []
    sim = start(price=lambda model, usage: asked.append((model, usage)) or 7)
    ask(client_for(sim), f"{MODEL}+slow-1")
    assert asked == [(MODEL, SimulatedUsage(3, 0, 8, 0))]
    assert sim.requests[-1].cost == 7


def test_another_serving_model_is_reported_and_priced(start, client_for):
    asked = []
    sim = start(script=lambda r: Reply(text="hi", model="gpt-4o"), price=lambda m, u: asked.append(m) or 1)
    assert ask(client_for(sim)).model == "gpt-4o"
    assert asked == ["gpt-4o"]


def test_without_a_price_requests_are_unpriced(start, client_for):
    sim = start(price=None)
    ask(client_for(sim))
    assert sim.requests[-1].cost is None
    assert (sim.stats()["cost"], sim.stats()["unpriced"]) == (0, 1)


def test_the_default_price_is_clearances_own_list(monkeypatch, start, client_for):
    class PriceBook:
        def price(self, model, usage):
            if model != MODEL:
                raise PriceUnknown(model)
            return SimpleNamespace(amount=usage.output_tokens * 60)

    monkeypatch.setitem(sys.modules, "clearance.pricing", SimpleNamespace(PriceBook=PriceBook))
    prices._price_list.cache_clear()
    try:
        sim = start()
        client = client_for(sim)
        ask(client)
        ask(client, "unheard-of")
    finally:
        prices._price_list.cache_clear()
    assert [record.cost for record in sim.requests] == [480, None]


def test_a_price_function_that_fails_does_not_stop_the_answers(start, client_for):
    def broken(model, usage):
        raise ZeroDivisionError

    sim = start(price=broken)
    assert ask(client_for(sim)).choices
    assert sim.stats()["unpriced"] == 1


def test_a_reply_may_state_its_own_usage(start, client_for):
    usage = SimulatedUsage(1000, 400, 200, 50)
    sim = start(script=lambda request: Reply(text="hi", usage=usage))
    told = ask(client_for(sim)).usage
    assert (told.prompt_tokens, told.completion_tokens, told.total_tokens) == (1000, 200, 1200)
    assert sim.requests[-1].usage == usage


def test_counters_stay_exact_when_old_records_go(start, client_for):
    sim = start(limit=2)
    client = client_for(sim)
    for _ in range(5):
        ask(client)
    assert [record.number for record in sim.requests] == [4, 5]
    assert (sim.stats()["requests"], sim.stats()["tokens"]["output"]) == (5, 40)


def test_records_cannot_be_changed(sim, client):
    ask(client)
    with pytest.raises(FrozenInstanceError):
        sim.requests[0].status = 1
    sim.requests.clear()
    assert len(sim.requests) == 1


def test_stats_and_reset_are_there_over_http(sim, client):
    ask(client)
    assert httpx.get(f"{sim.url}/simulator/stats").json() == sim.stats()
    assert httpx.post(f"{sim.url}/simulator/reset").json()["requests"] == 0
    assert (sim.requests, sim.stats()["models"]) == ([], {})


def test_reset_starts_everything_again(start, client_for):
    sim = start(script=sequence(["first", "second"]))
    client = client_for(sim)
    ask(client)
    sim.fail_next()
    sim.reset()
    assert ask(client).choices[0].message.content == "first"
    assert sim.requests[-1].number == 1


def test_a_request_is_in_flight_until_it_is_settled(sim):
    def slow() -> None:
        httpx.post(f"{sim.base_url}/chat/completions", json={"model": f"{MODEL}+slow-150", "messages": HELLO})

    thread = threading.Thread(target=slow)
    thread.start()
    deadline = time.monotonic() + 5
    while sim.stats()["in_flight"] == 0 and time.monotonic() < deadline:
        pass
    assert (sim.stats()["in_flight"], sim.requests) == (1, [])
    assert sim.wait_idle(0.001) is False
    assert sim.wait_idle()
    assert sim.stats()["answered"] == 1
    thread.join()


def test_leaving_the_simulator_ends_hanging_requests_at_once():
    errors = []

    def hang(base_url: str) -> None:
        try:
            httpx.post(f"{base_url}/chat/completions", json={"model": "m+slow-60000", "messages": HELLO}, timeout=30)
        except httpx.TransportError as error:
            errors.append(error)

    with Simulator() as sim:
        thread = threading.Thread(target=hang, args=(sim.base_url,))
        thread.start()
        while sim.stats()["in_flight"] == 0:
            pass
        leaving = time.monotonic()
    assert time.monotonic() - leaving < 1
    thread.join(5)
    assert len(errors) == 1
    assert [record.outcome for record in sim.requests] == ["abandoned"]


def test_leaving_ends_a_script_that_waits(caplog):
    async def forever(request):
        await asyncio.Event().wait()

    def hang(base_url: str) -> None:
        with contextlib.suppress(httpx.TransportError):
            httpx.post(f"{base_url}/chat/completions", json={"model": "m", "messages": HELLO}, timeout=30)

    with Simulator(script=forever) as sim:
        thread = threading.Thread(target=hang, args=(sim.base_url,))
        thread.start()
        while sim.stats()["in_flight"] == 0:
            pass
    thread.join(5)
    assert not thread.is_alive()
    assert sim.stats()["abandoned"] == 1
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


def test_a_simulator_can_be_entered_again_and_keeps_its_counts():
    sim = Simulator(script=always("hi"))
    for _ in range(2):
        with sim, openai.OpenAI(base_url=sim.base_url, api_key="sim") as client:
            ask(client)
    assert sim.stats()["answered"] == 2
    with pytest.raises(RuntimeError, match="not running"):
        _ = sim.base_url


def test_a_running_simulator_cannot_be_started_twice(sim):
    with pytest.raises(RuntimeError, match="already"):
        sim.start()


def test_answers_are_not_held_back_by_the_network_stack(sim, client):
    ask(client)
    started = time.monotonic()
    for _ in range(20):
        ask(client)
    assert (time.monotonic() - started) / 20 < 0.03


def test_simulators_run_side_by_side(start, client_for):
    one, two = start(script=always("one")), start(script=always("two"))
    assert one.url != two.url
    assert ask(client_for(one)).choices[0].message.content == "one"
    assert ask(client_for(two)).choices[0].message.content == "two"


def test_a_taken_port_is_an_error(sim):
    port = int(sim.url.rpartition(":")[2])
    with pytest.raises(OSError), Simulator(port=port):
        pass


def test_it_runs_as_a_process_of_its_own():
    command = [sys.executable, "-m", "clearance.simulator", "--port", "0", "--json", "--always", "from afar"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            first = json.loads(process.stdout.readline())
            with openai.OpenAI(base_url=first["base_url"], api_key="sim") as client:
                assert ask(client).choices[0].message.content == "from afar"
            assert httpx.get(f"{first['url']}/simulator/stats").json()["answered"] == 1
            assert first["pid"] == process.pid
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
        assert process.stderr.read() == ""


def test_importing_it_loads_no_http_library():
    check = (
        "import sys, clearance, clearance.simulator;"
        "print([m for m in ('starlette', 'uvicorn', 'openai') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_a_missing_library_is_named_with_the_command_that_installs_it(missing):
    check = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from clearance.simulator import Simulator\n"
        "try: Simulator().start()\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert "pip install 'clearance[demo]'" in done.stdout
