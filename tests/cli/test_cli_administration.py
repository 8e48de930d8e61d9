"""`clearance tenant | key | webhook | journal` against a running server. What happened is looked up at the server."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from tests.cli.conftest import Cli
from tests.remote.faulty import FaultyServer
from tests.server.kit import ADMIN_KEY, Running, running, until
from tests.server.receiver import Receiver

from clearance.authority.budgets import BudgetSpec
from clearance.authority.embedded import EmbeddedAuthority
from clearance.connecting import connect, journal_folder
from clearance.errors import AuthorityUnavailable
from clearance.model.action import Action
from clearance.model.amount import usd
from clearance.model.subject import Subject
from clearance.server.settings import Settings
from clearance.store.sqlite import MEMORY, SqliteStore

SECRET = re.compile(r"cyc_live_\w{32}")
SIGNING = re.compile(r"whsec_[\w-]{43}")
ACME, TOOL = Subject(tenant="acme"), Action(kind="tool.call", name="search")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    authority = EmbeddedAuthority(SqliteStore(MEMORY), background=False)
    settings = Settings(admin_key=ADMIN_KEY, webhook_private=True, webhook_http=True, poll_seconds=0.02)
    with running(authority, settings) as it:
        monkeypatch.setenv("CLEARANCE_URL", it.url)
        monkeypatch.setenv("CLEARANCE_ADMIN_KEY", ADMIN_KEY)
        monkeypatch.delenv("CLEARANCE_API_KEY", raising=False)
        yield it
    authority.close()


def status_of(server: Running, secret: str) -> int:
    headers = {"X-Cycles-API-Key": secret}
    return httpx.get(f"{server.url}/v1/balances?tenant=acme", headers=headers).status_code


def made_key(cli: Cli, *more: str) -> tuple[str, str]:
    cli("tenant", "create", "acme")
    made = cli("key", "create", "acme", *more, "--json").json["key"]
    return made["key_id"], made["key_secret"]


def test_a_tenant_is_made_once_shown_suspended_and_closed(cli: Cli, server: Running) -> None:
    first = cli("tenant", "create", "acme", "--name", "Acme", "--max-ttl-ms", "5000", "--json")
    assert (first.code, first.json["created"]) == (0, True)
    again = cli("tenant", "create", "acme", "--name", "Other", "--json").json
    assert (again["created"], again["tenant"]["name"]) == (False, "Acme")
    assert cli("tenant", "list", "--json").json["tenants"][0]["max_reservation_ttl_ms"] == 5000
    _, secret = made_key(cli)
    assert status_of(server, secret) == 200
    assert cli("tenant", "suspend", "acme").code == 0
    assert status_of(server, secret) == 401
    assert cli("tenant", "resume", "acme").code == 0
    assert status_of(server, secret) == 200
    assert "cyc_live" in cli("tenant", "show", "acme").out
    assert cli("tenant", "update", "acme", "--name", "New", "--json").json["tenant"]["name"] == "New"
    assert cli("tenant", "close", "acme", "--yes", "--json").json["tenant"]["status"] == "CLOSED"
    assert status_of(server, secret) == 401
    assert [it["tenant_id"] for it in cli("tenant", "list", "--status", "closed", "--json").json["tenants"]] == ["acme"]
    refused = cli("tenant", "resume", "acme")
    assert (refused.code, "closed, for good" in refused.err) == (2, True)


def test_a_secret_is_shown_when_it_is_made_and_never_again(cli: Cli, server: Running) -> None:
    cli("tenant", "create", "acme")
    shown = cli("key", "create", "acme", "--name", "agents", "--permission", "balances:read").out
    (secret,) = SECRET.findall(shown)
    assert status_of(server, secret) == 200
    key_id = cli("key", "list", "--json").json["keys"][0]["key_id"]
    later = [
        cli("key", "list"),
        cli("key", "list", "--json"),
        cli("tenant", "show", "acme"),
        cli("key", "revoke", key_id),
    ]
    for answer in later:
        assert answer.code == 0
        assert secret not in answer.out + answer.err
    assert ADMIN_KEY not in shown + "".join(it.out + it.err for it in later)


def test_a_key_is_rotated_and_revoked_at_once(cli: Cli, server: Running) -> None:
    key_id, old = made_key(cli)
    fresh = cli("key", "rotate", key_id, "--overlap-seconds", "60", "--json").json
    assert (fresh["replaces"], status_of(server, old)) == (key_id, 200)
    assert status_of(server, fresh["key"]["key_secret"]) == 200
    hard = cli("key", "rotate", fresh["key"]["key_id"], "--json").json["key"]
    assert status_of(server, fresh["key"]["key_secret"]) == 401
    revoked = cli("key", "revoke", hard["key_id"], "--reason", "left the company", "--json").json["key"]
    assert (revoked["status"], revoked["revoked_reason"]) == ("REVOKED", "left the company")
    assert status_of(server, hard["key_secret"]) == 401
    assert cli("key", "rotate", hard["key_id"]).code == 2
    assert len(cli("key", "list", "--status", "revoked", "--json").json["keys"]) == 2


def test_a_webhook_is_made_delivered_replayed_and_deleted(cli: Cli, server: Running) -> None:
    cli("tenant", "create", "acme")
    with closing(Receiver()) as receiver:
        made = cli("webhook", "create", receiver.url, "--type", "budget.created", "--tenant", "acme", "--json")
        hook = made.json["webhook"]
        assert SIGNING.fullmatch(hook["signing_secret"])
        server.authority.set_budget(BudgetSpec(scope="tenant:acme", allocated=usd(1)))
        until(
            lambda: cli("webhook", "deliveries", hook["subscription_id"], "--status", "success", "--json").json[
                "deliveries"
            ]
        )
        assert len(receiver.got) == 1
        window = ("--from", "2020-01-01T00:00:00Z", "--to", "2099-01-01T00:00:00Z")
        assert cli("webhook", "replay", hook["subscription_id"], *window, "--json").json["replay"]["events_queued"] == 1
        until(lambda: len(receiver.got) == 2)
    assert (
        hook["signing_secret"] not in cli("webhook", "list").out + cli("webhook", "show", hook["subscription_id"]).out
    )
    assert cli("webhook", "pause", hook["subscription_id"], "--json").json["webhook"]["status"] == "PAUSED"
    assert cli("webhook", "resume", hook["subscription_id"], "--json").json["webhook"]["status"] == "ACTIVE"
    assert cli("webhook", "delete", hook["subscription_id"]).code == 0
    gone = cli("webhook", "show", hook["subscription_id"])
    assert (gone.code, "no such webhook" in gone.err) == (1, True)


def test_a_tenants_key_reaches_its_own_webhooks_only(
    cli: Cli, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    permissions = [word for name in ("webhooks:read", "webhooks:write") for word in ("--permission", name)]
    _, secret = made_key(cli, *permissions)
    cli("webhook", "create", "https://example.com/all", "--type", "budget.created")
    monkeypatch.delenv("CLEARANCE_ADMIN_KEY")
    monkeypatch.setenv("CLEARANCE_API_KEY", secret)
    own = cli("webhook", "create", "https://example.com/own", "--type", "budget.created", "--json").json["webhook"]
    assert own["tenant_id"] == "acme"
    assert [it["url"] for it in cli("webhook", "list", "--json").json["webhooks"]] == ["https://example.com/own"]
    refused = cli("key", "list")
    assert (refused.code, "CLEARANCE_ADMIN_KEY: is not set" in refused.err) == (1, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tenant", "create", "No Capitals"), "tenant_id"),
        (("tenant", "show", "nobody"), "no tenant nobody"),
        (("tenant", "update", "nobody", "--name", "x"), "no tenant nobody"),
        (("tenant", "list", "--status", "odd"), "status: is unknown; allowed: ACTIVE, SUSPENDED, CLOSED"),
        (("key", "create", "nobody"), "no tenant nobody"),
        (("key", "create", "acme", "--permission", "balances:raed"), "'balances:raed' is no permission"),
        (("key", "create", "acme", "--expires-at", "tomorrow"), "expires_at"),
        (("key", "create", "acme", "--expires-at", "2001-01-01T00:00:00Z"), "is in the past"),
        (("key", "revoke", "key_none"), "no API key key_none"),
        (("webhook", "create", "https://example.com"), "type: is missing; allowed: --type"),
        (("webhook", "create", "ftp://example.com", "--type", "budget.created"), "must begin with https://"),
        (("webhook", "create", "https://example.com", "--type", "budget.craeted"), "is no event type"),
        (("webhook", "replay", "whk_none", "--from", "x", "--to", "y"), "no such webhook"),
        (("webhook", "deliveries", "whk_none"), "no such webhook"),
        (("tenant", "list", "--server", "localhost:7878"), "url"),
        (("tenant",), ""),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(cli: Cli, server: Running, words: tuple[str, ...], message: str) -> None:
    cli("tenant", "create", "acme")
    answer = cli(*words)
    assert message in answer.err
    if message:
        assert answer.code == 1
        assert len(answer.err.splitlines()) == 1
        assert cli(*words, "--json").code == 1


def test_a_server_that_is_not_there_is_named(cli: Cli, server: Running) -> None:
    answer = cli("tenant", "list", "--server", "http://127.0.0.1:9")
    assert (answer.code, "http://127.0.0.1:9: no answer" in answer.err) == (1, True)


def test_a_wrong_admin_key_is_told_and_not_shown(cli: Cli, server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARANCE_ADMIN_KEY", "a-key-that-is-not-the-one")
    answer = cli("tenant", "list")
    assert (answer.code, answer.out) == (1, "")
    assert "a-key-that-is-not-the-one" not in answer.err


def test_the_key_file_of_this_machine_is_used_here_and_sent_nowhere_else(
    cli: Cli, server: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CLEARANCE_ADMIN_KEY")
    (tmp_path / "own.key").write_text(ADMIN_KEY + "\n")
    (tmp_path / "clearance.yaml").write_text("server: {admin_key_file: own.key}\n")
    assert cli("tenant", "list").code == 0
    abroad = cli("tenant", "list", "--server", "http://192.0.2.1:7878")
    assert "CLEARANCE_ADMIN_KEY: is not set" in abroad.err


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    made = FaultyServer()
    monkeypatch.setenv("CLEARANCE_URL", made.url)
    monkeypatch.setenv("CLEARANCE_API_KEY", "k-secret-1")
    yield made
    made.stop()


def spend_through_an_outage(server: FaultyServer) -> None:
    """A process that settles while the server is away, and ends."""
    with closing(connect(timeout_ms=200)) as client:
        held = client.reserve(ACME, TOOL, usd("0.5")).reservation_id or ""
        server.down = True
        with pytest.raises(AuthorityUnavailable):
            client.commit(held, usd("0.25"))


def test_the_journal_is_listed_and_flushed(cli: Cli, faulty: FaultyServer) -> None:
    spend_through_an_outage(faulty)
    listed = cli("journal", "list", "--json").json
    (line,) = listed["partitions"][0]["waiting"]
    assert (listed["waiting"], line["amount"], line["mode"]) == (1, usd("0.25").amount, "commit")
    assert "0.25 USD" in cli("journal", "list").out
    written = "".join(path.read_text() for path in journal_folder().rglob("*.json"))
    assert "k-secret-1" not in cli("journal", "list").out + written
    left = cli("journal", "flush", "--timeout", "0.3", "--json")
    assert (left.code, left.json["waiting"], faulty.charged) == (3, 1, 0)
    faulty.down = False
    done = cli("journal", "flush", "--json")
    assert (done.code, done.json["settled"], done.json["waiting"]) == (0, 1, 0)
    assert faulty.charged == usd("0.25").amount
    assert "nothing waits" in cli("journal", "list").out


def test_with_the_tenants_name_the_journal_outlives_the_key(
    cli: Cli, faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEARANCE_TENANT", "acme")
    spend_through_an_outage(faulty)
    faulty.down = False
    monkeypatch.setenv("CLEARANCE_API_KEY", "k-secret-2")
    assert cli("journal", "flush", "--json").json["settled"] == 1
    monkeypatch.delenv("CLEARANCE_API_KEY")
    assert "CLEARANCE_API_KEY: is not set" in cli("journal", "flush").err


def test_the_journal_is_a_users_own(cli: Cli) -> None:
    assert os.environ["XDG_DATA_HOME"] in cli("journal", "list", "--json").json["folder"]
