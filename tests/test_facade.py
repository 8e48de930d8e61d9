"""What a user gets from `import clearance`."""

from __future__ import annotations

import subprocess
import sys

import pytest

import clearance

FRAMEWORKS = ("langchain", "langchain_core", "crewai", "openai", "starlette", "typer", "rich", "genai_prices")


def test_every_exported_name_exists_and_is_listed_once() -> None:
    assert len(clearance.__all__) == len(set(clearance.__all__))
    for name in clearance.__all__:
        assert getattr(clearance, name) is not None
    assert set(clearance.__all__) <= set(dir(clearance))


def test_the_lazy_table_and_the_exports_agree() -> None:
    lazy = set(clearance._MODULE_OF)
    errors = {name for name in clearance.__all__ if getattr(clearance, name).__module__ == "clearance.errors"}
    assert lazy | errors == set(clearance.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        clearance.nonsense  # noqa: B018


def test_importing_and_using_the_core_pulls_no_framework() -> None:
    code = "import sys, clearance; clearance.connect('memory://').close(); print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not [name for name in FRAMEWORKS if f"'{name}'" in loaded]


def test_importing_the_facade_loads_nothing_heavy() -> None:
    code = "import sys, clearance; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not [name for name in ("pydantic", "apsw", "httpx", "asyncio") if f"'{name}'" in loaded]
