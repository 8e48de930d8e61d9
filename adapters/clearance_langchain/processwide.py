"""One handler for every LangChain call of this process, switched on by an environment variable."""

from __future__ import annotations

import os
from contextvars import ContextVar
from threading import Lock
from typing import Unpack

from langchain_core.tracers.context import register_configure_hook

from clearance.authority.interface import Authority
from clearance.connecting import connect
from clearance.model.subject import Subject
from clearance_langchain.gate import Options
from clearance_langchain.handler import ClearanceCallbackHandler

VARIABLE = "CLEARANCE_LANGCHAIN"


class ProcessHandler(ClearanceCallbackHandler):
    """What LangChain's configure hook makes by calling the class without arguments: always the same one.

    Until `govern_process` names another authority it is the one of `clearance.connect()`.
    """

    def __new__(cls) -> ProcessHandler:
        with _place.lock:
            if _place.handler is None:
                _place.handler = _made(connect(), None, {})
            return _place.handler

    def __init__(self) -> None:
        """Ready already; Python calls this again for each time that the class is called."""


def govern_process(authority: Authority, subject: Subject | None = None, **options: Unpack[Options]) -> None:
    """From now on every LangChain call of this process, in any thread and with any callbacks, asks `authority`.

    The same as setting CLEARANCE_LANGCHAIN=1 where `clearance_langchain` is imported, or as running the program with
    `python -m clearance_langchain program.py`, but with an authority of your own. A call that another handler or a
    guard of the same authority counts is not counted again. The variable is set by this, so child processes that import
    `clearance_langchain` are governed too, by what `clearance.connect()` opens.
    """
    with _place.lock:
        _place.handler = _made(authority, subject, options)
    os.environ[VARIABLE] = "1"


def stop_governing_process() -> None:
    """Undo `govern_process`. Calls that are under way are settled as they end."""
    os.environ.pop(VARIABLE, None)
    with _place.lock:
        _place.handler = None


def _made(authority: Authority, subject: Subject | None, options: Options) -> ProcessHandler:
    handler = object.__new__(ProcessHandler)
    ClearanceCallbackHandler.__init__(handler, authority, subject, **options)
    return handler


class _Place:
    """LangChain's hook forces a place that belongs to the process."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.handler: ProcessHandler | None = None


_place = _Place()
_handler: ContextVar[ProcessHandler | None] = ContextVar("clearance_langchain_handler", default=None)
register_configure_hook(_handler, inheritable=True, handle_class=ProcessHandler, env_var=VARIABLE)
