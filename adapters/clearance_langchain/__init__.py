"""Clearance for LangChain and LangGraph: every model, tool and retriever call reserved before, settled after.

    from clearance_langchain import ClearanceCallbackHandler, ClearanceMiddleware, guard

    executor.invoke(inputs, config={"callbacks": [ClearanceCallbackHandler(authority, subject)]})
    model = guard(ChatOpenAI(model="gpt-5.2"), authority, subject)
    agent = create_agent(model, tools, middleware=[ClearanceMiddleware(authority, subject)])

`guard` is the strongest: it cannot be bypassed, applies caps, and stops calls in flight. The handler is for what cannot
be wrapped, the middleware turns denials into messages. All three together count a call once. A budget for a whole run
is `with authority.run(subject, budget=usd("5")):` around any of them.
"""

from typing import TYPE_CHECKING, Any

from clearance_langchain.embeddings import guard_embeddings
from clearance_langchain.gate import Options
from clearance_langchain.guarding import guard, is_guarded
from clearance_langchain.handler import ClearanceCallbackHandler
from clearance_langchain.processwide import govern_process, stop_governing_process

if TYPE_CHECKING:
    from clearance_langchain.middleware import ClearanceMiddleware

__all__ = [
    "ClearanceCallbackHandler",
    "ClearanceMiddleware",
    "Options",
    "govern_process",
    "guard",
    "guard_embeddings",
    "is_guarded",
    "stop_governing_process",
]


def __getattr__(name: str) -> Any:
    """The middleware needs `langchain`; the rest only `langchain-core`."""
    if name == "ClearanceMiddleware":
        from clearance_langchain.middleware import ClearanceMiddleware

        return ClearanceMiddleware
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
