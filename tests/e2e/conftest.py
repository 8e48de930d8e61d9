"""Each scenario is played once; the tests then look at what the simulator counted and at what is on the books."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import clearance
from clearance import demo
from clearance.pricing import PriceBook, Usage
from clearance.simulator import RequestRecord, Simulator, Stats


@dataclass(frozen=True)
class Played:
    """One scenario, seen from outside: its JSON, the provider's own counts, and the ledger opened anew."""

    code: int
    told: dict[str, Any]
    stats: Stats
    requests: list[RequestRecord]
    books: clearance.Authority | Any

    @property
    def figures(self) -> dict[str, Any]:
        return self.told["figures"]

    @property
    def bill(self) -> int:
        """What the reported usage costs by the price list, in microcents, reckoned here once more."""
        return sum(price_of(record) for record in self.requests)

    def events(self, *types: str) -> list[clearance.Event]:
        return self.books.events(clearance.EventQuery(types=types), limit=1000)

    def settled(self, kind: str) -> list[clearance.Event]:
        return [it for it in self.events("reservation.committed") if it.data["action"]["kind"] == kind]


def price_of(record: RequestRecord) -> int:
    usage = Usage(input_tokens=record.usage.input_tokens, output_tokens=record.usage.output_tokens)
    return _BOOK.price(record.model, usage).amount


_BOOK = PriceBook()


def play(scenario: str, folder: Path, seconds: float) -> tuple[int, dict[str, Any], Simulator]:
    """Plays it in this process as JSON, with a hand on the simulator that it starts."""
    started: list[Simulator] = []

    class Witnessed(Simulator):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            started.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"clearance.demo.{scenario}.Simulator", Witnessed)
        patch.setattr(demo, "new_folder", lambda: folder)
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            code = demo.run(scenario, as_json=True, seconds=seconds)
    (simulator,) = started
    return code, json.loads(told.getvalue()), simulator


def _played(scenario: str, folder: Path, seconds: float = 1.0) -> Iterator[Played]:
    code, told, simulator = play(scenario, folder, seconds)
    books = clearance.connect(told["ledger"])
    yield Played(code, told, simulator.stats(), simulator.requests, books)
    books.close()


@pytest.fixture(scope="module")
def runaway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    yield from _played("runaway", tmp_path_factory.mktemp("runaway"))


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    yield from _played("tools", tmp_path_factory.mktemp("tools"))


@pytest.fixture(scope="module")
def parallel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    yield from _played("parallel", tmp_path_factory.mktemp("parallel"))


@pytest.fixture(scope="module")
def crash(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    yield from _played("crash", tmp_path_factory.mktemp("crash"))
