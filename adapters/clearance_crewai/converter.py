"""CrewAI's converter to JSON asks the provider through `instructor`, past its own LLM objects: one gate a request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
from crewai.llms.base_llm import BaseLLM

from clearance.errors import ClearanceError
from clearance.guard.process import new_key
from clearance_crewai.claims import refuse_strayed
from clearance_crewai.errors import refusing
from clearance_crewai.llms import covered, kept_to
from clearance_crewai.modelcalls import EndUnknown
from clearance_crewai.usage import Asked


def converting(original: Callable[..., Any]) -> Callable[..., Any]:
    """`InternalInstructor.to_pydantic` inside a run."""

    def to_pydantic(self: Any) -> Any:
        from clearance_crewai.crewrun import current_crew_run

        run = current_crew_run()
        if run is None:
            refuse_strayed(getattr(self.llm, "model", None) or type(self.llm).__name__)
        client = None if run is None else _http_client(self._client)
        if run is None or client is None or not isinstance(self.llm, BaseLLM):
            return original(self)  # the hook before it reserves it, as one call
        requests = _Requests(run, self.llm, getattr(self.agent, "role", None))
        try:
            with requests.watching(client), covered():
                return original(self)
        except _Stop as stop:
            refused = stop.refused
        # Outside the `except`: CrewAI reads the errors around an error.
        refusal, why = refusing(refused)
        raise refusal from why

    return to_pydantic


class _Stop(BaseException):
    """Passes through the retries of OpenAI's client and of `instructor`, which catch every Exception."""

    def __init__(self, refused: ClearanceError) -> None:
        super().__init__()
        self.refused = refused


class _Requests:
    """Reserves and settles each HTTP request of one conversion, retries included."""

    def __init__(self, run: Any, llm: BaseLLM, role: str | None) -> None:
        self._run = run
        self._llm = llm
        self._who = run.who(role, None)
        self._key: str | None = None

    @contextmanager
    def watching(self, client: httpx.Client) -> Iterator[None]:
        before = client.event_hooks
        client.event_hooks = {
            "request": [*before["request"], self._sent],
            "response": [*before["response"], self._answered],
        }
        try:
            yield
        finally:
            client.event_hooks = before
            self._lost()

    def _sent(self, request: httpx.Request) -> None:
        self._lost()
        key, body = new_key(), _mapping(request.content)
        wanted = self._asked(body, len(request.content))
        can_swap = self._llm.provider == "openai"
        refused = self._run.models.begin(key, wanted, self._who, can_cap=bool(body), can_swap=can_swap)
        if refused is not None:
            raise _Stop(refused)
        self._key = key
        opened = self._run.models.get(key)
        kept = kept_to(body, opened.permit.caps, opened.call.model, self._llm, wanted.max_output_tokens)
        if kept is not body:
            _rewrite(request, kept)

    def _asked(self, body: Mapping[str, Any], size: int) -> Asked:
        """The body is all that is sent; what the LLM object is set to is not in it."""
        cap = body.get("max_completion_tokens") or body.get("max_tokens")
        return Asked(str(body.get("model") or self._llm.model), size, cap if isinstance(cap, int) else None)

    def _answered(self, response: httpx.Response) -> None:
        key, self._key = self._key, None
        if response.is_error:
            self._run.models.end(key, httpx.HTTPStatusError("", request=response.request, response=response))
            return
        response.read()
        usage = _mapping(response.content).get("usage")
        self._run.models.note(key, usage if isinstance(usage, Mapping) else None)
        self._run.models.end(key)

    def _lost(self) -> None:
        """A request without an answer: timed out, or cut off."""
        key, self._key = self._key, None
        self._run.models.end(key, EndUnknown())


def _http_client(instructor: Any) -> httpx.Client | None:
    """The connections of the client that `instructor` made for this converter alone."""
    found = getattr(getattr(instructor, "client", None), "_client", None)
    return found if isinstance(found, httpx.Client) else None


def _rewrite(request: httpx.Request, body: Mapping[str, Any]) -> None:
    raw = json.dumps(body).encode()
    request.stream = httpx.ByteStream(raw)
    request.headers["content-length"] = str(len(raw))


def _mapping(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
