"""Clearance for LangChain and LangGraph: every model, tool and retriever call reserved before, settled after."""

from clearance_langchain.handler import ClearanceCallbackHandler

__all__ = ["ClearanceCallbackHandler"]
