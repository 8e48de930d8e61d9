"""All OpenClaw hosts that ask one server: each configuration gets a plugin of its own."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Any

from clearance.config.problems import Report
from clearance.errors import InvalidRequest
from clearance.guard import Guarding
from clearance.pricing import Prices
from clearance_hooks.capabilities import OPENCLAW
from clearance_hooks.hostconfig import parse
from clearance_hooks.openclaw.host import Answer, DenyingHost, Host, deadline_in
from clearance_hooks.plugin import PLUGIN_ID, ClearancePlugin

MAX_CONFIGURATIONS = 256
FILE = "openclaw.json"


class Desk:
    """Thread-safe. The authority stays the caller's; `close` ends the runs that are open.

    Raises InvalidRequest for an authority without guards: use the one of `clearance.connect`.
    """

    def __init__(self, authority: Any, prices: Prices | None = None) -> None:
        if not isinstance(authority, Guarding):
            raise InvalidRequest("authority", "has no guards", "an authority of clearance.connect or open_ledger")
        self._authority = authority
        self._prices = prices
        self._lock = Lock()
        self._hosts: OrderedDict[str, Host | DenyingHost] = OrderedDict()

    def answer(
        self,
        tenant: str,
        hook: str,
        event: Mapping[str, Any],
        ctx: Mapping[str, Any],
        config: Mapping[str, Any],
        timeout_ms: int | None = None,
    ) -> Answer:
        """What to return to OpenClaw. Raises AuthorityUnavailable when the ledger does not answer.

        Args:
            tenant: whose key has asked; it holds whatever the configuration names.
            config: what stands under `config:` of the plugin's entry, without `authority`.
            timeout_ms: how long the host waits for a gate.
        """
        return self._host(tenant, config).answer(hook, event, ctx, deadline_in(timeout_ms))

    def close(self) -> None:
        with self._lock:
            hosts = list(self._hosts.values())
            self._hosts.clear()
        for host in hosts:
            host.close()

    def _host(self, tenant: str, config: Mapping[str, Any]) -> Host | DenyingHost:
        key = json.dumps([tenant, config], sort_keys=True, default=str)
        with self._lock:
            found = self._hosts.get(key)
            if found is None:
                found = self._hosts[key] = self._made(tenant, config)
            self._hosts.move_to_end(key)
            oldest = self._hosts.popitem(last=False)[1] if len(self._hosts) > MAX_CONFIGURATIONS else None
        if oldest is not None:
            oldest.close()
        return found

    def _made(self, tenant: str, config: Mapping[str, Any]) -> Host | DenyingHost:
        entry = {"config": {**config, "tenant": tenant}}
        whole = {"plugins": {"entries": {PLUGIN_ID: entry}}}
        # The host fills in its variables; one that is still there is one that it did not have.
        read = parse(whole, Report(FILE), OPENCLAW, environ={})
        settings = None if not read.entries else read.entries[0].settings
        if read.problems or settings is None:
            return DenyingHost("; ".join(str(problem) for problem in read.problems) or "no settings")
        return Host(ClearancePlugin(settings, OPENCLAW, authority=self._authority, prices=self._prices))
