"""The description drives schemathesis against a running server: data that it allows and data that it does not, asked
by two tenants, the operator and nobody. Never a 5xx, every answer in its schema, what is wrong is refused.

CLEARANCE_SOAK_EXAMPLES makes it longer. CLEARANCE_CYCLES_SPEC names the protocol's own OpenAPI file, which is then
driven as well.
"""

from __future__ import annotations

import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi import checks as openapi_checks
from tests.server.kit import ADMIN, ADMIN_KEY, Tenant, World, problem, running

from clearance.connecting import LocalAuthority
from clearance.server.openapi import document
from clearance.server.settings import Settings
from clearance.store.sqlite import MEMORY, SqliteStore

EXAMPLES = int(os.environ.get("CLEARANCE_SOAK_EXAMPLES", "6"))
OFFICIAL = os.environ.get("CLEARANCE_CYCLES_SPEC")
load_all_checks()
CHECKS = [
    not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]
ENDLESS = "/v1/x-clearance/stream"
POLITE = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 6,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Callers:
    """Two tenants with some of everything, and the operator."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.tenants = [self._furnished(world), self._furnished(world)]
        self.statuses: Counter[int] = Counter()

    def _furnished(self, world: World) -> Tenant:
        tenant = world.tenant()
        tenant.budget(10**9)
        return tenant

    def headers(self, kinds: list[str], turn: int) -> dict[str, str]:
        """Of one of those who may ask."""
        if not kinds:
            return {}
        if kinds == ["admin"] or ("admin" in kinds and turn % 3 == 0):
            return ADMIN
        return self.tenants[turn % 2].headers

    def known(self, name: str, turn: int) -> str | None:
        """An id that there is: mostly the caller's own, at times the other tenant's."""
        if turn % 4 == 3:
            return None
        number = (turn + (turn % 8 == 2)) % 2
        try:
            return self._made(name, self.tenants[number])
        except AssertionError:  # something that was allowed has closed it, or spent it all
            self.tenants[number] = self._furnished(self.world)
            return self._made(name, self.tenants[number])

    def _made(self, name: str, tenant: Tenant) -> str | None:
        made = {
            "reservation_id": lambda: tenant.hold(1),
            "tenant_id": lambda: tenant.name,
            "key_id": lambda: self.world.key_of(tenant.name).key_id,
            "event_id": lambda: "log_000000000003",
        }
        return made[name]() if name in made else None


@pytest.fixture(scope="module")
def callers() -> Iterator[Callers]:
    authority = LocalAuthority(SqliteStore(MEMORY), background=False)
    settings = Settings(admin_key=ADMIN_KEY, poll_seconds=0.02)
    with running(authority, settings) as it, httpx.Client(base_url=it.url, timeout=20) as client:
        made = Callers(World(it, client, None))
        yield made
    authority.close()
    assert not [status for status in made.statuses if status >= 500], made.statuses
    if made.statuses.total() > 500:  # not when only some of the tests are run here
        assert {200, 400, 401, 404} <= set(made.statuses), made.statuses


def described(paths: dict[str, Any], mode: GenerationMode, whole: dict[str, Any] | None = None) -> Any:
    """Without the keys, which the callers bring: a key that schemathesis has spoilt would be put right again."""
    keyless = {
        path: {method: {**operation, "security": []} for method, operation in methods.items()}
        for path, methods in paths.items()
    }
    loaded = schemathesis.openapi.from_dict((whole or document()) | {"paths": keyless})
    loaded.config.generation.update(modes=[mode])
    # Too large is refused before anybody looks at what is inside.
    loaded.config.checks.negative_data_rejection.expected_statuses = [str(status) for status in range(400, 500)]
    return loaded


OURS = {path: methods for path, methods in document()["paths"].items() if path != ENDLESS}
POSITIVE = described(OURS, GenerationMode.POSITIVE)


def _can_be_wrong(operation: dict[str, Any]) -> bool:
    queries = [it["schema"] for it in operation["parameters"] if it["in"] == "query"]
    return "requestBody" in operation or any(set(schema) != {"type"} for schema in queries)


FALLIBLE = {
    path: {method: operation for method, operation in methods.items() if _can_be_wrong(operation)}
    for path, methods in OURS.items()
}
NEGATIVE = described(FALLIBLE, GenerationMode.NEGATIVE)


def as_written(value: Any) -> Any:
    """For JSON Schema 2.0 is a whole number; for the protocol it is none, and no client writes one so."""
    if isinstance(value, dict):
        return {name: as_written(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [as_written(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def sensible(tenant: Tenant, case: Any) -> None:
    """What is allowed is also the tenant's own more often than not: else all answers would be 403 and 409."""
    case.headers.pop("X-Idempotency-Key", None)
    case.headers.pop("X-Clearance-Run-Id", None)
    body = case.body if isinstance(case.body, dict) else {}
    if "idempotency_key" in body:
        body["idempotency_key"] = tenant.key()
    if isinstance(body.get("subject"), dict):
        body["subject"]["tenant"] = tenant.name
    for held in (body, case.query):
        if isinstance(held.get("scope"), str) and held["scope"].startswith("tenant:"):
            held["scope"] = re.sub("^tenant:[^/]*", f"tenant:{tenant.name}", held["scope"])
        for name in ("tenant", "tenant_id"):
            if name in held and body.get("name") is None:
                held[name] = tenant.name


