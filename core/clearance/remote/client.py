"""The authority behind a URL: the same interface as the embedded one."""

from __future__ import annotations

import logging
import os
import time
import weakref
from pathlib import Path

from clearance.errors import InvalidRequest
from clearance.guard import Guarding
from clearance.remote.exchange import Exchange
from clearance.remote.journal import Journal, partition
from clearance.remote.operating import Operating
from clearance.remote.outage import OnOutage, OutageDesk
from clearance.remote.plan import Plan
from clearance.remote.replay import Background, Replayed, Replayer
from clearance.remote.runs import LocalRuns
from clearance.remote.settling import Settling
from clearance.remote.steps import perform
from clearance.remote.transport import Transport
from clearance.remote.verbs import Verbs
from clearance.remote.wire import ADMIN_KEY, TENANT_KEY, credential

log = logging.getLogger("clearance.remote")

DEFAULT_TIMEOUT_MS = 2_000
MIN_TIMEOUT_MS, MAX_TIMEOUT_MS = 10, 9_000

_authorities: weakref.WeakSet[RemoteAuthority] = weakref.WeakSet()


class RemoteAuthority(Verbs, Operating, Guarding):
    """A Clearance server, or any server of the Cycles protocol. Sync and async on one object, for any thread or loop.

    Args:
        url: http(s)://host[:port][/prefix].
        api_key: the tenant's key. It is never logged or stored.
        admin_key: for the verbs of operators; without it they use `api_key`.
        timeout_ms: for each verb with all its attempts.
        tenant: the tenant's name. The journal then stays the same when the key is changed.
        journal: the folder of settlements that are not known to have arrived; None keeps them in memory only, where
            the death of the process loses them.
        on_outage: "deny", or what may go on without the authority: see `OnOutage`.
    """

    _shell: Transport

    def __init__(
        self,
        url: str,
        *,
        api_key: str,
        admin_key: str | None = None,
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        tenant: str | None = None,
        journal: str | Path | Journal | None = None,
        on_outage: OnOutage = "deny",
        background: bool = True,
    ) -> None:
        _check_timeout(timeout_ms)
        headers = {TENANT_KEY: credential("api_key", api_key)}
        admin = {ADMIN_KEY: credential("admin_key", admin_key)} if admin_key else headers
        self._shell = Transport(url, headers, admin)
        self._has_admin_key = bool(admin_key)
        self.url = self._shell.address.name
        if not isinstance(journal, Journal):
            folder = Path(journal) / partition(self.url, tenant, api_key) if journal is not None else None
            journal = Journal(folder)
        self._journal = journal
        self._exchange = Exchange(timeout_ms / 1000)
        self._settling = Settling(journal, self._exchange, self._left)
        self._replayer = Replayer(journal, self._settling, lambda steps: perform(self._shell, steps))
        self._background = Background(self._replayer) if background else None
        self._runs = LocalRuns(self._settling)
        self._outage = OutageDesk(on_outage, journal, time.monotonic, self._settling.leave)
        self._plan = Plan(self._exchange, self._settling, self._runs, self._outage, time.monotonic)
        self._exchange.breaker.on_recovery = self._recovered
        _authorities.add(self)
        journal.tidy()
        if journal.names():
            self._left()

    def __repr__(self) -> str:
        return f"RemoteAuthority({self.url!r})"

    def flush(self, timeout: float = 5.0) -> bool:
        """Settle now what an outage has left unsettled, for at most `timeout` seconds; True when nothing is left."""
        ends_at = time.monotonic() + timeout
        done = self.flush_journal(timeout).done
        return super().flush(max(0.0, ends_at - time.monotonic())) and done

    def flush_journal(self, timeout: float = 5.0) -> Replayed:
        """The same for the journal alone, with what was done."""
        return self._replayer.flush(timeout)

    def close(self) -> None:
        """Flush for a moment, then close the connections. What is left stays in the journal."""
        if self._journal.names():
            self.flush(1.0)
        if self._background is not None:
            self._background.stop()
        self._shell.close()
        self._journal.close()

    async def aclose(self) -> None:
        """Close the connections of this event loop; `close` does the rest."""
        await self._shell.aclose()

    def after_fork(self) -> None:
        """A child settles what it opens itself; it shares no connection with its parent."""
        self._journal.renew()
        self._settling.renew()
        self._exchange.breaker.renew()
        self._runs.renew()
        self._outage.renew()
        self._plan.renew()
        if self._background is not None:
            self._background.renew()

    def _left(self) -> None:
        if self._background is not None:
            self._background.nudge()

    def _recovered(self) -> None:
        if self._background is not None:
            self._background.hasten()


def _check_timeout(timeout_ms: int) -> None:
    if isinstance(timeout_ms, bool) or not isinstance(timeout_ms, int):
        raise InvalidRequest("timeout_ms", f"is a {type(timeout_ms).__name__}", "a whole number")
    if not MIN_TIMEOUT_MS <= timeout_ms <= MAX_TIMEOUT_MS:
        raise InvalidRequest("timeout_ms", f"{timeout_ms} is refused", f"{MIN_TIMEOUT_MS} to {MAX_TIMEOUT_MS}")


def _after_fork_in_child() -> None:
    for authority in list(_authorities):
        authority.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
