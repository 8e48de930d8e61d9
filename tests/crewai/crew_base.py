"""A `@CrewBase` class for tests: one agent, one task."""

from __future__ import annotations

from typing import Any

from crew_world import ACME, World
from crewai import Crew
from crewai.project import CrewBase, agent, crew, task

import clearance_crewai


def research_class(world: World, **options: Any) -> type[Any]:
    """Not governed; the options are the agent's."""

    @CrewBase
    class Research:
        agents_config = None
        tasks_config = None

        @agent
        def reader(self) -> Any:
            return world.agent("Reader", [world.tool()], **options)

        @task
        def look(self) -> Any:
            return world.task(self.reader())

        @crew
        def crew(self) -> Crew:
            return Crew(agents=self.agents, tasks=self.tasks)

    made: type[Any] = Research
    return made


def research(world: World, budget: Any = "0.2", **options: Any) -> Any:
    """An object of the class, governed."""
    return clearance_crewai.governed(world.authority, ACME, budget, **options)(research_class(world))()
