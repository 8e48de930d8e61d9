"""The settlement journal: one file per reservation, written before the first settlement request leaves the process.

A record goes only when the server has answered. Files have mode 0600 in folders of 0700, one folder per server and
principal. They hold no API key.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Literal, NamedTuple

from clearance.remote.records import BadRecord, Record, decoded

log = logging.getLogger("clearance.remote")

QUARANTINE = "quarantine"
Fsync = Literal["always", "left"]
TEMPORARY_LEFT_S = 3600.0
MAX_SPARE = 8
"""Files of removed records that are kept for the next ones: to make and unlink a file costs more than to write it."""
_numbers = count()


def partition(server: str, tenant: str | None, api_key: str) -> str:
    """The folder of one server and principal. With a tenant's name it stays the same when the key is changed."""
    who = f"tenant:{tenant}" if tenant else "key:" + hashlib.blake2b(api_key.encode(), person=b"clearance").hexdigest()
    return hashlib.sha256(f"{server}\0{who}".encode()).hexdigest()[:32]


def legacy_name(reservation_id: str) -> str:
    """How files were named before the hash; different ids could share one."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", reservation_id) + ".json"


class Entry(NamedTuple):
    """A record and the exact bytes it was read from or written as."""

    record: Record
    data: bytes


class Journal:
    """The records of one partition. With `folder` None they live in memory only. Thread- and process-safe.

    Every record survives the death of the process from before its first request on. `fsync` "always": and a power cut
    too; "left": a power cut only once it got no answer, which spares every other settlement a wait for the disk.
    `now_ms` gives epoch milliseconds.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        fsync: Fsync = "always",
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.folder = folder
        self.now_ms = now_ms
        self._always = fsync == "always"
        self._made = False
        self.renew()

    def renew(self) -> None:
        """After a fork: what lives in memory is the parent's to settle."""
        self._lock = threading.Lock()
        self._memory: dict[str, bytes] = {}
        self._spare: list[str] = []
        # Not the process id: containers that share the folder have the same ones.
        self._mark = secrets.token_hex(6)

    def close(self) -> None:
        while self._spare:
            with suppress(OSError):
                os.unlink(self._spare.pop())

    # -- writing

    def write(self, record: Record, *, first: bool = False) -> bool:
        """Keep this record, in the place of an older one of its reservation. False, and logged, if it cannot be kept
        on disk; it is then kept in memory, because the settlement must be tried all the same."""
        data = record.encoded()
        if self.folder is None:
            with self._lock:
                self._memory[record.name] = data
            return True
        try:
            self._write_file(self.folder, record.name, data, fsync=self._always or not first)
        except OSError as error:
            log.error("the journal cannot be written (%s); a crash now would lose a settlement", error.strerror)
            with self._lock:
                self._memory[record.name] = data
            return False
        return True

    def secure(self, record: Record) -> None:
        """It got no answer and may stay for long: from now on a power cut must not lose it."""
        if self.folder is None or self._always:
            return
        with suppress(OSError):  # gone, or kept in memory only
            handle = os.open(self.folder / record.name, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def _write_file(self, folder: Path, name: str, data: bytes, *, fsync: bool) -> None:
        if not self._made:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
            self._made = True
        path = f"{folder}{os.sep}{name}"
        temporary = self._spare_file() or f"{path}.{self._mark}-{next(_numbers)}.tmp"
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o600)
        except FileNotFoundError:  # somebody removed the folder
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            try:
                if os.write(handle, data) != len(data):
                    raise OSError(errno.ENOSPC, "the disk is full")
                os.ftruncate(handle, len(data))
                if fsync:
                    os.fsync(handle)
            finally:
                os.close(handle)
            os.replace(temporary, path)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise

    def _spare_file(self) -> str | None:
        try:
            return self._spare.pop()  # atomic: lists are safe between threads
        except IndexError:
            return None

    def remove(self, entry: Entry) -> None:
        """The server has answered. A record that has taken its place meanwhile stays."""
        name = entry.record.name
        with self._lock:
            if self._memory.get(name) == entry.data:
                del self._memory[name]
        if self.folder is None:
            return
        path = self.folder / name
        try:
            if path.read_bytes() == entry.data:
                self._take_away(path)
        except FileNotFoundError:
            pass  # another worker was told the same
        except OSError as error:
            log.warning("a settled journal record cannot be removed (%s); it will be asked again", error.strerror)

    def _take_away(self, path: Path) -> None:
        if len(self._spare) >= MAX_SPARE:
            path.unlink()
            return
        spare = f"{self.folder}{os.sep}spare-{self._mark}-{next(_numbers)}.tmp"
        os.rename(path, spare)
        self._spare.append(spare)

    def hold_off(self, entry: Entry, not_before_ms: int) -> Entry:
        """Nothing is sent for this record before that time, by nobody and not after a restart either."""
        return self.change(entry, replace(entry.record, not_before_ms=not_before_ms))

    def change(self, entry: Entry, record: Record) -> Entry:
        """Put the record in the place of `entry`, unless something else is there by now."""
        present = self._read(entry.record.name)
        if present is None or present == entry.data:
            self.write(record)
        return Entry(record, record.encoded())

    # -- reading

    def names(self) -> list[str]:
        """Every record; files that are not ours are left alone."""
        with self._lock:
            found = set(self._memory)
        if self.folder is not None:
            with suppress(FileNotFoundError, NotADirectoryError):
                found.update(name for name in os.listdir(self.folder) if name.endswith(".json"))
        return sorted(found)

    def read(self, name: str) -> Entry | None:
        """None if it is gone. What cannot be read, or says another name, is quarantined and reported."""
        try:
            data = self._read(name)
        except OSError as error:
            log.error("journal record %s cannot be read (%s)", name, error.strerror)
            return None
        if data is None:
            return None
        try:
            record = decoded(data)
        except BadRecord as problem:
            self.quarantine(name, str(problem))
            return None
        if record.name == name:
            return Entry(record, data)
        if record.reservation_id is not None and name == legacy_name(record.reservation_id):
            return self._migrated(name, record, data)
        self.quarantine(name, "belongs to another reservation than its name says")
        return None

    def _read(self, name: str) -> bytes | None:
        with self._lock:
            data = self._memory.get(name)
        if data is not None or self.folder is None:
            return data
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def _migrated(self, name: str, record: Record, data: bytes) -> Entry | None:
        """A file under an older naming: it moves to the name of its own id. Another id's file is never overwritten."""
        assert self.folder is not None
        target = self.folder / record.name
        try:
            os.link(self.folder / name, target)
        except FileExistsError:
            if target.read_bytes() != data:
                log.warning("journal record %s stays: %s is taken", name, record.name)
                return None
        except OSError as error:
            log.error("journal record %s cannot be moved (%s)", name, error.strerror)
            return None
        (self.folder / name).unlink(missing_ok=True)
        return Entry(record, data)

    def quarantine(self, name: str, why: str) -> None:
        """Out of the way of the others, and kept for people."""
        log.error("journal record %s %s; it is put aside in %s", name, why, QUARANTINE)
        with self._lock:
            self._memory.pop(name, None)
        if self.folder is None:
            return
        aside = self.folder / QUARANTINE
        try:
            aside.mkdir(mode=0o700, exist_ok=True)
            os.replace(self.folder / name, aside / name)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.error("journal record %s cannot be put aside (%s)", name, error.strerror)

    def quarantined(self) -> list[str]:
        if self.folder is None:
            return []
        with suppress(OSError):
            return sorted(os.listdir(self.folder / QUARANTINE))
        return []

    def age_s(self, name: str) -> float:
        """How long ago it was written; 0 for what lives in memory."""
        if self.folder is None:
            return 0.0
        try:
            return max(0.0, time.time() - (self.folder / name).stat().st_mtime)
        except OSError:
            return 0.0

    def tidy(self) -> None:
        """Remove what writers that died half way have left."""
        if self.folder is None:
            return
        with suppress(OSError):
            for path in self.folder.glob("*.tmp"):
                if time.time() - path.stat().st_mtime > TEMPORARY_LEFT_S:
                    path.unlink(missing_ok=True)
