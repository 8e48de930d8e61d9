"""One crew for many inputs, and what there is of each when a denial ends them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

from crewai import Crew
from crewai.crews.crew_output import CrewOutput
from crewai.tasks.task_output import TaskOutput

from clearance_crewai.landing import crew_output


class ForEach:
    """Starts `kickoff_for_each` and its kin so that the copy which CrewAI makes for each input is known."""

    def __init__(self, crew: Any, inputs: Sequence[Any]) -> None:
        self.crew = crew
        self._inputs = len(inputs)
        self._copies: list[Any] = []
        self._results: dict[int, CrewOutput] = {}

    def start(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """The method of the crew's own class, for a crew that remembers its copies."""
        if not isinstance(self.crew, Crew):
            return getattr(self.crew, method)(*args, **kwargs)
        return getattr(type(self.crew), method)(_Remembering(self), *args, **kwargs)

    def results(self, completed: Sequence[TaskOutput]) -> list[CrewOutput]:
        """One for each input, in their order: its result, what was completed of it, or an empty one."""
        return [self.result(number, completed) for number in range(self._inputs)]

    def result(self, number: int, completed: Sequence[TaskOutput]) -> CrewOutput:
        if number in self._results:
            return self._results[number]
        tasks = self._copies[number].tasks if number < len(self._copies) else ()
        ours = {id(output) for output in completed}
        return crew_output([task.output for task in tasks if task.output is not None and id(task.output) in ours])

    def copy(self) -> Any:
        made, number = self.crew.copy(), len(self._copies)
        self._copies.append(made)
        for name in ("kickoff", "akickoff"):
            # A Crew refuses attributes that are no fields.
            object.__setattr__(made, name, self._noting(getattr(made, name), number))
        return made

    def _noting(self, start: Callable[..., Any], number: int) -> Callable[..., Any]:
        if iscoroutinefunction(start):

            @wraps(start)
            async def astart(*args: Any, **kwargs: Any) -> Any:
                return self._noted(number, await start(*args, **kwargs))

            return astart

        @wraps(start)
        def plain(*args: Any, **kwargs: Any) -> Any:
            return self._noted(number, start(*args, **kwargs))

        return plain

    def _noted(self, number: int, result: Any) -> Any:
        if isinstance(result, CrewOutput):
            self._results[number] = result
        return result


class _Remembering:
    """A crew for the eyes of CrewAI's for-each methods: every attribute is the crew's, but for `copy`."""

    def __init__(self, many: ForEach) -> None:
        object.__setattr__(self, "_many", many)

    def copy(self) -> Any:
        many: ForEach = object.__getattribute__(self, "_many")
        return many.copy()

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_many").crew, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "_many").crew, name, value)
