"""A disk that loses what was not synced: an SQLite VFS that knows what a power cut would leave of each file.

Everything goes through to real files, so the living ledger notices nothing. Beside that it keeps, for each file, what
the last sync made durable and the writes since; `cut` makes of these what could be found after a power cut: the durable
part, and of the rest any sectors or none, in no order, torn in the middle of a write.
"""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path
from typing import Any

import apsw

SECTOR = 512
REAL = "unix"


class _File:
    """What is durable of a file, and what was written since; a write is (offset, bytes), a truncation (size, None)."""

    def __init__(self) -> None:
        self.durable = bytearray()
        self.since: list[tuple[int, bytes | None]] = []

    def sync(self) -> None:
        for change in self.since:
            _apply(self.durable, *change)
        self.since.clear()

    def after_a_cut(self, rng: random.Random) -> bytearray:
        found = bytearray(self.durable)
        share = rng.choice((0.0, 0.5, 0.9, 1.0))
        for offset, data in self.since:
            if data is None:
                if rng.random() < share:
                    _apply(found, offset, None)
                continue
            start = offset
            while start < offset + len(data):
                end = min((start // SECTOR + 1) * SECTOR, offset + len(data))
                if rng.random() < share:
                    _apply(found, start, data[start - offset : end - offset])
                start = end
        return found


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class LossyDisk(apsw.VFS):
    """The default VFS of this process from its making until `close`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.files: dict[str, _File] = {}
        self.syncs = 0
        super().__init__("lossy", REAL, makedefault=True)

    def close(self) -> None:
        self.unregister()

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        return _Handle(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        with self.lock:
            self.files.pop(os.path.realpath(filename), None)

    def cut(self, source: Path, target: Path, rng: random.Random) -> None:
        """Write into one folder what a power cut at this moment leaves of the files in another."""
        with self.lock:
            here = {Path(path): file for path, file in self.files.items() if Path(path).parent == source.resolve()}
            found = {path.name: file.after_a_cut(rng) for path, file in here.items()}
        for name, content in found.items():
            (target / name).write_bytes(content)


class _Handle(apsw.VFSFile):
    def __init__(self, disk: LossyDisk, name: Any, flags: list[int]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._disk = disk
        self._name = os.path.realpath(path) if path else None
        super().__init__(REAL, name, flags)
        if self._name:
            with disk.lock:
                disk.files.setdefault(self._name, _File())

    def xWrite(self, data: bytes, offset: int) -> None:
        with self._disk.lock:
            super().xWrite(data, offset)
            if self._name:
                self._disk.files.setdefault(self._name, _File()).since.append((offset, bytes(data)))

    def xTruncate(self, size: int) -> None:
        with self._disk.lock:
            super().xTruncate(size)
            if self._name:
                self._disk.files.setdefault(self._name, _File()).since.append((size, None))

    def xSync(self, flags: int) -> None:
        """The real files need no sync: what would be left of them is kept here."""
        with self._disk.lock:
            self._disk.syncs += 1
            if self._name and self._name in self._disk.files:
                self._disk.files[self._name].sync()
