"""Who acts below a run of LangChain: whom the outermost of the runs above has named.

LangChain merges the config of each chain over that of the chain around it, so the call itself shows what the innermost
has named. A handler that LangChain puts into every run hears of each in turn, and keeps it by run id.

Handlers are told metadata only. The rest of a run's config is seen in the context of what it calls, so where a run
hands on its callbacks alone, as the classic chains do, the configurable of the first run below counts as its own.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Mapping
from contextvars import ContextVar
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID
from weakref import WeakKeyDictionary

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers.context import register_configure_hook

from clearance.model.subject import Subject
from clearance_langchain.naming import named, runtime_context

MAX_FOREIGN_RUNS = 10_000
"""Runs remembered whose id a caller has made of another type than UUID; past it the oldest is forgotten."""


class Names(NamedTuple):
    """`above`: whom the runs above have named, for good. `here`: the same, narrowed by the metadata of this run, or
    whom the metadata has named as the first; its configurable, which handlers are not told, goes before that."""

    above: Subject | None
    here: Subject | None


@cache
def listen() -> None:
    """From now on LangChain tells us of every run of this process. Asked again it does nothing.

    Of a tree that has begun before, the runs that begin afterwards are known.
    """
    register_configure_hook(_place, inheritable=True, handle_class=NamesHandler)


def acting_below(parent: UUID | None) -> Subject | None:
    """Who acts in a call under the run `parent`, as the runs above and the config around the call have it.

    In the order of `subjects.resolve`. None where nobody is named.
    """
    config = var_child_runnable_config.get() or {}
    return _acting(runs.get(parent) or runs.get(_run_around(config)), config)


class NamesHandler(BaseCallbackHandler):
    """Hears of each run that others can run below. LangChain adds none where there is one already."""

    run_inline = True
    raise_error = True

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **facts: Any
    ) -> None:
        _began(run_id, parent_run_id, facts.get("metadata"))

    def on_tool_start(
        self, serialized: Any, input_str: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **facts: Any
    ) -> None:
        _began(run_id, parent_run_id, facts.get("metadata"))

    def on_retriever_start(
        self, serialized: Any, query: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **facts: Any
    ) -> None:
        _began(run_id, parent_run_id, facts.get("metadata"))


class _OnlyNames(NamesHandler):
    """What `listen` puts into every run. It remembers names, and never says no."""

    ignore_llm = ignore_chat_model = True

    @property
    def run_inline(self) -> bool:  # type: ignore[override]
        """Not at the start of a completion model: in async calls LangChain tells nobody of it beside an inline one."""
        caller = sys._getframe(1)
        if caller.f_code.co_name == "<listcomp>" and caller.f_back is not None:  # a frame of its own until Python 3.12
            caller = caller.f_back
        return caller.f_code.co_name != "on_llm_start"


def _began(run_id: UUID, parent: UUID | None, metadata: Mapping[str, Any] | None) -> None:
    config, names = var_child_runnable_config.get(), runs.get(parent)
    above, here = names or _NOBODY
    if config and (names is None or _run_around(config) == parent):
        above = here = _acting(names or runs.get(_run_around(config)), config, tell=False)
    here = named(metadata, here, tell=False)
    if here is not None:
        runs.remember(run_id, Names(above, here))


def _acting(names: Names | None, config: RunnableConfig, *, tell: bool = True) -> Subject | None:
    known, last = names or (None, config.get("metadata"))
    for source in (runtime_context(), config.get("configurable")):
        if source:
            known = named(named(source, tell=tell), known)
    return named(last, known, tell=tell)


def _run_around(config: RunnableConfig) -> UUID | None:
    return getattr(config.get("callbacks"), "parent_run_id", None)


class Runs:
    """Names by run id, as long as anything holds the id itself: LangChain begins nothing below a run without it.

    So nothing is left of a run that was cancelled or of a stream that nobody reads on, and a task that outlives its run
    still acts for whom it did. Thread-safe without a lock, so a fork can leave none taken.
    """

    def __init__(self) -> None:
        self._names: WeakKeyDictionary[UUID, Names] = WeakKeyDictionary()
        self._foreign: OrderedDict[Any, Names] = OrderedDict()

    def __len__(self) -> int:
        return len(self._names) + len(self._foreign)

    def get(self, run_id: UUID | None) -> Names | None:
        if run_id is None:
            return None
        return self._names.get(run_id) if isinstance(run_id, UUID) else self._foreign.get(run_id)

    def remember(self, run_id: UUID, names: Names) -> None:
        if isinstance(run_id, UUID):
            self._names[run_id] = names
            return
        self._foreign[run_id] = names
        if len(self._foreign) > MAX_FOREIGN_RUNS:
            self._foreign.popitem(last=False)


_NOBODY = Names(None, None)
runs = Runs()
_handler = _OnlyNames()
_place: ContextVar[Any | None] = ContextVar("clearance_langchain_names", default=_handler)
"""LangChain's hook forces a place that belongs to the process; the default is there in every thread."""
