"""What `clearance doctor` looks at. Each check gives findings: a name, a level, what was found, what to do."""

from __future__ import annotations

import importlib.util
import os
import platform
import time
from collections.abc import Iterator
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from clearance.errors import ClearanceError, StoreVersion

if TYPE_CHECKING:
    from clearance.cli.session import Session
    from clearance.connecting import LocalAuthority

Level = Literal["ok", "warn", "fail"]
EXTRAS = {
    "cli": ("typer", "rich", "yaml"),
    "prices": ("genai_prices",),
    "langchain": ("langchain_core", "genai_prices"),
    "demo": ("langchain", "langchain_classic", "langchain_openai", "langgraph", "starlette", "uvicorn"),
}
FIRST_RELEASE_MS = 1_767_225_600_000
"""Start of 2026: no clock that is right shows less."""
CLOCK_SLACK_MS = 5_000


class Finding(NamedTuple):
    name: str
    level: Level
    text: str
    todo: str = ""


def versions() -> dict[str, Any]:
    import apsw

    try:
        own = metadata.version("clearance")
    except metadata.PackageNotFoundError:
        own = "not installed (runs from its source)"
    return {"clearance": own, "python": platform.python_version(), "sqlite": apsw.sqlite_lib_version()}


def examine(session: Session) -> list[Finding]:
    return [*_software(), *_extras(), *_clock(), *_ledger(session)]


def _software() -> Iterator[Finding]:
    from clearance.store.sqlite.place import MIN_SQLITE

    found = versions()
    yield Finding("versions", "ok", f"clearance {found['clearance']}, Python {found['python']} on {platform.system()}")
    wanted = ".".join(map(str, MIN_SQLITE))
    if tuple(map(int, found["sqlite"].split("."))) < MIN_SQLITE:
        yield Finding(
            "sqlite", "fail", f"{found['sqlite']} can lose data", f"pip install -U apsw (SQLite {wanted} or newer)"
        )
    else:
        yield Finding("sqlite", "ok", f"{found['sqlite']}, safe for several processes ({wanted} or newer)")


def _extras() -> Iterator[Finding]:
    for extra, modules in EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if not missing:
            yield Finding(f"extra {extra}", "ok", "installed")
        elif extra == "prices":
            text = "not installed: only models with a price in clearance.yaml are known"
            yield Finding("extra prices", "warn", text, "pip install 'clearance[prices]'")
        else:
            yield Finding(f"extra {extra}", "ok", f"not installed (pip install 'clearance[{extra}]' if you want it)")


def _clock() -> Iterator[Finding]:
    now_ms = time.time_ns() // 1_000_000
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_ms / 1000))
    if now_ms < FIRST_RELEASE_MS:
        yield Finding(
            "clock", "fail", f"shows {shown}, which is past", "set the clock: leases and periods depend on it"
        )
    else:
        yield Finding("clock", "ok", shown)


def _ledger(session: Session) -> Iterator[Finding]:
    from clearance.cli.session import ledger_path, open_authority
    from clearance.connecting import is_postgres

    try:
        url, durability = session.place()
        path = ledger_path(url)
    except ClearanceError as error:
        yield Finding("ledger", "fail", error.message, "correct --ledger, CLEARANCE_URL or the configuration")
        return
    if is_postgres(url):
        yield from _database(session, url)
        return
    if path is not None:
        yield from _place(path)
    if path is None or not path.exists():
        where = "in memory" if path is None else f"none yet at {path}"
        yield Finding("ledger", "ok", f"{where}; `clearance budget set` or `clearance apply` makes one")
        yield from _config(session, None)
        return
    try:
        with closing(open_authority(url, durability)) as authority:
            yield from _opened(authority)
            yield from _config(session, authority)
    except ClearanceError as error:
        yield Finding("ledger", "fail", error.message, "see the message; the file was left as it is")


