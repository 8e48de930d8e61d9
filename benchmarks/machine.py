"""What it was measured on, in words that say nothing about whose machine it is."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import apsw

from benchmarks.workload import folder
from clearance.store.sqlite.place import file_system

PACKAGES = ("clearance", "apsw", "pydantic", "httpx", "tokencap", "runcycles")
IN_MEMORY = ("tmpfs", "ramfs")


def machine() -> dict[str, str]:
    with folder() as place:
        kind = file_system(place) or "unknown"
    if kind in IN_MEMORY:
        kind += " (in memory: durability costs nothing here; set TMPDIR to a disk)"
    return {
        "CPU": _cpu(),
        "cores": f"{os.cpu_count()}",
        "memory": _memory(),
        "load before the run": _load(),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "file system": kind,
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "SQLite": apsw.sqlite_lib_version(),
        "packages": ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name))),
    }


def _cpu() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _memory() -> str:
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return f"{int(line.split()[1]) / 1024**2:.0f} GiB"
    return "unknown"


def _load() -> str:
    """A shared machine has a load of its own: then only ratios mean something."""
    try:
        return f"{os.getloadavg()[0]:.1f}"
    except OSError:
        return "unknown"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
