"""Other libraries on the same machine in the same run. What they do differs, so each row says what it is."""

from __future__ import annotations

from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks import peer_runcycles, peer_tokencap
from benchmarks.floor import Floor, shapes
from benchmarks.results import Row, Say, Section
from benchmarks.samples import Measure, Samples, contest, timed
from benchmarks.sizes import Sizes
from benchmarks.workload import ACTION, ACTUAL, ESTIMATE, SUBJECT, folder, one_caller, open_ledger

HOW = (
    "One caller, everything flushed to the disk where there is a disk, all take turns. Not like for like: `tokencap` "
    "(around a call that answers at once, without its counting of tokens) keeps counters only: no reservation, no "
    "idempotency key, no audit row; it writes a second time only when more was used than estimated, as here. "
    "`runcycles` (its decorator) has no ledger of its own: here it talks to a server on this machine that answers "
    "every request with the same text and decides nothing, so its row is the cost of its client and two round trips, "
    "without any ledger; *two bare HTTP requests* is what the standard library's client needs for the same."
)
OURS = "Clearance, two calls"
WHAT = {
    "floor": "bare SQL floor",
    "ours": OURS,
    "guarded": "Clearance, decorator",
    "tokencap": "tokencap, guarded call",
    "http": "two bare HTTP requests",
    "runcycles": "runcycles, decorator, constant server",
}


def run(sizes: Sizes, say: Say) -> Section:
    section = Section("peers", "Next to other libraries", HOW)
    with folder() as place, ExitStack() as stack:
        absent: dict[str, str] = {}
        contestants = _ours(place, stack)
        for name, peer in (("tokencap", peer_tokencap.measures), ("runcycles", peer_runcycles.measures)):
            try:
                version(name)
                contestants |= peer(place, stack)
            except PackageNotFoundError:
                absent[name] = "is not installed; `make bench` installs it"
            except Exception as error:  # a peer that changed or fails must not end the run
                absent[name] = f"did not run: {type(error).__name__}: {str(error)[:80]}"
        say(", ".join(contestants))
        found = contest(contestants, sizes.rounds, sizes.one_round)
        for name, samples in found.items():
            section.rows.append(_row(name, samples, found))
        for name, why in absent.items():
            row: Row = dict.fromkeys(section.rows[0])
            section.rows.append(row | {"who": f"{name}: {why}"})
    return section


def _ours(place: Path, stack: ExitStack) -> dict[str, Measure]:
    bare = Floor(place / "floor.db", "power", shapes(place))
    stack.callback(bare.close)
    ledger = open_ledger(place / "ours.db", "power")
    stack.callback(ledger.close)

    @ledger.guard(ACTION, ESTIMATE, subject=SUBJECT, actual=ACTUAL)
    def decorated() -> None:
        pass

    return {
        "floor": bare.measure,
        "ours": lambda limit: one_caller(ledger, limit),
        "guarded": lambda limit: timed(lambda _: decorated(), limit),
    }


def _row(name: str, samples: Samples, found: dict[str, Samples]) -> Row:
    known = f" {version(name)}" if name in ("tokencap", "runcycles") else ""
    return {
        "who": WHAT[name].replace(name, name + known, 1),
        "p50 us": samples.p50,
        "p99 us": samples.p99,
        "p99.9 us": samples.tail,
        "lifecycles/s": samples.rate,
        "p50 / floor": samples.over(found["floor"]),
        "p50 / Clearance": samples.over(found["ours"]),
    }
