"""How long an async call of LangChain lives, where it says so to nobody."""

from __future__ import annotations

import sys

from langchain_core.callbacks import AsyncCallbackManager

_TOLD = frozenset({"on_chat_model_start", "on_tool_start", "on_retriever_start"})
_KEEPING = frozenset({"agenerate", "arun", "ainvoke"})
"""The coroutines that have the manager as a local from the start of the call to its end."""

_GATHERED = "on_llm_start"
"""Runs in a task of its own, so nothing around it can be seen. The manager is always such a local of the call."""

_DEPTH = 12


def manager_around() -> AsyncCallbackManager | None:
    """The callback manager of the call that is telling a handler of its start, None where there is no such coroutine.

    It is garbage as soon as the coroutine is: no event comes when an `ainvoke` is cancelled inside a task that lives on
    (`asyncio.timeout`), and the end of the task may be hours away.
    """
    frame = sys._getframe(1)
    for _ in range(_DEPTH):
        name, outer = frame.f_code.co_name, frame.f_back
        if name == _GATHERED or (name in _TOLD and outer is not None and outer.f_code.co_name in _KEEPING):
            found = frame.f_locals.get("self")
            if isinstance(found, AsyncCallbackManager):
                return found
        if outer is None:
            return None
        frame = outer
    return None
