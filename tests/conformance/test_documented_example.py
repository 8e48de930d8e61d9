"""The example of docs/stores.md runs as it stands there, and fails for an engine that forgets."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "stores.md"


def example() -> str:
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.S)
    return str(next(block for block in blocks if "MeasuredLedger:" in block))


def ran(program: str, folder: Path) -> str:
    (folder / "example.py").write_text(program)
    done = subprocess.run([sys.executable, "example.py"], capture_output=True, text=True, cwd=folder, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_documented_store_conforms(tmp_path: Path) -> None:
    assert ran(example(), tmp_path) == "0 specs failed\n"


def test_a_store_that_swallows_failures_does_not(tmp_path: Path) -> None:
    yields = "            yield tx\n"
    swallows = "            try:\n                yield tx\n            except Exception:\n                pass\n"
    forgetful = example().replace(yields, swallows)
    assert forgetful != example()
    told = ran(forgetful, tmp_path)
    assert "an exception undoes everything: " in told
    assert not told.endswith("\n0 specs failed\n")
