"""LangChain's standard suites give the same result for guarded objects as for plain ones, test by test."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from langchain_world import World

from clearance.connecting import connect
from clearance.store.interface import ReservationQuery

SUITES = Path(__file__).with_name("standard_suites.py")
OPTIONS = (
    *("-q", "-p", "no:cacheprovider", "-p", "no:timeout", "-p", "no:xdist", "-c", os.devnull, "--rootdir"),
    str(SUITES.parent),
    "--noconftest",
    *("-o", "asyncio_mode=auto", "-o", "asyncio_default_test_loop_scope=session"),
    *("-o", "asyncio_default_fixture_loop_scope=session", "--benchmark-disable"),
)


def results(world: World, folder: Path, guarded: bool) -> dict[str, str]:
    report = folder / f"guarded-{guarded}.xml"
    env = {
        **os.environ,
        "OPENAI_BASE_URL": world.sim.base_url,
        "OPENAI_API_KEY": "sim",
        "CLEARANCE_URL": str(folder / "ledger.db"),
        "CLEARANCE_TEST_GUARDED": "1" if guarded else "0",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-m", "pytest", str(SUITES), *OPTIONS, f"--junitxml={report}"]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=110)
    assert report.exists(), done.stdout[-2000:] + done.stderr[-2000:]
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        outcome = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
        found[f"{case.get('classname')}::{case.get('name')}"] = outcome
    return found


def test_guarded_objects_pass_where_plain_ones_do(world: World, tmp_path: Path) -> None:
    plain, guarded = results(world, tmp_path, False), results(world, tmp_path, True)
    assert sum(outcome == "passed" for outcome in plain.values()) > 80
    assert guarded == plain
    authority = connect(tmp_path / "ledger.db")
    assert authority.reservations(ReservationQuery(status="ACTIVE")).items == []
    assert authority.balance("tenant:acme").spent > 0
    authority.close()
