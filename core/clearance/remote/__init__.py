"""The authority over HTTP: a client of the Cycles protocol with a settlement journal."""

from __future__ import annotations

from clearance.remote.administration import Administration
from clearance.remote.client import DEFAULT_TIMEOUT_MS, RemoteAuthority
from clearance.remote.errors import BadAnswer, Forbidden, NotAuthorized, NotOffered
from clearance.remote.journal import Journal
from clearance.remote.journalfiles import JournalLine, Partition, list_journal
from clearance.remote.outage import Allowance, OnOutage
from clearance.remote.replay import Replayed

__all__ = [
    "DEFAULT_TIMEOUT_MS",
    "Administration",
    "Allowance",
    "BadAnswer",
    "Forbidden",
    "Journal",
    "JournalLine",
    "NotAuthorized",
    "NotOffered",
    "OnOutage",
    "Partition",
    "RemoteAuthority",
    "Replayed",
    "list_journal",
]
