"""Who acts, when LangChain calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from clearance.authority.interface import Authority
from clearance.guard.context import acting_as, current_run, current_subject
from clearance.model.subject import Subject
from clearance_langchain.naming import named
from clearance_langchain.runtrees import acting_below


def resolve(
    explicit: Subject | None,
    authority: Authority,
    metadata: Mapping[str, Any] | None = None,
    parent: UUID | None = None,
) -> Subject | None:
    """The first that is there: `explicit`; `acting_as` or the run; whom the runs above `parent`, the call's parent run,
    have named, the outermost first; then `runtime.context`, `configurable` and metadata of the config around; then
    `metadata`, the call's own. None when nobody is named.

    A subject is an entry `subject` (a Subject or a mapping of levels) or entries named after the levels, `tenant` at
    least. Code inside an agent can write config, so what comes later in this order only narrows: it adds levels below
    the deepest one, and cannot change what is there. Each run names in the same order: by `runtime.context`, by
    `configurable`, by metadata.
    """
    known = explicit or _in_force(authority) or acting_below(parent)
    return named(metadata, known)


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
