"""Faults on request, and what is counted when a connection ends early."""

from __future__ import annotations

import time

import httpx
import openai
import pytest

from clearance.errors import InvalidRequest
from clearance.simulator import Reply, SimulatedUsage, Simulator, sequence

MODEL = "gpt-4o-mini"
HELLO = [{"role": "user", "content": "hello there"}]
CUT = (openai.APIConnectionError, httpx.RemoteProtocolError)  # older clients let the latter through


def ask(client, model=MODEL, **options):
    return client.chat.completions.create(model=model, messages=HELLO, **options)


def post(sim, **body):
    return httpx.post(f"{sim.base_url}/chat/completions", json={"model": MODEL, "messages": HELLO, **body})


def test_429_says_when_to_come_again_and_costs_nothing(sim, client):
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client, f"{MODEL}+429")
    assert caught.value.response.headers["retry-after"] == "1"
    assert caught.value.code == "rate_limit_exceeded"
    record = sim.requests[-1]
    assert (record.status, record.outcome, record.model) == (429, "error", MODEL)
    assert (record.usage, record.cost) == (SimulatedUsage(), 0)


def test_429_can_say_another_time(sim):
    headers = post(sim, model=f"{MODEL}+429-250").headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("1", "250")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
        (401, openai.AuthenticationError),
        (404, openai.NotFoundError),
        (418, openai.APIStatusError),
    ],
)
def test_any_status_can_be_asked_for(client, status, error):
    with pytest.raises(error) as caught:
        ask(client, f"{MODEL}+{status}")
    assert caught.value.status_code == status


def test_a_stream_fails_with_a_status_before_it_starts(client):
    with pytest.raises(openai.InternalServerError):
        ask(client, f"{MODEL}+500", stream=True)


def test_flaky_fails_so_often_and_then_works(sim, client):
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            ask(client, f"{MODEL}+flaky-2")
    assert ask(client, f"{MODEL}+flaky-2").choices
    assert [record.status for record in sim.requests] == [500, 500, 200]


def test_a_retrying_client_gets_through_a_flaky_429(sim, client_for):
    assert ask(client_for(sim, max_retries=2), f"{MODEL}+429-10+flaky-2").choices
    assert sim.stats()["statuses"] == {"429": 2, "200": 1}


def test_slow_delays_the_answer(client):
    started = time.monotonic()
    ask(client, f"{MODEL}+slow-120")
    assert time.monotonic() - started >= 0.12


def test_drip_delays_every_chunk(client):
    started = time.monotonic()
    chunks = list(ask(client, f"{MODEL}+drip-10", stream=True))
    assert time.monotonic() - started >= 0.01 * (len(chunks) - 1)


def test_a_slow_request_does_not_hold_up_others(sim, client):
    with pytest.raises(openai.APITimeoutError):
        ask(client, f"{MODEL}+slow-60000", timeout=openai.Timeout(5, read=0.05))
    started = time.monotonic()
    ask(client)
    assert time.monotonic() - started < 1


def test_a_client_that_leaves_before_a_whole_answer_pays_for_it(sim, client):
    with pytest.raises(openai.APITimeoutError):
        ask(client, f"{MODEL}+slow-60000", timeout=openai.Timeout(5, read=0.05))
    assert sim.wait_idle()
    record = sim.requests[-1]
    assert (record.outcome, record.status, record.usage) == ("abandoned", 0, SimulatedUsage(3, 0, 8, 0))


def test_a_client_that_leaves_a_stream_pays_for_what_was_generated(sim, client):
    stream = ask(client, f"{MODEL}+drip-20", stream=True)
    next(stream), next(stream), next(stream)
    stream.close()
    assert sim.wait_idle()
    record = sim.requests[-1]
    assert (record.outcome, record.status, record.usage.input_tokens) == ("abandoned", 200, 3)
    assert 2 <= record.usage.output_tokens < 8


