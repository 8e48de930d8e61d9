"""When it is tried again, and when nobody is asked at all; with a clock of our own."""

from __future__ import annotations

import pytest

from clearance.errors import AuthorityUnavailable, LimitExceeded
from clearance.model.amount import usd
from clearance.remote.breaker import FAILURES_TO_OPEN, FIRST_PAUSE_S, MAX_PAUSE_S, Breaker
from clearance.remote.exchange import Exchange
from clearance.remote.requests import commit
from clearance.remote.retries import MAX_ATTEMPTS, Doubt, wait_seconds
from clearance.remote.steps import Pause, Send, perform
from clearance.remote.wire import NoAnswer, Request, Response

OUT = Doubt(AuthorityUnavailable("x"), outage=True)
COMMIT = commit("r", usd(1), "k", {}, None)
DONE = Response(200, {}, b'{"status":"COMMITTED","charged":{"unit":"USD_MICROCENTS","amount":100000000}}')


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Shell:
    """Answers from a list; an exception is raised, a response given back. Each takes `takes_s`."""

    def __init__(self, time: Time, *answers: Response | NoAnswer, takes_s: float = 0.0) -> None:
        self.time, self.answers, self.takes_s = time, list(answers), takes_s
        self.sent: list[tuple[Request, float]] = []
        self.pauses: list[float] = []

    def send(self, request: Request, timeout_s: float) -> Response:
        self.sent.append((request, timeout_s))
        self.time.now += min(timeout_s, self.takes_s)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, NoAnswer):
            raise answer
        return answer

    async def asend(self, request: Request, timeout_s: float) -> Response:
        return self.send(request, timeout_s)

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.time.now += seconds


def run(shell: Shell, exchange: Exchange, timeout_s: float | None = None) -> object:
    return perform(shell, exchange.of(COMMIT, timeout_s), shell.pause)


def test_delays_double_with_jitter_and_end_with_the_attempts() -> None:
    waits = [wait_seconds(OUT, n, 10.0, repeatable=True, jitter=lambda: 1.0) for n in range(1, MAX_ATTEMPTS + 1)]
    assert waits == [0.04, 0.08, None]
    assert wait_seconds(OUT, 1, 10.0, repeatable=True, jitter=lambda: 0.0) == 0.02


def test_what_may_have_arrived_is_only_repeated_with_a_key_that_the_server_knows() -> None:
    assert wait_seconds(OUT, 1, 10.0, repeatable=False) is None
    unsent = Doubt(AuthorityUnavailable("x"), sent=False, outage=True)
    assert wait_seconds(unsent, 1, 10.0, repeatable=False) is not None


def test_retry_after_is_kept_exactly_or_not_waited_for() -> None:
    limited = Doubt(LimitExceeded("x"), retry_after_s=3.0)
    assert wait_seconds(limited, 1, 5.0, repeatable=True) == 3.0
    assert wait_seconds(limited, 1, 2.0, repeatable=True) is None


def test_every_attempt_is_the_same_request_within_one_deadline() -> None:
    time = Time()
    shell = Shell(time, NoAnswer("cut", True), NoAnswer("cut", True), DONE, takes_s=0.3)
    run(shell, Exchange(2.0, clock=time))
    assert len(shell.sent) == 3
    assert len({request.body for request, _ in shell.sent}) == 1
    assert sum(timeout for _, timeout in shell.sent[:1]) == pytest.approx(1.2)
    assert all(timeout <= 2.0 for _, timeout in shell.sent)


def test_a_black_hole_costs_the_deadline_and_not_more() -> None:
    time = Time()
    shell = Shell(time, NoAnswer("nothing", True), takes_s=99)
    with pytest.raises(AuthorityUnavailable):
        run(shell, Exchange(2.0, clock=time))
    assert time.now - 100.0 <= 2.05
    assert len(shell.sent) >= 2, "an answer that was lost is asked for again"


def test_the_breaker_opens_probes_once_and_closes() -> None:
    time = Time()
    recovered: list[float] = []
    breaker = Breaker(time, jitter=lambda: 1.0)
    breaker.on_recovery = lambda: recovered.append(time.now)
    for _ in range(FAILURES_TO_OPEN):
        breaker.leave(breaker.enter(), True)
    assert breaker.state == "open"
    with pytest.raises(AuthorityUnavailable) as caught:
        breaker.enter()
    assert caught.value.retry_after_ms
    time.now += FIRST_PAUSE_S + 0.01
    assert breaker.state == "half-open"
    assert breaker.enter() is True
    with pytest.raises(AuthorityUnavailable):
        breaker.enter()  # one probe at a time
    breaker.leave(True, True)
    assert breaker.state == "open"
    time.now += 2 * FIRST_PAUSE_S + 0.01
    breaker.leave(breaker.enter(), False)
    assert breaker.state == "closed"
    assert breaker.enter() is False
    assert len(recovered) == 1


def test_the_pause_of_the_breaker_is_bounded() -> None:
    time = Time()
    breaker = Breaker(time, jitter=lambda: 1.0)
    for _ in range(FAILURES_TO_OPEN):
        breaker.leave(breaker.enter(), True)
    for _ in range(20):
        time.now += MAX_PAUSE_S + 0.01
        breaker.leave(breaker.enter(), True)
    time.now += MAX_PAUSE_S + 0.01
    assert breaker.state == "half-open"


def test_an_interrupted_probe_lets_the_next_one_through() -> None:
    time = Time()
    breaker = Breaker(time)
    for _ in range(FAILURES_TO_OPEN):
        breaker.leave(breaker.enter(), True)
    time.now += MAX_PAUSE_S
    breaker.leave(breaker.enter(), None)
    assert breaker.enter() is True


def test_a_denial_or_a_limit_does_not_open_the_breaker() -> None:
    time = Time()
    exchange = Exchange(2.0, clock=time)
    denied = Response(409, {}, b'{"error":"BUDGET_EXCEEDED","message":"m","request_id":"r"}')
    limited = Response(429, {"retry-after": "9"}, b"")
    for answer in [denied, limited] * 10:
        with pytest.raises(Exception):  # noqa: B017
            run(Shell(time, answer), exchange)
    assert exchange.breaker.state == "closed"


def test_a_limit_after_an_attempt_without_an_answer_is_not_taken_for_a_no() -> None:
    time = Time()
    shell = Shell(time, NoAnswer("cut", True), Response(429, {"retry-after": "60"}, b""))
    with pytest.raises(AuthorityUnavailable) as caught:
        run(shell, Exchange(2.0, clock=time))
    assert caught.value.retry_after_ms == 60_000


def test_while_the_breaker_is_open_nothing_is_sent() -> None:
    time = Time()
    exchange = Exchange(2.0, clock=time)
    shell = Shell(time, NoAnswer("refused", False))
    for _ in range(3):
        with pytest.raises(AuthorityUnavailable):
            run(shell, exchange)
    sent = len(shell.sent)
    with pytest.raises(AuthorityUnavailable):
        run(shell, exchange)
    assert len(shell.sent) == sent


def test_an_interruption_goes_through_the_steps_at_once() -> None:
    steps = Exchange(2.0).of(COMMIT)
    assert isinstance(next(steps), Send)
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt())
    steps = Exchange(2.0, jitter=lambda: 0.5).of(COMMIT)
    next(steps)
    assert isinstance(steps.throw(NoAnswer("cut", True)), Pause)
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt())
