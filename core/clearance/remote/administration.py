"""Tenants, API keys and webhooks of a server, over its admin routes. Sync; answers are the server's JSON objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Self, TypeVar
from urllib.parse import quote

from clearance.errors import AuthorityUnavailable, NotFound
from clearance.remote.errors import Forbidden, NotAuthorized
from clearance.remote.exchange import Exchange
from clearance.remote.steps import perform
from clearance.remote.transport import Transport
from clearance.remote.wire import (
    ADMIN_KEY,
    TENANT_KEY,
    VENDOR,
    Call,
    Json,
    Unreadable,
    credential,
    get,
    optional_text,
    post,
)

TENANTS = "/v1/admin/tenants"
KEYS = "/v1/admin/api-keys"
PAGE = 100
TIMEOUT_MS = 5_000

T = TypeVar("T")


class Administration:
    """One server, asked with the operator's key or, for a tenant's own webhooks, with a tenant's key.

    `key_from` is where the key was found, for the message when the server refuses it.

    Raises NotFound, Conflict, InvalidRequest and NotAuthorized for what the server refuses, AuthorityUnavailable where
    it does not answer, BadAnswer where the answer is not the protocol's.
    """

    def __init__(
        self,
        url: str,
        *,
        admin_key: str | None = None,
        api_key: str | None = None,
        key_from: str = "the key given",
        timeout_ms: int = TIMEOUT_MS,
    ) -> None:
        if admin_key:
            header = {ADMIN_KEY: credential("admin_key", admin_key)}
        else:
            header = {TENANT_KEY: credential("api_key", api_key or "")}
        self._shell = Transport(url, header, header)
        self._exchange = Exchange(timeout_ms / 1000)
        self._webhooks = "/v1/admin/webhooks" if admin_key else "/v1/webhooks"
        self._key_from = key_from
        self.is_admin = bool(admin_key)
        self.url = self._shell.address.name

    def close(self) -> None:
        self._shell.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- tenants

    def create_tenant(self, tenant: str, facts: Mapping[str, Any]) -> tuple[Json, bool]:
        """The tenant, and whether it is new: one that is there stays as it is."""
        with suppress(NotFound):
            return self.tenant(tenant), False
        body = {"tenant_id": tenant, **facts}
        return self._send("POST", TENANTS, body, 201, or_status=200, repeatable=True), True

    def tenants(self, status: str | None = None) -> list[Json]:
        return list(self._all(TENANTS, "tenants", {"status": status}))

    def tenant(self, tenant: str) -> Json:
        return self._get(_below(TENANTS, tenant))

    def change_tenant(self, tenant: str, facts: Mapping[str, Any]) -> Json:
        """Settings, or `status`: ACTIVE, SUSPENDED, or CLOSED for good."""
        return self._send("PATCH", _below(TENANTS, tenant), facts, repeatable=True)

    # -- keys

    def create_key(self, tenant: str, facts: Mapping[str, Any]) -> Json:
        """With `key_secret`, which is told this once."""
        return self._send("POST", KEYS, {"tenant_id": tenant, **facts}, 201)

    def keys(self, tenant: str | None = None, status: str | None = None) -> list[Json]:
        return list(self._all(KEYS, "keys", {"tenant_id": tenant, "status": status}))

    def revoke_key(self, key_id: str, reason: str | None = None) -> Json:
        return self._send("DELETE", _with(_below(KEYS, key_id), reason=reason), None, repeatable=True)

    def rotate_key(self, key_id: str, overlap_seconds: int = 0) -> Json:
        """A new secret with the rights of the old, which ends at once or after the overlap."""
        path = _below(f"{VENDOR}/api-keys", key_id) + "/rotate"
        return self._send("POST", path, {"overlap_seconds": overlap_seconds}, 201)

    # -- webhooks

    def create_webhook(self, facts: Mapping[str, Any]) -> Json:
        """With `signing_secret`, which is told this once."""
        return self._send("POST", self._webhooks, facts, 201)

    def webhooks(self, tenant: str | None = None) -> list[Json]:
        return list(self._all(self._webhooks, "subscriptions", {"tenant_id": tenant}))

    def webhook(self, webhook_id: str) -> Json:
        return self._get(_below(self._webhooks, webhook_id))

    def change_webhook(self, webhook_id: str, facts: Mapping[str, Any]) -> Json:
        return self._send("PATCH", _below(self._webhooks, webhook_id), facts, repeatable=True)

    def delete_webhook(self, webhook_id: str) -> None:
        self._send("DELETE", _below(self._webhooks, webhook_id), None, 204)

    def deliveries(self, webhook_id: str, status: str | None = None, most: int = 50) -> list[Json]:
        """The latest `most` of what the server keeps, oldest first."""
        path = _below(self._webhooks, webhook_id) + "/deliveries"
        return list(self._all(path, "deliveries", {"status": status}))[-most:]

    def replay(self, webhook_id: str, facts: Mapping[str, Any]) -> Json:
        """Deliver again what happened in a window. With the operator's key only."""
        return self._send("POST", _below("/v1/admin/webhooks", webhook_id) + "/replay", facts, 202)

    # -- asking

    def _ask(self, call: Call[T]) -> T:
        try:
            return perform(self._shell, self._exchange.of(call))
        except AuthorityUnavailable as error:
            doubt = "; it may have taken effect all the same, so look before you try again"
            message = f"{self.url}: {error.message}{'' if call.request.method == 'GET' else doubt}"
            raise AuthorityUnavailable(message, details=error.details) from None
        except NotAuthorized as error:
            refused = error.message if isinstance(error, Forbidden) else f"the key is not accepted, {error.message}"
            raise type(error)(f"{self.url}: {refused} ({self._key_from})", details=error.details) from None

    def _get(self, path: str) -> Json:
        return self._ask(Call("get", get(path), lambda data: data))

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        status: int = 200,
        *,
        or_status: int | None = None,
        repeatable: bool = False,
    ) -> Json:
        request = (get(path) if body is None else post(path, dict(body)))._replace(method=method)
        call: Call[Json] = Call(method.lower(), request, lambda data: data, status, or_status, repeatable=repeatable)
        return self._ask(call)

    def _all(self, path: str, name: str, filters: dict[str, str | None]) -> Iterator[Json]:
        cursor: str | None = None
        while True:
            query = {**filters, "limit": PAGE, "cursor": cursor}
            page = self._ask(Call("list", get(path, query), _listed(name)))
            yield from page[0]
            cursor = page[1]
            if cursor is None:
                return


def _listed(name: str) -> Any:
    def read(data: Json) -> tuple[list[Json], str | None]:
        found = data.get(name)
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise Unreadable(f"{name} is no list of objects")
        return found, optional_text(data, "next_cursor")

    return read


def _below(home: str, name: str) -> str:
    return f"{home}/{quote(name, safe='')}"


def _with(path: str, **query: str | None) -> str:
    return get(path, query).path
