"""LangChain's own test suites, on plain and on guarded objects. Run by `test_langchain_standard.py`."""

from __future__ import annotations

import os
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool, tool
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests, ToolsIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests, ToolsUnitTests

from clearance.authority.budgets import BudgetSpec
from clearance.connecting import LocalAuthority, connect
from clearance.model.amount import usd
from clearance.model.subject import Subject
from clearance_langchain import guard

URL = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
SETTINGS: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "base_url": URL,
    "api_key": "sim",
    "max_tokens": 64,
    "max_retries": 0,
}
ACME = Subject(tenant="acme")
GUARDED = os.environ.get("CLEARANCE_TEST_GUARDED") == "1"


def _authority() -> LocalAuthority:
    authority = connect(os.environ.get("CLEARANCE_URL", "memory://"))
    authority.set_budget(BudgetSpec(scope="tenant:acme", allocated=usd("1000")))
    return authority


AUTHORITY = _authority()


def _maybe_guarded(obj: Any) -> Any:
    return guard(obj, AUTHORITY, ACME) if GUARDED else obj


@tool
def multiply(a: int, b: int) -> int:
    """Multiply."""
    return a * b


class _ModelFixture:
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return SETTINGS

    @pytest.fixture
    def model(self, request: Any) -> BaseChatModel:
        extra = getattr(request, "param", None) or {}
        made: BaseChatModel = _maybe_guarded(ChatOpenAI(**{**self.chat_model_params, **extra}))
        return made


class TestUnit(_ModelFixture, ChatModelUnitTests):
    pass


class TestIntegration(_ModelFixture, ChatModelIntegrationTests):
    pass


class TestResponses(_ModelFixture, ChatModelIntegrationTests):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**SETTINGS, "use_responses_api": True}


class _ToolFixture:
    @property
    def tool_constructor(self) -> BaseTool:
        made: BaseTool = _maybe_guarded(multiply)
        return made

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"a": 2, "b": 3}


class TestToolUnit(_ToolFixture, ToolsUnitTests):
    pass


class TestToolIntegration(_ToolFixture, ToolsIntegrationTests):
    pass
