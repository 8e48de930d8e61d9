"""Every benchmark by name, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import busy, growth, guards, langchain_overhead, latency, memory, peers, processes, threads
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
    "langchain": langchain_overhead.run,
}
