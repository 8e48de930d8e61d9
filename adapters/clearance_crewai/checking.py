"""What users hand to a run, checked before anything begins, and their functions, which may fail but are no outage."""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from crewai.agents.agent_builder.base_agent import BaseAgent
from crewai.utilities.string_utils import sanitize_tool_name

from clearance.errors import Denied, InvalidRequest
from clearance.model.action import Action
from clearance.model.amount import to_amount
from clearance.model.subject import Subject
from clearance_crewai.errors import CallbackFailed

log = logging.getLogger("clearance.crewai")

R = TypeVar("R")
V = TypeVar("V")

STARTABLE = "a Crew, a Flow, an Agent, or an object of a @CrewBase class"
_ARGUMENTS = ("subject", "budget", "name", "on_deny", "inputs", "input_files", "from_checkpoint")
"""What may be given beside the options, for those who misspell one of them."""

_LIKENESS = 0.8


def check_names(given: Iterable[str], options: Iterable[str]) -> None:
    """Raises InvalidRequest, with the nearest spelling, for an option that there is not."""
    known = list(options)
    for name in given:
        if name not in known:
            raise InvalidRequest(name, f"is no option{_hint(name, [*known, *_ARGUMENTS])}", ", ".join(known))


def check_authority(authority: object) -> None:
    if callable(getattr(authority, "start_run", None)) and callable(getattr(authority, "reserve", None)):
        return
    swapped = " (is it in another one's place? the order is: crew, authority, subject, budget)"
    kind = type(authority).__name__
    hint = swapped if is_startable(authority) or isinstance(authority, Subject) else ""
    raise InvalidRequest("authority", f"{kind} is no authority{hint}", "what clearance.connect() gives")


def check_startable(crew: object) -> None:
    if inspect.isclass(crew):
        raise InvalidRequest("crew", f"{crew.__name__} is a class", f"an object of it: {crew.__name__}()")
    if not is_startable(crew):
        swapped = callable(getattr(crew, "start_run", None))
        hint = " (swapped? the order is: crew, authority, subject, budget)" if swapped else ""
        raise InvalidRequest("crew", f"{type(crew).__name__} cannot be started{hint}", STARTABLE)


def is_startable(thing: object) -> bool:
    return hasattr(thing, "kickoff") or hasattr(thing, "crew")


def check_subject(subject: object) -> None:
    if subject is not None and not isinstance(subject, Subject):
        raise InvalidRequest("subject", f"{type(subject).__name__} is not a subject", 'Subject(tenant="...") or None')


def check_input(crew: object, inputs: object) -> None:
    """Of one start: an Agent is asked with text or messages, everything else is given values by name."""
    if isinstance(crew, BaseAgent):
        if not isinstance(inputs, str | list):
            raise InvalidRequest("inputs", f"{type(inputs).__name__} is no question", "text, or a list of messages")
    elif inputs is not None and not isinstance(inputs, Mapping):
        raise InvalidRequest("inputs", f"{type(inputs).__name__} is no mapping", "a dict: name -> value")


def check_each(crew: object) -> None:
    """Of a start for each of many inputs, which only crews have."""
    if hasattr(crew, "kickoff") and not hasattr(crew, "kickoff_for_each"):
        problem = f"{type(crew).__name__} cannot be started for each of many inputs"
        raise InvalidRequest("crew", problem, "a Crew; for others call kickoff in a loop inside clearance_crewai.run()")


def check_inputs(inputs: object) -> None:
    """Of a start for each of many inputs."""
    if not isinstance(inputs, list | tuple) or not all(isinstance(one, Mapping) for one in inputs):
        raise InvalidRequest("inputs", f"{type(inputs).__name__} is no list of inputs", "a list with a dict for each")


# --- options


def checked_costs(costs: Any) -> Any:
    """Amounts by tool, under CrewAI's spelling of the name as well, or the function as it is."""
    if costs is None:
        return None
    if isinstance(costs, Mapping):
        return by_tool("tool_costs", costs, lambda name, cost: to_amount(cost, f"tool_costs[{name!r}]"))
    check_function("tool_costs", costs, "a mapping by tool, or a function (tool) -> amount or None", "tool")
    return costs


