"""Embeddings, which LangChain calls without telling any handler."""

from __future__ import annotations

from typing import Any, Unpack

from langchain_core.embeddings import Embeddings

from clearance.authority.interface import Authority
from clearance.errors import InvalidRequest
from clearance.model.subject import Subject
from clearance_langchain.errors import fitting
from clearance_langchain.gate import EMBEDDING, Call, Gate, Options

_MODEL_FIELDS = ("model", "model_name", "model_id", "deployment")


def guard_embeddings(
    embeddings: Embeddings, authority: Authority, subject: Subject | None = None, **options: Unpack[Options]
) -> Embeddings:
    """Embeddings that ask the authority before each call.

    LangChain gives no usage for them, so each call is charged its estimate: one token for each UTF-8 byte of the text,
    which is more than it costs. The subject comes from the context as for models. Raises InvalidRequest.
    """
    if not isinstance(embeddings, Embeddings):
        raise InvalidRequest("embeddings", f"{type(embeddings).__name__} is not one", "an Embeddings object")
    return GuardedEmbeddings(embeddings, Gate(authority, subject, **options))


class GuardedEmbeddings(Embeddings):
    """Made by `guard_embeddings`. Other attributes are those of the embeddings inside."""

    def __init__(self, inner: Embeddings, gate: Gate) -> None:
        self._inner = inner
        self._gate = gate

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        with fitting(), self._gate.open(self._call(texts)):
            return self._inner.embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        with fitting(), self._gate.open(self._call([text])):
            return self._inner.embed_query(text)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        with fitting():
            async with await self._gate.aopen(self._call(texts)):
                return await self._inner.aembed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        with fitting():
            async with await self._gate.aopen(self._call([text])):
                return await self._inner.aembed_query(text)

    def _call(self, texts: list[str]) -> Call:
        named = (getattr(self._inner, field, None) for field in _MODEL_FIELDS)
        model = next((name for name in named if isinstance(name, str) and name), type(self._inner).__name__)
        return self._gate.model_call(texts, {"model": model, "max_tokens": 0}, kind=EMBEDDING)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # also what copy and pickle ask before `__init__` has run
            raise AttributeError(name)
        return getattr(self._inner, name)