def ask(callers: Callers, case: Any, *, sensibly: bool = False) -> Any:
    turn = zlib.crc32(repr((case.body, case.query, case.path_parameters)).encode())  # the same case, the same caller
    kinds = [next(iter(entry)) for entry in OURS[case.operation.path][case.method.lower()]["security"]]
    headers = callers.headers(kinds, turn)
    if sensibly:
        case.body = as_written(case.body)
        if turn % 5:
            sensible(callers.tenants[turn % 2], case)
    for name in list(case.path_parameters or {}):
        known = callers.known(name, turn)
        if known is not None:
            case.path_parameters[name] = known
    response = case.call(base_url=callers.world.running.url, headers=headers, timeout=20)
    callers.statuses[response.status_code] += 1
    return response


@POSITIVE.parametrize()
@POLITE
def test_what_the_description_allows_is_answered_as_it_says(callers: Callers, case: Any) -> None:
    response = ask(callers, case, sensibly=True)
    case.validate_response(response, checks=CHECKS)
    if response.status_code == 400:
        assert is_of_the_content(response.json()), response.text


@NEGATIVE.parametrize()
@POLITE
def test_what_the_description_does_not_allow_is_refused(callers: Callers, case: Any) -> None:
    response = ask(callers, case)
    case.validate_response(response, checks=[*CHECKS, openapi_checks.negative_data_rejection])


def protocol() -> Any:
    """The protocol's own file, without what this server does not offer."""
    import yaml

    whole = yaml.safe_load(Path(OFFICIAL or "").read_text())
    offered = {path: it for path, it in whole["paths"].items() if path in OURS}
    methods = {path: {name: it[name] for name in OURS[path] if name in it} for path, it in offered.items()}
    return described(methods, GenerationMode.POSITIVE, whole)


if OFFICIAL:

    @protocol().parametrize()
    @POLITE
    def test_the_protocols_own_description_is_kept(callers: Callers, case: Any) -> None:
        case.validate_response(ask(callers, case, sensibly=True), checks=CHECKS)


@pytest.mark.parametrize("path", [path for path, methods in OURS.items() if path.startswith("/v1/")])
def test_nobody_is_let_in_without_a_key(callers: Callers, path: str) -> None:
    for method in OURS[path]:
        answer = callers.world.client.request(method, path.replace("{", "").replace("}", ""))
        callers.statuses[answer.status_code] += 1
        assert problem(answer) == (401, "UNAUTHORIZED")


FIELDS = {
    "X-Idempotency-Key",  # another one than in the body
    "cursor",  # which only the server makes
    "tenant",  # balances without any filter
    "tenant_id",  # with the operator's key it is needed, with a tenant's it must not be there
    "headers",  # names that are the server's to set
    "event_types",  # those that no tenant sees
    "event_categories",
    "expires_at",  # in the past
    "from",  # later than `to`
    "expires_from",
    "finalized_from",
    "metadata",  # more than 16 KiB
    "period",
    "caps",
    "spent",
    "scope",  # outside the tenant that is named
}


def is_of_the_content(error: dict[str, Any]) -> bool:
    """A 400 for what no schema can say."""
    return error["error"] in ("UNIT_MISMATCH", "WEBHOOK_URL_INVALID") or error["details"]["field"] in FIELDS
