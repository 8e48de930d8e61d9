"""LangChain logs every error of a handler as a fault of that handler. A denial is none, and is raised anyway."""

from __future__ import annotations

import logging
import sys

from clearance.errors import Denied

LOGGER = "langchain_core.callbacks.manager"


def quiet_about_denials(handler_name: str) -> None:
    """Drop LangChain's warnings about denials raised by handlers of this class name; all other records pass."""
    logger, filter_ = logging.getLogger(LOGGER), _Denials(handler_name)
    if filter_ not in logger.filters:
        logger.addFilter(filter_)


class _Denials(logging.Filter):
    def __init__(self, handler_name: str) -> None:
        super().__init__()
        self._handler = handler_name

    def filter(self, record: logging.LogRecord) -> bool:
        args = record.args
        about_us = isinstance(args, tuple) and args[:1] == (self._handler,)
        return not (about_us and isinstance(sys.exc_info()[1], Denied))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Denials) and other._handler == self._handler

    def __hash__(self) -> int:
        return hash(self._handler)
