"""Who acts, when LangChain calls."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from langchain_core.runnables.config import var_child_runnable_config
from pydantic import ValidationError

from clearance.authority.interface import Authority
from clearance.errors import ClearanceError
from clearance.guard.context import acting_as, current_run, current_subject
from clearance.model.subject import LEVELS, Subject

log = logging.getLogger("clearance.langchain")
_NAMES = frozenset({"subject", *LEVELS})


def resolve(
    explicit: Subject | None,
    authority: Authority,
    metadata: Mapping[str, Any] | None = None,
    above: Subject | None = None,
) -> Subject | None:
    """The first that is there: `explicit`; `acting_as` or the run; `runtime.context`; `configurable`; metadata.

    In the last three a subject is an entry `subject` (a Subject or a mapping of levels) or entries named after the
    levels, `tenant` at least. Code inside an agent can write metadata, so where somebody has named the subject before
    it only narrows it: it adds levels below the deepest one, and cannot change what is there. Metadata of the chain
    around goes before that of the call, and `above`, which the outermost chains have named, before both. None when
    nobody is named.
    """
    known = explicit or _in_force(authority)
    if known is None:
        config = var_child_runnable_config.get() or {}
        outer = config.get("metadata")
        known = _of(_runtime_context()) or _of(config.get("configurable")) or above or _of(outer)
        if known is not None and outer:
            known = _narrowed(known, outer)
    if known is None:
        return _of(metadata)
    return _narrowed(known, metadata) if metadata else known


def named(metadata: Mapping[str, Any], above: Subject | None) -> Subject | None:
    """Whom the metadata of a chain names, under what the chains above it have named."""
    return _of(metadata) if above is None else _narrowed(above, metadata)


@contextmanager
def pinned(explicit: Subject | None, authority: Authority, found: Subject | None) -> Iterator[None]:
    """Whom the config has named acts for all that is inside, whatever config comes up there."""
    if found is None or explicit is not None or _in_force(authority) is not None:
        yield
        return
    with acting_as(found):
        yield


def _in_force(authority: Authority) -> Subject | None:
    subject = current_subject()
    run = current_run(authority)
    return subject or (run.subject if run is not None else None)


def _runtime_context() -> object:
    """LangGraph's `runtime.context`, if we run in one of its nodes."""
    module = sys.modules.get("langgraph.runtime")  # not loaded: then we are in no graph
    if module is None:
        return None
    try:
        return getattr(module.get_runtime(), "context", None)
    except Exception:  # outside of a graph it raises, with different types over the versions
        return None


def _of(source: object) -> Subject | None:
    levels = _levels(source)
    if isinstance(levels, Subject) or levels is None:
        return levels
    if not levels.get("tenant") and not _entry(source, "subject"):
        return None
    try:
        return Subject(**levels)
    except (ClearanceError, ValidationError) as error:
        log.warning("no subject: what the context names is not one (%s)", type(error).__name__)
        return None


def _levels(source: object) -> Subject | dict[str, Any] | None:
    if source is None:
        return None
    named = _entry(source, "subject")
    if isinstance(named, Subject):
        return named
    if isinstance(named, Mapping):
        source = named
    return {level: value for level in LEVELS if isinstance(value := _entry(source, level), str) and value}


def _entry(source: object, name: str) -> object:
    return source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)


def _narrowed(known: Subject, metadata: Mapping[str, Any]) -> Subject:
    """`known` with the levels of `metadata` that lie below its deepest one.

    A level in between would make other scopes, and so leave out a budget that holds now.
    """
    if _NAMES.isdisjoint(metadata):
        return known
    found = _levels(metadata)
    if isinstance(found, Subject):
        found = {level: value for level in LEVELS if (value := getattr(found, level))}
    deepest = max(index for index, level in enumerate(LEVELS) if getattr(known, level))
    below = {level: value for level, value in (found or {}).items() if LEVELS.index(level) > deepest}
    if not below:
        return known
    try:
        return known.narrowed(**below)
    except (ClearanceError, ValidationError):
        return known
