"""What goes wrong between a command and a server is one line that says what to do, and changes nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tests.cli.conftest import Answer, Cli
from tests.cli.served import Tenant
from tests.server.kit import ADMIN_KEY, Running, running

from clearance.authority.budgets import BudgetSpec
from clearance.authority.embedded import EmbeddedAuthority
from clearance.connecting import connect
from clearance.model.amount import usd
from clearance.model.caps import Caps, CapsRule
from clearance.model.period import Period
from clearance.server import vendor
from clearance.store.sqlite import MEMORY, SqliteStore

ONE = usd("1").amount
AsTenant = Callable[..., None]
WORDS = {
    "kill": ("kill", "{scope}", "--reason", "r"),
    "pause": ("pause", "{scope}", "--reason", "r"),
    "resume": ("resume", "{scope}", "--reason", "r"),
    "set": ("budget", "set", "{scope}", "99"),
    "fund": ("budget", "fund", "{scope}", "99"),
    "freeze": ("budget", "freeze", "{scope}"),
    "unfreeze": ("budget", "unfreeze", "{scope}"),
    "close": ("budget", "close", "{scope}", "--yes"),
    "show": ("budget", "show", "{scope}"),
    "tree": ("budget", "tree"),
    "status": ("status",),
    "events": ("events",),
    "follow": ("events", "--follow"),
    "reservations": ("reservations",),
    "apply": ("apply", "clearance.yaml", "--yes"),
}
every_command = pytest.mark.parametrize("name", WORDS)


@pytest.fixture
def run(cli: Cli, acme: Tenant, tmp_path: Path) -> Callable[..., Answer]:
    (tmp_path / "clearance.yaml").write_text(f"budgets: [{{scope: {acme.scope}, allocated: '99'}}]\n")
    return lambda name, *more: cli(*(it.format(scope=acme.scope) for it in WORDS[name]), *more)


def one_line(answer: Answer, *said: str) -> None:
    assert (answer.code, answer.out) == (1, "")
    assert len(answer.err.splitlines()) == 1
    for text in said:
        assert text in answer.err


def unchanged(tenant: Tenant) -> None:
    assert tenant.figures() == (10 * ONE, 0, 0)
    with closing(connect(tenant.served.ledger)) as ledger:
        assert ledger.balance(tenant.scope).status == "ACTIVE"
        assert tenant.scope not in {it.scope for it in ledger.stops()}


@every_command
def test_no_key_is_told_with_where_it_belongs(
    run: Callable[..., Answer], acme: Tenant, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("CLEARANCE_ADMIN_KEY")
    one_line(run(name), "CLEARANCE_ADMIN_KEY: is not set", "CLEARANCE_API_KEY", acme.served.url)
    unchanged(acme)


@every_command
@pytest.mark.parametrize("variable", ["CLEARANCE_ADMIN_KEY", "CLEARANCE_API_KEY"])
def test_a_wrong_key_is_named_by_its_variable_and_never_shown(
    run: Callable[..., Answer], acme: Tenant, monkeypatch: pytest.MonkeyPatch, name: str, variable: str
) -> None:
    monkeypatch.delenv("CLEARANCE_ADMIN_KEY")
    monkeypatch.setenv(variable, "not-the-right-one")
    answer = run(name)
    one_line(answer, f"{acme.served.url}: the key is not accepted, INVALID_KEY (the key in {variable})")
    assert "not-the-right-one" not in answer.err
    unchanged(acme)


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        *((name, "budgets:write") for name in ("kill", "pause", "fund", "freeze", "unfreeze", "close")),
        *((name, "budgets:read") for name in ("resume", "set", "show", "tree", "status", "apply")),
        ("events", "events:read"),
        ("follow", "events:read"),
        ("reservations", "reservations:list"),
    ],
)
def test_a_permission_that_the_key_lacks_is_named(
    run: Callable[..., Answer], acme: Tenant, as_tenant: AsTenant, name: str, lacks: str
) -> None:
    as_tenant(acme.served.tenant(acme.name, ["balances:read"]))
    one_line(run(name), f"this key lacks {lacks} (the key in CLEARANCE_API_KEY)")
    answer = run(name, "--json")
    assert json.loads(answer.err)["error"]["code"] in ("FORBIDDEN", "INSUFFICIENT_PERMISSIONS")
    unchanged(acme)


@every_command
def test_a_server_that_is_not_there_is_named(run: Callable[..., Answer], acme: Tenant, name: str) -> None:
    answer = run(name, "--url", "http://127.0.0.1:9")
    one_line(answer, "http://127.0.0.1:9: no answer", "; nothing was done")


@contextmanager
def a_web_site(status: int, page: bytes = b"<html>hello</html>") -> Iterator[str]:
    """Gives this page to every GET and hangs up on every POST."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(page)

        def do_POST(self) -> None:
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{site.server_port}"
        site.shutdown()
        thread.join(10)


