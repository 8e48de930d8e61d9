"""Whom a piece of LangChain's context names, and how what names later narrows it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping

from pydantic import ValidationError

from clearance.errors import ClearanceError
from clearance.model.subject import LEVELS, Subject

log = logging.getLogger("clearance.langchain")
_NAMES = frozenset({"subject", *LEVELS})


def named(source: object, above: Subject | None = None, *, tell: bool = True) -> Subject | None:
    """Whom `source` names; under `above` it only narrows.

    Names are an entry or attribute `subject` (a Subject or a mapping of levels), or those called like the levels,
    `tenant` at least. What is no subject names nobody, and unless `tell` is off the log says so.
    """
    if not source or source is above or (isinstance(source, Mapping) and _NAMES.isdisjoint(source)):
        return above
    return _narrowed(above, source) if above is not None else _of(source, tell)


def runtime_context() -> object:
    """LangGraph's `runtime.context`, if we run in one of its nodes."""
    module = sys.modules.get("langgraph.runtime")  # not loaded: then we are in no graph
    if module is None:
        return None
    try:
        return getattr(module.get_runtime(), "context", None)
    except Exception:  # outside of a graph it raises, with different types over the versions
        return None


def _of(source: object, tell: bool) -> Subject | None:
    place = _place(source)
    if isinstance(place, Subject):
        return place
    if not _level(place, "tenant") and not _entry(source, "subject"):
        return None
    try:
        return Subject(**{level: _level(place, level) for level in LEVELS})
    except (ClearanceError, ValidationError) as error:
        if tell:
            log.warning("no subject: what the context names is not one (%s)", type(error).__name__)
        return None


def _narrowed(known: Subject, source: object) -> Subject:
    """`known` with the levels of `source` that lie below its deepest one.

    A level in between would make other scopes, and so leave out a budget that holds now.
    """
    place, below = _place(source), {}
    for level in reversed(LEVELS):
        if getattr(known, level):
            break
        if value := _level(place, level):
            below[level] = value
    if not below:
        return known
    try:
        return known.narrowed(**below)
    except (ClearanceError, ValidationError):
        return known


def _place(source: object) -> object:
    """Where the levels are: in the entry `subject`, else in `source` itself."""
    if isinstance(source, Subject):
        return source
    within = _entry(source, "subject")
    return within if isinstance(within, Subject | Mapping) else source


def _level(place: object, level: str) -> str | None:
    value = _entry(place, level)
    return value if isinstance(value, str) and value else None


def _entry(source: object, name: str) -> object:
    return source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)
