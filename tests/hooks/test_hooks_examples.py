"""The example runs as it is, and its agent stops at its budget."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "host_minihost.py"


def test_the_runaway_agent_stops_at_its_budget(tmp_path: Path) -> None:
    done = subprocess.run(
        (sys.executable, "-W", "error", str(EXAMPLE)), cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "stopped: run:" in done.stdout
    charged = int(re.findall(r"charged: (\d+)", done.stdout)[0])
    assert 20_000_000 < charged <= 25_000_000
