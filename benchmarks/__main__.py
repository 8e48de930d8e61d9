"""`python -m benchmarks [NAME ...] [--quick] [--json]`."""

from __future__ import annotations

import argparse
import sys
from datetime import date
from pathlib import Path
from time import perf_counter

from benchmarks.catalogue import BENCHMARKS
from benchmarks.machine import machine
from benchmarks.report import as_json, document, markdown
from benchmarks.sizes import FULL, QUICK

RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> None:
    chosen = _arguments()
    names = chosen.names or list(BENCHMARKS)
    sizes = QUICK if chosen.quick else FULL
    facts, sections, began = machine(), [], perf_counter()
    for name in names:
        _say(name)
        sections.append(BENCHMARKS[name](sizes, lambda text: _say(f"  {text}")))
        if not chosen.json:
            print(f"\n{markdown(sections[-1])}", flush=True)
    today, seconds = date.today().isoformat(), perf_counter() - began
    if chosen.json:
        print(as_json(sections, facts, today, sizes.name))
    if len(names) == len(BENCHMARKS) and not chosen.quick:
        RESULTS.write_text(document(sections, facts, today, sizes.name, seconds), encoding="utf-8")
        _say(f"written: {RESULTS.name}")
    _say(f"{seconds:.0f} s")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure what Clearance costs. A full run of everything is written to RESULTS.md; a quick run, or "
        "one of some benchmarks only, is printed and leaves that file alone.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="one of: " + ", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="about a minute; figures are rough")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    chosen.names = list(dict.fromkeys(chosen.names))
    return chosen


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
