"""The README's lines about CrewAI, as written."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crew_world import World

README = Path(__file__).parents[2] / "README.md"


def test_a_crew_is_wrapped_in_two_lines(make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"^```py\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    world = make_world()
    world.budget("10")
    names: dict[str, Any] = {"crew": world.crew([world.tool()]), "authority": world.authority}

    exec(block, names)

    assert names["result"].clearance.spent().amount == world.spent() == world.billed > 0
    wrapping = [line for line in block.splitlines() if line and not line.startswith(("import", "print"))]
    assert len(wrapping) <= 2
