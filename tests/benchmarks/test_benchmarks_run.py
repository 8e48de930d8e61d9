"""Every benchmark runs and gives figures. How fast it is, no test asserts."""

from __future__ import annotations

import json

import pytest
from benchmarks.catalogue import BENCHMARKS
from benchmarks.report import as_json, document
from benchmarks.results import Section
from benchmarks.sizes import TINY


@pytest.fixture(scope="module")
def sections() -> dict[str, Section]:
    return {name: run(TINY, lambda _: None) for name, run in BENCHMARKS.items()}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_gives_rows_of_figures(sections: dict[str, Section], name: str) -> None:
    section = sections[name]
    assert section.name == name
    if not section.rows:
        # What needs an environment of its own says so where there is none.
        assert {goal.verdict for goal in section.goals} == {"cannot be told"}
        assert all("not measured" in goal.measured for goal in section.goals)
        return
    assert len({tuple(row) for row in section.rows}) == 1
    figures = [value for row in section.rows for value in row.values() if isinstance(value, int | float)]
    assert len(figures) >= len(section.rows)
    assert all(goal.verdict in ("met", "missed", "cannot be told") for goal in section.goals)


def test_the_document_has_every_section_and_goal(sections: dict[str, Section]) -> None:
    text = document(list(sections.values()), {"CPU": "one"}, "2026-01-01", "tiny", 1.0)
    for section in sections.values():
        assert f"## {section.title}" in text
        assert all(goal.text in text for goal in section.goals)


def test_json_can_be_read_back(sections: dict[str, Section]) -> None:
    found = json.loads(as_json(list(sections.values()), {}, "2026-01-01", "tiny"))
    assert [it["name"] for it in found["benchmarks"]] == list(BENCHMARKS)
