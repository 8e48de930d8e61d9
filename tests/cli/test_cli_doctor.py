from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clearance.connecting import LocalAuthority

Cli = Callable[..., Any]


def levels(answer: Any) -> dict[str, str]:
    return {check["name"]: check["level"] for check in answer.json["checks"]}


def test_all_is_well(cli: Cli, ledger: LocalAuthority) -> None:
    answer = cli("doctor", "--json")
    assert answer.code == 0
    found = levels(answer)
    assert {"versions", "sqlite", "clock", "file system", "folder", "ledger", "schema", "integrity"} <= set(found)
    assert "fail" not in found.values()
    assert "0 failed" in cli("doctor").out


def test_looking_makes_no_ledger(cli: Cli, tmp_path: Path) -> None:
    answer = cli("doctor", "--json")
    assert answer.code == 0
    assert not (tmp_path / "ledger.db").exists()


def test_a_damaged_ledger_fails(cli: Cli, ledger: LocalAuthority, tmp_path: Path) -> None:
    ledger.close()
    path = tmp_path / "ledger.db"
    data = bytearray(path.read_bytes())
    data[4096 * 2 : 4096 * 3] = b"\xff" * 4096
    path.write_bytes(data)
    answer = cli("doctor", "--json")
    assert answer.code == 1
    assert "fail" in (levels(answer)["ledger"], levels(answer).get("integrity"))
    assert path.read_bytes() == bytes(data)


def test_a_file_of_another_kind_fails(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("no ledger " * 20)
    answer = cli("doctor", "--json")
    assert (answer.code, levels(answer)["ledger"]) == (1, "fail")


def test_a_configuration_that_is_not_applied_is_a_warning(cli: Cli, ledger: LocalAuthority, tmp_path: Path) -> None:
    (tmp_path / "clearance.yaml").write_text('budgets: {"tenant:acme": {allocated: "99"}}')
    answer = cli("doctor", "--json")
    assert (answer.code, levels(answer)["configuration"]) == (0, "warn")
    cli("apply", "--yes")
    assert levels(cli("doctor", "--json"))["configuration"] == "ok"
    (tmp_path / "clearance.yaml").write_text("budgets: 5")
    answer = cli("doctor", "--json")
    assert (answer.code, levels(answer)["configuration"]) == (1, "fail")


def test_a_clock_that_is_behind_the_ledger_is_a_warning(
    cli: Cli, ledger: LocalAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    real = time.time_ns
    monkeypatch.setattr("clearance.cli.doctor.time.time_ns", lambda: real() - 3_600 * 10**9)
    assert levels(cli("doctor", "--json"))["ledger's time"] == "warn"


def test_version(cli: Cli) -> None:
    assert set(cli("version", "--json").json) == {"clearance", "python", "sqlite"}


def test_the_demo_is_asked_for_lazily(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    played: list[Any] = []
    module = types.ModuleType("clearance.demo")

    def run(scenario: str, **options: Any) -> int:
        played.append((scenario, options))
        return 0

    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "clearance.demo", module)
    assert cli("demo", "--scenario", "tools").code == 0
    assert played == [("tools", {"as_json": False, "seconds": 6.0})]
    monkeypatch.setitem(sys.modules, "clearance.demo", None)
    answer = cli("demo")
    assert answer.code == 1
    assert "pip install 'clearance[demo]'" in answer.err
