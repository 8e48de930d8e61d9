"""Embeddings of memory and knowledge, which CrewAI makes without any event: a reservation for each call of an embedder.

Nobody tells what they have used, so each is charged its estimate: a token for each UTF-8 byte, which is more than it
costs. What runs on this machine, and a function that names no model, is checked with an amount of 0: stops hold for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from clearance.errors import InvalidRequest
from clearance.guard.process import new_key
from clearance_crewai.claims import refuse_strayed
from clearance_crewai.errors import refusing
from clearance_crewai.usage import REFERRED_TOKENS, Asked

_NAMES = ("model_name", "_model_name", "model")
_SETTINGS = ("model", "model_name", "model_id")
_ON_THIS_MACHINE = frozenset(
    {
        "DefaultEmbeddingFunction",
        "InstructorEmbeddingFunction",
        "ONNXMiniLM_L6_V2",
        "OllamaEmbeddingFunction",
        "OpenCLIPEmbeddingFunction",
        "SentenceTransformerEmbeddingFunction",
        "Text2VecEmbeddingFunction",
    }
)


class GuardedEmbedder:
    """Made by `guard_embedder`. Other attributes are those of the embedder inside."""

    def __init__(self, inner: Callable[[Any], Any], model: str | None) -> None:
        self._inner = inner
        self.model_name = model or model_of(inner)

    def __call__(self, input: Any) -> Any:
        return self._ask(self._inner, input)

    def embed_query(self, input: Any) -> Any:
        return self._ask(getattr(self._inner, "embed_query", self._inner), input)

    def _ask(self, embed: Callable[..., Any], texts: Any) -> Any:
        run = _run()
        return embed(texts) if run is None else _reserved(run, self, texts, lambda: embed(texts))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # also what copy and pickle ask before `__init__` has run
            raise AttributeError(name)
        return getattr(self._inner, name)


def guard_embedder(embedder: Callable[[Any], Any], model: str | None = None) -> Any:
    """An embedder that reserves each of its calls in the run around it, for `Memory(embedder=...)` and your own use.

    Memory's and Chroma's (knowledge) are reserved by themselves in a run; this one is for other vector stores, and
    names the `model` of a function of your own, so that it has a price. Outside a run it only passes on. Raises
    InvalidRequest for what cannot be called.
    """
    if not callable(embedder):
        raise InvalidRequest("embedder", f"{type(embedder).__name__} cannot be called", "a function (texts) -> vectors")
    return GuardedEmbedder(embedder, model)


def in_memory(original: Callable[..., Any]) -> Callable[..., Any]:
    """CrewAI's `embed_text` and `embed_texts`."""

    @wraps(original)
    def embed(embedder: Any, text: Any) -> Any:
        run = _run()
        texts = [one for one in ([text] if isinstance(text, str) else text or ()) if one and one.strip()]
        if run is None or not texts or isinstance(embedder, GuardedEmbedder):
            return original(embedder, text)
        return _reserved(run, embedder, texts, lambda: original(embedder, text))

    return embed


def in_collections(original: Callable[..., Any]) -> Callable[..., Any]:
    """Chroma's collections, in which CrewAI keeps knowledge."""

    def embed(self: Any, input: Any, is_query: bool = False) -> Any:
        run, embedder = _run(), self._embedding_function
        if run is None or isinstance(embedder, GuardedEmbedder):
            return original(self, input, is_query)
        return _reserved(run, embedder, input, lambda: original(self, input, is_query))

    return embed


def model_of(embedder: Any) -> str:
    """The model that an embedder names, empty where it runs on this machine or names none."""
    if type(embedder).__name__ in _ON_THIS_MACHINE:
        return ""
    settings = getattr(embedder, "_config", None)
    found = [getattr(embedder, name, None) for name in _NAMES]
    found += [settings.get(name) for name in _SETTINGS] if isinstance(settings, dict) else []
    return next((name for name in found if isinstance(name, str) and name.strip()), "")


def _reserved(run: Any, embedder: Any, texts: Any, embed: Callable[[], Any]) -> Any:
    model, key = model_of(embedder), new_key()
    shown = model or getattr(embedder, "__name__", type(embedder).__name__)
    wanted = Asked(shown, _size(texts), 0, embedding=True, priced=bool(model))
    refused = run.models.begin(key, wanted, run.who(None, None))
    if refused is not None:
        refusal, why = refusing(refused)
        raise refusal from why
    try:
        vectors = embed()
    except BaseException as error:
        run.models.end(key, error)
        raise
    run.models.end(key)
    return vectors


def _size(texts: Any) -> int:
    given = [texts] if isinstance(texts, str) else list(texts)
    return sum(len(one.encode("utf-8", "surrogatepass")) if isinstance(one, str) else REFERRED_TOKENS for one in given)


def _run() -> Any:
    """The run around; raises OutsideRun in a thread that a run has started and that is not in it."""
    from clearance_crewai.crewrun import current_crew_run

    run = current_crew_run()
    if run is None:
        refuse_strayed("an embedder")
    return run
