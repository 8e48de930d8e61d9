"""Looking at journals from outside, for `clearance journal list`. Reads only; nothing is quarantined by looking."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from clearance.model.amount import Amount
from clearance.remote.journal import QUARANTINE
from clearance.remote.records import BadRecord, decoded


@dataclass(frozen=True, slots=True)
class JournalLine:
    """One settlement that is not known to have arrived. `problem` is set where the file cannot be read."""

    file: str
    reservation_id: str | None = None
    mode: str = ""
    actual: Amount | None = None
    action: str = ""
    scope: str = ""
    created_at_ms: int = 0
    not_before_ms: int = 0
    refused: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Partition:
    """The journal of one server and principal; the folder's name is a hash of both."""

    folder: Path
    lines: list[JournalLine] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)


def list_journal(base: str | Path) -> list[Partition]:
    """Every partition below the folder that was given to RemoteAuthority as `journal`."""
    root = Path(base)
    if not root.is_dir():
        return []
    return [_partition(folder) for folder in sorted(root.iterdir()) if folder.is_dir() and folder.name != QUARANTINE]


def _partition(folder: Path) -> Partition:
    aside = folder / QUARANTINE
    return Partition(
        folder,
        [_line(path) for path in sorted(folder.glob("*.json"))],
        sorted(path.name for path in aside.iterdir()) if aside.is_dir() else [],
    )


def _line(path: Path) -> JournalLine:
    try:
        record = decoded(path.read_bytes())
    except (BadRecord, OSError) as error:
        return JournalLine(path.name, problem=str(error))
    origin = record.origin
    return JournalLine(
        path.name,
        record.reservation_id,
        record.mode,
        record.actual,
        f"{origin.action.kind}:{origin.action.name}" if origin else "",
        origin.subject.scope_path if origin else "",
        record.created_at_ms,
        record.not_before_ms,
        record.refused,
    )