def checked_kinds(kinds: Any) -> dict[str, str] | None:
    if kinds is None:
        return None
    if not isinstance(kinds, Mapping):
        raise InvalidRequest("action_kinds", f"{type(kinds).__name__} is no mapping", "a mapping: tool -> action kind")
    return by_tool("action_kinds", kinds, _kind)


def _kind(name: str, kind: object) -> str:
    field = f"action_kinds[{name!r}]"
    if not isinstance(kind, str):
        raise InvalidRequest(field, f"{type(kind).__name__} is no action kind", 'text such as "message.email.send"')
    if any(letter.isspace() for letter in kind):
        raise InvalidRequest(field, f"{kind[:40]!r} holds a space", 'a kind such as "message.email.send"')
    try:
        return Action(kind=kind, name="tool").kind
    except InvalidRequest as error:
        raise InvalidRequest(field, f"{kind[:40]!r} {error.problem}", error.allowed or "1 to 64 characters") from None


def by_tool(option: str, given: Mapping[Any, Any], read: Callable[[str, Any], V]) -> dict[str, V]:
    """The mapping under the names that it gives, and under CrewAI's: "Send Email" is `send_email`."""
    found: dict[str, V] = {}
    for name, value in given.items():
        if not isinstance(name, str) or not name.strip():
            raise InvalidRequest(option, f"{name!r} is not the name of a tool", "text, as the tool is named")
        found[name] = read(name, value)
    return {**{sanitize_tool_name(name): value for name, value in found.items()}, **found}


def check_function(option: str, function: object, wanted: str, *arguments: object) -> None:
    """Raises InvalidRequest for what cannot be called with as many arguments, or would have to be awaited."""
    if not callable(function):
        raise InvalidRequest(option, f"{type(function).__name__} is no function", wanted)
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        raise InvalidRequest(option, "is a coroutine function, and nobody would await it", wanted)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise InvalidRequest(option, f"takes other arguments ({error})", wanted) from None


def check_prices(prices: object) -> None:
    if prices is not None and not all(callable(getattr(prices, name, None)) for name in ("estimate", "price")):
        raise InvalidRequest("prices", f"{type(prices).__name__} is no price book", "a PriceBook or None")


def check_tools(crew: object, named: Mapping[str, Iterable[str]]) -> None:
    """Raises InvalidRequest where an option names a tool that the crew has under a slightly different name.

    A name that is unlike all of the crew's tools may be of another crew, or of a tool that is found while it runs.
    """
    tools = tools_of(crew)
    for option, names in named.items():
        spelled = {sanitize_tool_name(name) for name in names}
        left = sorted(tools - spelled)
        for name in sorted(spelled - tools):
            if near := difflib.get_close_matches(name, left, n=1, cutoff=_LIKENESS):
                raise InvalidRequest(option, f"the crew has no tool {name!r}; did you mean {near[0]!r}?", near[0])


def tools_of(crew: object) -> set[str]:
    """The names, as CrewAI gives them to a model, of the tools that a crew or an agent starts out with."""
    holders = [crew, getattr(crew, "manager_agent", None)]
    holders += [*(getattr(crew, "agents", None) or ()), *(getattr(crew, "tasks", None) or ())]
    tools = [tool for holder in holders for tool in (getattr(holder, "tools", None) or ())]
    return {sanitize_tool_name(name) for tool in tools if isinstance(name := getattr(tool, "name", None), str)}


def _hint(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


# --- functions of users


def ask(option: str, what: str, function: Callable[..., R], *arguments: Any) -> R:
    """What a user's function answers. A Denied that it raises is its answer; any other error is CallbackFailed.

    Its error's text may hold anything, so only the type and the place are told.
    """
    try:
        return function(*arguments)
    except Denied:
        raise
    except Exception as error:
        kind, at = type(error).__name__, _place(error)
    log.error("%s raised %s at %s: %s is denied", option, kind, at, what)
    facts = {"callback": option, "error": kind, "at": at}
    raise CallbackFailed(f"{option} raised {kind}, so {what} is denied", details=facts)


def _place(error: Exception) -> str:
    """The first line of the user's that it has come through."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("clearance"):
        trace = trace.tb_next
    return "?" if trace is None else f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
