"""What a start that was denied gives with `on_deny="finish"`, in place of the result that it would have given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from crewai import Crew, Task
from crewai.agents.agent_builder.base_agent import BaseAgent
from crewai.crews.crew_output import CrewOutput
from crewai.flow.flow import Flow
from crewai.lite_agent_output import LiteAgentOutput
from crewai.tasks.task_output import TaskOutput

_NO_RESULT = ("train", "test")


class Start(NamedTuple):
    """What is all of a run: a crew, a flow, an agent or a task, and the name of the method that starts it."""

    thing: Any
    method: str


def result_of(outputs: Sequence[TaskOutput], start: Start | None = None) -> Any:
    """Of the same type as the start's own result; `outputs` are those of the tasks that were completed.

    A crew, and a function, gives a CrewOutput of those, whose answer is the last one's. A flow gives what its last
    completed method gave, or None. An agent and a task have completed nothing: theirs is empty.
    """
    thing, method = start or (None, "")
    if isinstance(thing, Flow):
        return thing.method_outputs[-1] if thing.method_outputs else None
    if isinstance(thing, BaseAgent):
        return LiteAgentOutput(agent_role=thing.role) if "kickoff" in method else ""
    if isinstance(thing, Task):
        return _empty(thing)
    if isinstance(thing, Crew) and method in _NO_RESULT:
        return None
    return crew_output(outputs)


def crew_output(outputs: Sequence[TaskOutput]) -> CrewOutput:
    if not outputs:
        return CrewOutput()
    last = outputs[-1]
    return CrewOutput(raw=last.raw, pydantic=last.pydantic, json_dict=last.json_dict, tasks_output=list(outputs))


def _empty(task: Task) -> TaskOutput:
    role = getattr(task.agent, "role", "")
    return TaskOutput(description=task.description, name=task.name, expected_output=task.expected_output, agent=role)
