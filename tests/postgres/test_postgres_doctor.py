"""`clearance doctor` looks at a PostgreSQL ledger as it does at a file."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from tests.postgres.kit import open_authority
from tests.postgres.server import Server

from clearance.authority.budgets import BudgetSpec
from clearance.cli import main
from clearance.model.amount import tokens


def examined(capsys: pytest.CaptureFixture[str], url: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(["--ledger", url, "doctor", "--json"])
    return code, {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}


def run(url: str, statement: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement.encode())


def test_a_sound_ledger_is_read_whole(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    authority = open_authority(url)
    authority.set_budget(BudgetSpec(scope="tenant:acme", allocated=tokens(1000)))
    authority.close()
    code, found = examined(capsys, url)
    assert code == 0
    assert {found[name]["level"] for name in ("ledger", "schema", "integrity")} == {"ok"}
    assert "PostgreSQL" in found["ledger"]["text"]


def test_holds_without_a_reservation_are_found(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    authority = open_authority(url)
    authority.set_budget(BudgetSpec(scope="tenant:acme", allocated=tokens(1000)))
    authority.close()
    run(url, "UPDATE clearance.accounts SET reserved = 777")
    code, found = examined(capsys, url)
    assert (code, found["integrity"]["level"]) == (1, "fail")


def test_what_does_not_wait_for_the_disk_is_a_warning(own_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = own_url.rpartition("/")[2]
    for setting in ("on", "off"):  # the tests' server itself does not sync
        run(own_url, f'ALTER DATABASE "{name}" SET synchronous_commit = {setting}')
        code, found = examined(capsys, own_url)
        assert (code, found["durability"]["level"]) == (0, "warn")
        assert found["durability"]["text"] == f"fsync is off, synchronous_commit is {setting}"


def test_nobody_there_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = examined(capsys, "postgresql://nobody@127.0.0.1:1/ledger")
    assert (code, found["ledger"]["level"]) == (1, "fail")


def test_looking_makes_no_schema(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    url = server.new_database()
    code, found = examined(capsys, url)
    assert (code, found["schema"]["level"]) == (1, "fail")
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT to_regclass('clearance.accounts')").fetchone() == (None,)
