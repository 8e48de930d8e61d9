"""Every benchmark by name, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import (
    busy,
    crewai,
    fleet,
    growth,
    guards,
    hooks,
    langchain_overhead,
    latency,
    memory,
    peers,
    postgres,
    processes,
    server,
    shim,
    threads,
)
from benchmarks.results import Say, Section
from benchmarks.sizes import Sizes

BENCHMARKS: dict[str, Callable[[Sizes, Say], Section]] = {
    "latency": latency.run,
    "threads": threads.run,
    "processes": processes.run,
    "growth": growth.run,
    "memory": memory.run,
    "busy": busy.run,
    "peers": peers.run,
    "guard": guards.run,
    "server": server.run,
    "langchain": langchain_overhead.run,
    "postgres": postgres.run,
    "fleet": fleet.run,
    "crewai": crewai.run,
    "hooks": hooks.run,
    "shim": shim.run,
}
