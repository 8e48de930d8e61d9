"""The settlement table: what each way out means for the money."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from clearance.errors import AuthorityUnavailable, BudgetExceeded, InvalidRequest, PriceUnknown
from clearance.guard import Commit, Release, outcome_of
from clearance.guard.outcome import FREE_STATUSES, of_another_call
from clearance.model.action import action
from clearance.model.amount import usd

ESTIMATE, ACTUAL = usd("0.05"), usd("0.02")


class StatusError(Exception):
    def __init__(self, status: Any) -> None:
        super().__init__("secret")
        self.status_code = status


class ResponseError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__("secret")
        self.response = StatusError(status)


class GraphBubbleUp(Exception):
    pass


class GraphInterrupt(GraphBubbleUp):
    pass


class Treacherous(Exception):
    @property
    def response(self) -> Any:
        raise RuntimeError("no response was set")


def validation_error() -> ValidationError:
    class Arguments(BaseModel):
        count: int

    with pytest.raises(ValidationError) as caught:
        Arguments(count="many")  # type: ignore[arg-type]
    return caught.value


FREE = [
    *[StatusError(status) for status in sorted(FREE_STATUSES)],
    ResponseError(429),
    BudgetExceeded("no"),
    PriceUnknown("no"),
    InvalidRequest("estimate", "wrong"),
    GraphBubbleUp(),
    GraphInterrupt(),
    validation_error(),
]
UNKNOWN = [
    TimeoutError(),
    ConnectionResetError(),
    asyncio.CancelledError(),
    GeneratorExit(),
    KeyboardInterrupt(),
    SystemExit(),
    ValueError("anything"),
    StatusError(500),
    StatusError(503),
    StatusError(408),
    StatusError("429"),
    StatusError(True),
    ResponseError(502),
    Treacherous(),
    AuthorityUnavailable("gone"),
]


@pytest.mark.parametrize("error", FREE, ids=repr)
def test_an_error_that_is_certainly_free_releases(error: BaseException) -> None:
    assert outcome_of(error, None, ESTIMATE) == Release(type(error).__name__)


@pytest.mark.parametrize("error", UNKNOWN, ids=repr)
def test_every_other_error_charges_the_estimate(error: BaseException) -> None:
    assert outcome_of(error, None, ESTIMATE) == Commit(ESTIMATE, "estimate", type(error).__name__)


@pytest.mark.parametrize("error", [None, *FREE, *UNKNOWN], ids=repr)
def test_a_known_actual_is_committed_whatever_else_happened(error: BaseException | None) -> None:
    assert outcome_of(error, ACTUAL, ESTIMATE) == Commit(ACTUAL, "actual", type(error).__name__ if error else None)


def test_success_without_usage_charges_the_estimate() -> None:
    assert outcome_of(None, None, ESTIMATE) == Commit(ESTIMATE, "estimate")


def test_the_metadata_names_the_type_and_never_the_message() -> None:
    outcome = outcome_of(StatusError(500), None, ESTIMATE)
    assert isinstance(outcome, Commit)
    assert outcome.metadata == {"settled_as": "estimate", "error": "StatusError"}


def test_a_denial_of_an_inner_call_does_not_make_the_outer_one_free() -> None:
    inner = BudgetExceeded("no")
    of_another_call(inner)
    assert isinstance(outcome_of(inner, None, ESTIMATE), Commit)
    assert isinstance(outcome_of(pickle.loads(pickle.dumps(inner)), None, ESTIMATE), Commit)


def test_an_invalid_amount_after_the_work_does_not_make_it_free() -> None:
    assert isinstance(outcome_of(InvalidRequest("usd", "a float"), None, ESTIMATE, body_ran=True), Commit)


def test_a_validation_error_is_free_for_a_tool_and_unknown_for_a_model_call() -> None:
    tool, model = action("tool.call:search"), action("llm.completion:gpt")
    assert isinstance(outcome_of(validation_error(), None, ESTIMATE, action=tool), Release)
    assert isinstance(outcome_of(validation_error(), None, ESTIMATE, action=model), Commit)


def test_a_reason_fits_the_protocol() -> None:
    assert len(Release("x" * 1000).reason) == 256
