"""`python -m clearance.simulator`: the simulator as a process of its own, until it is interrupted."""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading

from clearance.simulator import Script, Simulator, always, calls_tool_forever, default_script


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with Simulator(script=_script(options), dated=not options.undated, host=options.host, port=options.port) as sim:
        print(_first_line(sim) if options.json else sim.base_url, flush=True)
        while not stop.wait(1.0):  # with a timeout, so that Windows sees Ctrl+C
            pass
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clearance.simulator",
        description="A model provider on this machine that speaks OpenAI's API. The first line it prints is its URL.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the first line as JSON: base_url, url, pid")
    parser.add_argument("--undated", action="store_true", help="report models without the date of a snapshot")
    script = parser.add_mutually_exclusive_group()
    script.add_argument("--always", metavar="TEXT", help="answer this text every time")
    script.add_argument("--tool-forever", metavar="NAME", help="call this tool in every answer: a runaway agent")
    return parser


def _script(options: argparse.Namespace) -> Script:
    if options.always is not None:
        return always(options.always)
    if options.tool_forever is not None:
        return calls_tool_forever(options.tool_forever)
    return default_script


def _first_line(sim: Simulator) -> str:
    return json.dumps({"base_url": sim.base_url, "url": sim.url, "pid": os.getpid()})


if __name__ == "__main__":
    raise SystemExit(main())