def _database(session: Session, url: str) -> Iterator[Finding]:
    """A PostgreSQL ledger, looked at as it is: its schema is left alone."""
    from clearance.connecting import LocalAuthority, open_store

    try:
        with closing(LocalAuthority(open_store(url, migrate=False), background=False)) as authority:
            yield from _opened(authority)
            yield from _config(session, authority)
    except StoreVersion as error:
        yield Finding(
            "schema", "fail", error.message, "`clearance db status` shows it, `clearance db migrate` makes it"
        )
    except ClearanceError as error:
        yield Finding("ledger", "fail", error.message, "see the message; nothing was changed")


def _place(path: Path) -> Iterator[Finding]:
    from clearance.store.sqlite.place import NETWORK_FILE_SYSTEMS, file_system

    kind = file_system(path)
    if kind in NETWORK_FILE_SYSTEMS:
        yield Finding(
            "file system",
            "fail",
            f"{kind}, a network file system: its locks do not hold",
            "move the ledger to a local disk",
        )
    else:
        yield Finding("file system", "ok", kind or "cannot be told on this system; it must be a local disk")
    folder = next(it for it in (path.parent, *path.parents) if it.exists())
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        yield Finding("folder", "ok", f"{folder} can be written")
    else:
        yield Finding(
            "folder",
            "fail",
            f"{folder} cannot be written",
            "give this user the right to write, or choose another place",
        )


def _opened(authority: LocalAuthority) -> Iterator[Finding]:
    facts = authority.describe()
    size = f"{facts.get('bytes', 0):,} bytes"
    if facts["engine"] == "postgresql":
        yield Finding("ledger", "ok", f"{facts['path']}, PostgreSQL {facts['postgresql']}, {size}")
        yield _syncs(facts)
    else:
        yield Finding("ledger", "ok", f"{facts['path']}, {size} and {facts.get('wal_bytes', 0):,} in its log")
    yield Finding("schema", "ok", f"{facts.get('schema', '?')}, the newest that this version knows")
    problems = authority.check()
    if problems:
        text = f"{len(problems)} problems, the first: {problems[0]}"
        yield Finding("integrity", "fail", text, "stop all users of it, keep a copy, restore the last backup")
    else:
        yield Finding("integrity", "ok", "all of it was read and is sound")
    yield _last_event(authority)


def _syncs(facts: dict[str, Any]) -> Finding:
    if facts["fsync"] == "off" or facts["synchronous_commit"] == "off":
        text = f"fsync is {facts['fsync']}, synchronous_commit is {facts['synchronous_commit']}"
        return Finding("durability", "warn", text, "switch both on: a crash of the server forgets spend otherwise")
    return Finding("durability", "ok", "commits wait for the disk")


def _last_event(authority: LocalAuthority) -> Finding:
    from clearance.store.interface import EventQuery

    last = authority.events(EventQuery(descending=True), limit=1)
    ahead_ms = last[0].at_ms - time.time_ns() // 1_000_000 if last else 0
    if ahead_ms > CLOCK_SLACK_MS:
        text = f"the last event lies {ahead_ms // 1000:,} s in the future"
        return Finding(
            "ledger's time", "warn", text, "the clock of this or another machine was wrong; leases may end late"
        )
    return Finding(
        "ledger's time",
        "ok",
        f"the last event is number {last[0].seq:,}, none is from the future" if last else "no events yet",
    )


def _config(session: Session, authority: LocalAuthority | None) -> Iterator[Finding]:
    from clearance.cli.facts import all_balances
    from clearance.config import load, plan

    path = session.config_path()
    if path is None:
        yield Finding("configuration", "ok", "none (clearance.yaml is optional)")
        return
    try:
        config = load(path)
        found = plan(config.budgets, all_balances(authority) if authority else [])
    except ClearanceError as error:
        yield Finding("configuration", "fail", error.message, f"correct {path}")
        return
    if found.changes:
        text = f"{path} differs from the ledger in {found.changed} budgets"
        yield Finding("configuration", "warn", text, "`clearance apply --dry-run` shows them")
    else:
        yield Finding("configuration", "ok", f"{path} is valid and applied")
