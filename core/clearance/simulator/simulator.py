"""The simulator as users hold it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Self

from clearance.errors import InvalidRequest
from clearance.simulator.engine import Engine
from clearance.simulator.faults import FaultDesk, Faults
from clearance.simulator.prices import Price, list_price
from clearance.simulator.records import Records, RequestRecord, SimulatedUsage, Stats
from clearance.simulator.script import Script, check_error_status, check_not_negative, default_script

if TYPE_CHECKING:
    from clearance.simulator.server import ServerThread

_BACKLOG = 2048
_MISSING = "the provider simulator needs starlette and uvicorn; install them with: pip install 'clearance[demo]'"


class Simulator:
    """A model provider on this machine that speaks OpenAI's HTTP API, costs nothing and counts every request.

        with Simulator() as sim:
            llm = ChatOpenAI(base_url=sim.base_url, api_key="sim", model="gpt-4o-mini")
            llm.invoke("hello")
            assert sim.requests[-1].usage.input_tokens == 2

    Answers `/v1/chat/completions` and `/v1/responses`, whole and streamed, `/v1/embeddings` and `/v1/models`; shows
    its counts at `GET /simulator/stats` and forgets them on `POST /simulator/reset`.

    Args:
        script: what to answer, see `Script`; the default calls the first tool once, then answers in text.
        price: `price(model, usage)` in microcents (1 USD is 100,000,000), for models without fault suffixes and
            dates. The default is Clearance's own price list where it is installed; None counts no cost.
        dated: report the serving model as `<model>-2026-01-01`, as providers do.
        limit: how many records to keep; counters are exact beyond it.
        host, port: where to listen; port 0 takes a free one.

    Faults can be had without code, by the model's name; they combine, as in `gpt-4o-mini+slow-200+cut`:

        +429, +500       any status from 400 to 599; `+429-250` says to come again after 250 ms (default 1 s)
        +slow-1500       1500 ms before the answer
        +drip-50         50 ms between the chunks of a stream
        +cut, +cut-3     the connection dies after 2, or 3, chunks of a stream, at the latest before its finish
                         reason; `+cut-0`, and any cut without streaming, is before any reply
        +flaky-2         the first 2 requests for this name fail (with the fault beside it, else a 500), later work
        +nousage         the answer does not tell its usage
        +cached-100      so many of the input tokens came from the provider's cache
        +reasoning-64    so many reasoning tokens before the answer; they count against the request's cap

    One object serves many threads. It can be entered again after it was left; counts go on.
    """

    def __init__(
        self,
        *,
        script: Script = default_script,
        price: Price | None = list_price,
        dated: bool = True,
        limit: int = 100_000,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        check_not_negative("limit", limit)
        self._script = script
        self._price = price
        self._records = Records(limit)
        self._faults = FaultDesk()
        self._engine = Engine(script, self._faults, dated=dated)
        self._address = (host, port)
        self._bound: tuple[str, int] | None = None
        self._server: ServerThread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Ready for requests when it returns."""
        if self._server is not None:
            raise RuntimeError("the simulator is running already")
        app, server_thread = _http_parts()
        if self._price is list_price:
            list_price("gpt-4o-mini", SimulatedUsage(1))  # loads the list now, so that no request waits for it
        listener = socket.create_server(self._address, backlog=_BACKLOG)
        host, port = listener.getsockname()[:2]
        server: ServerThread = server_thread(app.build(self._engine, self._records, self._price, self.reset), listener)
        server.start()
        self._bound, self._server = (host, port), server

    def stop(self) -> None:
        """Ends at once; requests that still wait are dropped and counted as abandoned."""
        server, self._server, self._bound = self._server, None, None
        if server is not None:
            server.stop()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`, for the simulator's own routes."""
        if self._bound is None:
            raise RuntimeError("the simulator is not running; use it as `with Simulator() as sim:`")
        return "http://{}:{}".format(*self._bound)

    @property
    def base_url(self) -> str:
        """What clients take as `base_url`: `http://127.0.0.1:PORT/v1`."""
        return f"{self.url}/v1"

    @property
    def requests(self) -> list[RequestRecord]:
        """The finished requests, oldest first, at most `limit`."""
        return self._records.history()

    def stats(self) -> Stats:
        """Counts of all finished requests, in total and for each model; costs in microcents."""
        return self._records.stats()

    def fail_next(
        self,
        status: int | None = None,
        times: int = 1,
        *,
        retry_after_ms: int | None = None,
        delay_ms: int = 0,
        cut_after_chunks: int | None = None,
        model: str | None = None,
    ) -> None:
        """Makes the next `times` requests fail, or those for `model` (without fault suffixes) only.

        Stands in for the failures that their model names ask for. With `cut_after_chunks` the connection dies
        (0: before any reply), else `status` is answered (default 500).
        """
        if status is not None and cut_after_chunks is not None:
            raise InvalidRequest("cut_after_chunks", "was given together with status", "one of the two")
        if status is not None:
            check_error_status(status)
        if times < 1:
            raise InvalidRequest("times", f"{times} is too few", "1 or more")
        for name, value in (("retry_after_ms", retry_after_ms), ("delay_ms", delay_ms)):
            check_not_negative(name, value)
        check_not_negative("cut_after_chunks", cut_after_chunks)
        faults = Faults(
            status=500 if status is None and cut_after_chunks is None else status,
            retry_after_ms=retry_after_ms,
            delay_ms=delay_ms,
            cut_after_chunks=cut_after_chunks,
        )
        self._faults.add(faults, times, model)

    def wait_idle(self, timeout: float = 5.0) -> bool:
        """Waits until no request is in flight, e.g. after a client left a stream; False if `timeout` seconds pass."""
        return self._records.wait_idle(timeout)

    def reset(self) -> None:
        """Forgets all counts and waiting faults, and starts a `sequence` again at its first reply."""
        self._records.reset()
        self._faults.clear()
        restart = getattr(self._script, "reset", None)
        if callable(restart):
            restart()


def _http_parts() -> tuple[Any, Any]:
    """The HTTP libraries are loaded here and nowhere else: importing Clearance does not need them."""
    try:
        from clearance.simulator import app
        from clearance.simulator.server import ServerThread
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("starlette", "uvicorn"):
            raise ModuleNotFoundError(_MISSING, name=error.name) from error
        raise
    return app, ServerThread
