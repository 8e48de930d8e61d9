"""`ClearanceCallbackHandler`: every model, tool and retriever call that LangChain reports, reserved and settled."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Unpack
from uuid import UUID

from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult

from clearance.authority.interface import Authority
from clearance.model.subject import Subject
from clearance_langchain.errors import fitting
from clearance_langchain.gate import RETRIEVER, Call, Gate, Options
from clearance_langchain.opencalls import open_calls_of
from clearance_langchain.quiet import quiet_about_denials
from clearance_langchain.runtrees import NamesHandler
from clearance_langchain.usage import reported

log = logging.getLogger("clearance.langchain")


class ClearanceCallbackHandler(NamesHandler):
    """Put it into `callbacks`, and no call below happens without the authority's leave.

        executor.invoke(inputs, config={"callbacks": [ClearanceCallbackHandler(authority, Subject(tenant="acme"))]})

    Chat models and completion models are estimated from the prompt and priced by what they report; answers from
    LangChain's cache are free. Tools and retrievers cost what `tool_costs` says; those without a cost are checked all
    the same, with an amount of 0, so that kill, pause, tool lists and step caps hold for them.

    It is sync and inline on purpose: LangChain swallows the errors of async handlers in sync calls, and skips others
    beside an inline one. A denial is raised out of the call (`clearance.Denied`, which retry middleware leaves alone).
    Embeddings have no callbacks: see `guard_embeddings`. A handler cannot lower `max_tokens`: under such a cap a
    request that asks for more is denied. It cannot stop a call in flight that does not stream, and does not see the
    retries inside a provider's SDK: make models with `max_retries=0`. `guard` can do all three.

    Args:
        subject: who acts; by default `acting_as` or the run around, then whom the outermost chain has named, by graph
            context, configurable or metadata; chains further in only narrow that. Nobody named: denied.
        options: see `Options`.

    Raises InvalidRequest for costs that are no amounts.
    """

    raise_error = True
    run_inline = True

    def __init__(
        self,
        authority: Authority,
        subject: Subject | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__()
        self.authority = authority
        self._open = open_calls_of(authority)
        self._gate = Gate(authority, subject, **options)
        self._told_of_retries = False
        quiet_about_denials(type(self).__name__)

    # --- models

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if self._is_counted(run_id, metadata, kwargs.get("batch_size") or 1):
            return
        params = kwargs.get("invocation_params") or {}
        ls_model = (metadata or {}).get("ls_model_name")
        prompt = [message for turn in messages for message in turn]
        if not self._told_of_retries:
            self._tell_of_retries(serialized)
        name = _name(serialized, kwargs)
        call = self._gate.model_call(
            prompt, params, metadata=metadata, parent=parent_run_id, ls_model=ls_model, name=name
        )
        self._begin(call, run_id, parent_run_id, batch_size=kwargs.get("batch_size"))

    def on_llm_start(
        self,
        serialized: dict[str, Any],
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if self._is_counted(run_id, metadata, kwargs.get("batch_size") or 1):
            return
        params = kwargs.get("invocation_params") or {}
        ls_model = (metadata or {}).get("ls_model_name")
        name = _name(serialized, kwargs)
        call = self._gate.model_call(
            prompts,
            params,
            metadata=metadata,
            parent=parent_run_id,
            ls_model=ls_model,
            name=name,
            chat=False,
        )
        self._begin(call, run_id, parent_run_id, batch_size=kwargs.get("batch_size"))

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._check(run_id)

    def on_stream_event(self, event: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._check(run_id)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        opened = self._open.pop(run_id)
        if opened is not None:
            opened.gate.note(opened.permit, opened.call, reported(response, chat=opened.call.chat))
            opened.finish(None)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        opened = self._open.pop(run_id)
        if opened is not None:
            opened.finish(error)
            self._open.batch_failed(opened, run_id)

    # --- tools and retrievers

    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        inputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().on_tool_start(serialized, input_str, run_id=run_id, parent_run_id=parent_run_id, metadata=metadata)
        if self._is_counted(run_id, metadata):
            return
        arguments = input_str if inputs is None else inputs
        call = self._gate.tool_call(_name(serialized, kwargs), arguments, metadata=metadata, parent=parent_run_id)
        self._begin(call, run_id, parent_run_id, tool_call_id=kwargs.get("tool_call_id"))

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, None)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, error)

    def on_retriever_start(
        self,
        serialized: dict[str, Any],
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().on_retriever_start(serialized, query, run_id=run_id, parent_run_id=parent_run_id, metadata=metadata)
        if self._is_counted(run_id, metadata):
            return
        call = self._gate.tool_call(
            _name(serialized, kwargs),
            query,
            metadata=metadata,
            parent=parent_run_id,
            kind=RETRIEVER,
        )
        self._begin(call, run_id, parent_run_id)

    def on_retriever_end(self, documents: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, None)

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, error)

    # --- chains, only to know when nothing below can still be running

    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().on_chain_start(serialized, inputs, run_id=run_id, parent_run_id=parent_run_id, metadata=metadata)
        self._open.chain_began(run_id, parent_run_id)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._open.chain_ended(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._open.chain_ended(run_id)

    # --- inside

    def _is_counted(self, run_id: UUID, metadata: Mapping[str, Any] | None, size: int = 1) -> bool:
        """True where the called object guards itself, or another handler of this authority has the call."""
        return run_id in self._open or self._gate.vouchers.cover(run_id, metadata, size)

    def _begin(
        self, call: Call, run_id: UUID, parent_run_id: UUID | None, *, batch_size: int | None = None, **facts: Any
    ) -> None:
        try:
            permit = self._gate.open(call, can_cap=False, run_id=str(run_id), **facts)
        except BaseException:
            self._open.batch_refused()
            raise
        self._open.begin(run_id, parent_run_id, self._gate, call, permit)
        self._open.joins_batch(run_id, batch_size or 1)

    def _tell_of_retries(self, serialized: Mapping[str, Any] | None) -> None:
        """Once: no callback tells of them, and the model itself cannot be reached from here."""
        made_by: list[str] = (serialized or {}).get("id") or []
        settings = (serialized or {}).get("kwargs") or {}
        if "openai" in made_by and settings.get("max_retries") != 0:
            self._told_of_retries = True
            log.warning(
                "%s tries again by itself, and what that costs is not seen: give it max_retries=0, or use guard(model)",
                made_by[-1],
            )

    def _check(self, run_id: UUID) -> None:
        """A killed stream ends at its next token."""
        opened = self._open.get(run_id)
        if opened is None:
            return
        opened.streaming = True
        if opened.permit.stopped is not None:
            with fitting():
                opened.permit.check()

    def _end(self, run_id: UUID, error: BaseException | None) -> None:
        opened = self._open.pop(run_id)
        if opened is not None:
            opened.finish(error)


def _name(serialized: Mapping[str, Any] | None, kwargs: Mapping[str, Any]) -> str:
    """The object's own name; a name that the caller's config gives to the run must not choose the price."""
    name = (serialized or {}).get("name") or kwargs.get("name") or ""
    return str(name)