@pytest.mark.parametrize("name", ["kill", "fund", "freeze", "close"])
def test_a_change_without_an_answer_is_told_as_one_that_may_have_happened(
    run: Callable[..., Answer], name: str
) -> None:
    facts = {"protocol": "0.1.25", "extensions": ["stops", "budget.close"], "durability": "settlements"}
    with a_web_site(200, json.dumps(facts).encode()) as url:
        one_line(run(name, "--url", url), f"{url}: no answer", "it may have taken effect all the same")


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("name", ["kill", "fund", "status", "follow"])
def test_what_is_no_clearance_server_is_asked_for_the_right_url(
    run: Callable[..., Answer], acme: Tenant, name: str, status: int
) -> None:
    with a_web_site(status) as url:
        answer = run(name, "--url", url)
    assert (answer.code, len(answer.err.splitlines())) == (2, 1)
    assert f"{url} is no Clearance server (is the URL right?)" in answer.err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://", "url: names no server; allowed: http://host:port"),
        ("http://a:b@host", "url: has more than host and path"),
        ("127.0.0.1:7878", "allowed: http://127.0.0.1:7878 for a server"),
        ("ftp://host", "ftp:// is not known here"),
    ],
)
@pytest.mark.parametrize("name", ["kill", "set"])
def test_a_wrong_url_is_told_and_makes_no_file(
    run: Callable[..., Answer], acme: Tenant, tmp_path: Path, name: str, url: str, said: str
) -> None:
    one_line(run(name, "--url", url), said)
    assert [it.name for it in tmp_path.iterdir()] == ["clearance.yaml"]


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (("db", "status"), "run this on its machine with --ledger"),
        (("db", "migrate"), "run this on its machine with --ledger"),
        (("db", "compact", "--older-than", "90d"), "run this on its machine with --ledger"),
        (("db", "export", "-"), "run this on its machine with --ledger"),
        (("db", "import", "-"), "run this on its machine with --ledger"),
        (("doctor",), "ask it with `clearance status`"),
    ],
)
def test_what_needs_the_file_says_so_with_exit_code_2(
    cli: Cli, acme: Tenant, words: tuple[str, ...], instead: str
) -> None:
    answer = cli(*words)
    assert (answer.code, answer.out, len(answer.err.splitlines())) == (2, "", 1)
    assert f"needs the ledger itself, and {acme.served.url} is a server" in answer.err
    assert instead in answer.err
    assert json.loads(cli(*words, "--json").err)["error"]["code"] == "NOT_OFFERED"


# -- a server that tells budgets without their period and caps ------------------------------------


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """With a budget that has a period and caps."""
    offered = [name for name in vendor.CAPABILITIES["extensions"] if name != "budget.whole"]
    monkeypatch.setitem(vendor.CAPABILITIES, "extensions", offered)
    authority = EmbeddedAuthority(SqliteStore(MEMORY), background=False)
    authority.set_budget(WHOLE)
    with running(authority) as it:
        monkeypatch.setenv("CLEARANCE_URL", it.url)
        monkeypatch.setenv("CLEARANCE_ADMIN_KEY", ADMIN_KEY)
        yield it
    authority.close()


RULE = CapsRule(caps=Caps(max_tokens=5), below_percent=20)
WHOLE = BudgetSpec(scope="tenant:acme", allocated=usd("10"), period=Period(every="day"), caps=(RULE,))


@pytest.mark.parametrize(
    "more",
    [("--period", "month"), ("--period", "none"), ("--no-caps",), ("--max-tokens", "9"), ("--overdraft", "1")],
    ids=" ".join,
)
def test_a_change_that_could_lose_the_period_or_the_caps_is_refused(
    cli: Cli, older: Running, more: tuple[str, ...]
) -> None:
    answer = cli("budget", "set", "tenant:acme", "20", *more)
    assert (answer.code, len(answer.err.splitlines())) == (2, 1)
    assert "does not tell the period and caps" in answer.err
    found = older.authority.balance("tenant:acme")
    assert (found.allocated, found.period, found.caps) == (10 * ONE, WHOLE.period, WHOLE.caps)


def test_the_amount_alone_is_changed_and_the_rest_stays(cli: Cli, older: Running) -> None:
    assert cli("budget", "set", "tenant:acme", "20").code == 0
    found = older.authority.balance("tenant:acme")
    assert (found.allocated, found.period, found.caps) == (20 * ONE, WHOLE.period, WHOLE.caps)


def test_a_change_that_says_both_is_made(cli: Cli, older: Running) -> None:
    assert cli("budget", "set", "tenant:acme", "20", "--period", "month", "--no-caps").code == 0
    found = older.authority.balance("tenant:acme")
    assert (found.allocated, found.period, found.caps) == (20 * ONE, Period(every="month"), ())


def test_a_file_with_budgets_that_are_there_is_not_applied(cli: Cli, older: Running, tmp_path: Path) -> None:
    (tmp_path / "clearance.yaml").write_text("budgets: [{scope: tenant:acme, allocated: '20'}]\n")
    answer = cli("apply", "--yes")
    assert (answer.code, "does not tell the period and caps" in answer.err) == (2, True)
    assert older.authority.balance("tenant:acme").allocated == 10 * ONE
