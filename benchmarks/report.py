"""The sections as Markdown, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable

from benchmarks.results import Goal, Section, cell

PREFACE = """\
# What Clearance costs

Written by `make bench` on {date}; every figure was measured in this one run ({size}, {minutes:.0f} minutes). Times are
medians over the rounds, p99.9 is over all rounds together. The machine may have other work: trust ratios to the floor,
which took its turn in the same rounds, more than times. A lifecycle is one reserve and one commit.
"""


def document(sections: list[Section], facts: dict[str, str], date: str, size: str, seconds: float) -> str:
    parts = [PREFACE.format(date=date, size=size, minutes=seconds / 60)]
    parts.append("## The machine\n\n" + _table(("", ""), facts.items()))
    goals = [goal for section in sections for goal in section.goals]
    if goals:
        parts.append("## Goals\n\n" + _table(("goal", "measured", ""), map(_goal, goals)))
    parts += [markdown(section) for section in sections]
    return "\n".join(parts)


def markdown(section: Section) -> str:
    text = f"## {section.title}\n\n`{section.name}`. {section.how}\n\n"
    if section.rows:
        text += _table(tuple(section.rows[0]), ([cell(value) for value in row.values()] for row in section.rows))
    for goal in section.goals:
        text += f"\n- {goal.text[0].upper()}{goal.text[1:]}: **{goal.verdict}** ({goal.measured})."
    return text + ("\n" if section.goals else "")


def as_json(sections: list[Section], facts: dict[str, str], date: str, size: str) -> str:
    found = [
        {
            "name": section.name,
            "rows": section.rows,
            "goals": [{"goal": goal.text, "measured": goal.measured, "met": goal.met} for goal in section.goals],
        }
        for section in sections
    ]
    return json.dumps({"date": date, "size": size, "machine": facts, "benchmarks": found}, indent=2)


def _goal(goal: Goal) -> tuple[str, str, str]:
    return goal.text, goal.measured, goal.verdict


def _table(head: tuple[str, ...], rows: Iterable[Iterable[str]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