def test_a_cut_stream_never_tells_how_it_ended(sim, client):
    seen = []
    with pytest.raises(CUT):
        seen.extend(ask(client, f"{MODEL}+cut-4", stream=True, stream_options={"include_usage": True}))
    assert len(seen) == 4
    assert all(chunk.usage is None and chunk.choices[0].finish_reason is None for chunk in seen)
    record = sim.requests[-1]
    assert (record.outcome, record.status, record.usage.output_tokens) == ("cut", 200, 3)


def test_a_late_cut_still_comes_before_the_finish_reason(sim):
    received = []
    with (
        httpx.stream(
            "POST",
            f"{sim.base_url}/chat/completions",
            json={
                "model": f"{MODEL}+cut-999",
                "messages": HELLO,
                "stream": True,
            },
        ) as response,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        received.extend(line for line in response.iter_lines() if line)
    assert sim.requests[-1].usage.output_tokens == 8


def test_a_responses_stream_can_be_cut_too(sim, client):
    with pytest.raises(CUT):
        list(client.responses.create(model=f"{MODEL}+cut-6", input="hello there", stream=True))
    assert (sim.requests[-1].outcome, sim.requests[-1].usage.output_tokens) == ("cut", 2)


@pytest.mark.parametrize("stream", [True, False])
def test_a_cut_before_the_reply_sends_nothing(sim, stream):
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        post(sim, model=f"{MODEL}+cut-0", stream=stream)
    record = sim.requests[-1]
    assert (record.outcome, record.status) == ("cut", 0)
    assert record.usage == SimulatedUsage(3, 0, 0 if stream else 8, 0)


def test_faults_combine(sim):
    started = time.monotonic()
    assert post(sim, model=f"{MODEL}+slow-50+503").status_code == 503
    assert time.monotonic() - started >= 0.05


@pytest.mark.parametrize("suffix", ["what", "slow", "429-x", "nousage-3", "200", "flaky", ""])
def test_an_unknown_fault_is_refused_with_those_that_exist(sim, suffix):
    answer = post(sim, model=f"{MODEL}+{suffix}")
    assert answer.status_code == 400
    assert "+slow-1500" in answer.json()["error"]["message"]


def test_the_next_requests_fail_when_told_to(sim, client):
    sim.fail_next(status=429, times=2, retry_after_ms=20)
    for _ in range(2):
        with pytest.raises(openai.RateLimitError):
            ask(client)
    assert ask(client).choices


def test_only_the_named_model_fails(sim, client):
    sim.fail_next(model="gpt-4o")
    assert ask(client).choices
    with pytest.raises(openai.InternalServerError):
        ask(client, "gpt-4o")


def test_the_next_connection_dies_when_told_to(sim, client):
    sim.fail_next(cut_after_chunks=0)
    with pytest.raises(openai.APIConnectionError):
        ask(client)
    assert sim.requests[-1].outcome == "cut"


def test_a_failed_request_takes_no_reply_from_the_script(start, client_for):
    sim = start(script=sequence(["first"]))
    sim.fail_next()
    with pytest.raises(openai.InternalServerError):
        ask(client_for(sim))
    assert ask(client_for(sim)).choices[0].message.content == "first"


@pytest.mark.parametrize(
    "wrong", [{"status": 200}, {"status": 500, "cut_after_chunks": 1}, {"times": 0}, {"delay_ms": -1}]
)
def test_fail_next_refuses_what_makes_no_sense(wrong):
    with pytest.raises(InvalidRequest):
        Simulator().fail_next(**wrong)


def test_a_script_can_fail_cut_and_delay(start, client_for):
    replies = {
        1: Reply(status=429, retry_after_ms=5),
        2: Reply(text="a b", cut_after_chunks=1),
        3: Reply("late", delay_ms=50),
    }
    sim = start(script=lambda request: replies[request.number])
    client = client_for(sim)
    with pytest.raises(openai.RateLimitError):
        ask(client)
    with pytest.raises(CUT):
        list(ask(client, stream=True))
    started = time.monotonic()
    assert ask(client).choices[0].message.content == "late"
    assert time.monotonic() - started >= 0.05
    assert [record.outcome for record in sim.requests] == ["error", "cut", "answered"]


def test_a_reply_refuses_a_status_that_is_no_error():
    with pytest.raises(InvalidRequest):
        Reply(status=302)
