"""The statements of a batch find their rows by key when the tables are large, whenever their plan was made."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import psycopg
import pytest
from tests.postgres.server import Server

from clearance.store.postgres import PostgresStore
from clearance.store.postgres import statements as sql
from clearance.store.postgres.wire import _dump

ROWS = 100_000
FILL = (
    "INSERT INTO clearance.accounts SELECT 't' || n % 100, 'tenant:t' || n % 100 || '/agent:a' || n, 'TOKENS', 10, 0, "
    f"0, 0, false, 0, 'ACTIVE', NULL, NULL, NULL, NULL, NULL, 0 FROM generate_series(1, {ROWS}) n",
    "INSERT INTO clearance.reservations SELECT 'rsv_' || n, 't' || n % 100, 'call', 'COMMITTED', 'TOKENS', 1, 1, 1, "
    "'tenant:t' || n % 100, NULL, n, n, n, NULL, 0, NULL, '{}', NULL, ARRAY['tenant:t' || n % 100] "
    f"FROM generate_series(1, {ROWS}) n",
    "UPDATE clearance.reservations SET status = 'ACTIVE', charged = NULL, due_at_ms = expires_at_ms, run_id = 'run_1' "
    "WHERE created_at_ms % 1000 = 0",
    "INSERT INTO clearance.events SELECT n, n, 't' || n % 100, 'x.y', NULL, 'rsv_' || n, '{}' "
    f"FROM generate_series(1, {ROWS}) n",
    "INSERT INTO clearance.answers SELECT decode(md5(n::text), 'hex'), 't' || n % 100, '', n "
    f"FROM generate_series(1, {ROWS}) n",
)
NAMES = [["t1"], ["tenant:t1/agent:a1"], ["TOKENS"]]
HOT = {
    "accounts by key": (sql.LOCK_ACCOUNTS, NAMES, "accounts_pkey"),
    "accounts of reservations": (sql.LOCK_ACCOUNTS_AND_HOLDERS, [*NAMES, ["rsv_1"]], "accounts_pkey"),
    "accounts of a tenant": (sql.LOCK_TENANTS_ACCOUNTS, [*NAMES, [], ["t1"]], "accounts_pkey"),
    "reservations": (sql.LOCK_RESERVATIONS, [["rsv_1", "rsv_2"]], "reservations_pkey"),
    "answers": (sql.GET_ANSWERS, [[b"x"]], "answers_pkey"),
    "an event": (sql.GET_EVENT, [5], "events_pkey"),
    "what is due": (sql.FIND_DUE, [10**9, 200], "reservations_open"),
    "what is open": (sql.GET_OPEN_OF_TENANT, ["t1"], "reservations_open"),
    "what is open in a run": (sql.FIND_OPEN_IN_RUN, ["run_1"], "reservations_open_in_run"),
    "moved accounts": (sql.MOVE_ACCOUNTS, [*NAMES, [1], [1], [1], [1], [True]], "accounts_pkey"),
    "settled reservations": (
        sql.UPDATE_RESERVATIONS,
        [["COMMITTED"], [1], [1], [1], [1], [None], [0], [None], ["rsv_1000"]],
        "reservations_pkey",
    ),
}
MANY = ("accounts of a tenant", "what is open", "what is due")


@pytest.fixture(scope="module")
def large(server: Server) -> Iterator[PostgresStore]:
    """Plans are made while the tables are empty; then they grow, and nobody analyses them."""
    url = server.new_database()
    store = PostgresStore(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET autovacuum = off")
        connection.execute("SELECT pg_reload_conf()")
    session = store._writer.connection
    for number, (text, _, _) in enumerate(HOT.values()):
        session.execute(f"PREPARE hot_{number} AS {_numbered(text)}".encode())
        session.execute(f"EXPLAIN (FORMAT JSON) {_execute(number)}".encode())
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in FILL:
            connection.execute(statement.encode())
    yield store
    store.close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM RESET autovacuum")
        connection.execute("SELECT pg_reload_conf()")


def _numbered(text: str) -> str:
    counter = iter(range(1, 100))
    return re.sub("%s", lambda _: f"${next(counter)}", text)


def _literal(value: object) -> str:
    text = _dump(value)
    return "NULL" if text is None else f"'{text.decode()}'"


def _execute(number: int) -> str:
    values = list(HOT.values())[number][1]
    arguments = ", ".join(_literal(value) for value in values)
    return f"EXECUTE hot_{number}({arguments})"


@pytest.mark.parametrize("name", list(HOT))
def test_a_hot_statement_stays_on_its_index(name: str, large: PostgresStore) -> None:
    number, index = list(HOT).index(name), HOT[name][2]
    session = large._writer.connection
    session.execute("BEGIN")
    rows = session.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {_execute(number)}".encode()).fetchall()
    session.execute("ROLLBACK")
    plan = rows[0][0][0]["Plan"]
    used = json.dumps(plan)
    assert index in used, used
    assert "Seq Scan" not in used, used
    touched = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    # A thousand rows are asked for, or a few.
    assert touched < (10_000 if name in MANY else 120)
