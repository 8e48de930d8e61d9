"""Why a handler gave no answer, in words that carry neither messages nor values."""

from __future__ import annotations

from pathlib import PurePath

from clearance.errors import AuthorityUnavailable
from clearance_hooks.dispatch import AUTHORITY_UNAVAILABLE, HOOK_FAILED, HOOK_TIMEOUT, Failure
from clearance_hooks.workers import Left


def late(timeout_s: float) -> Failure:
    return Failure(HOOK_TIMEOUT, f"gave no answer within {round(timeout_s * 1000)} ms")


def crowded(busy: int) -> Failure:
    return Failure(HOOK_TIMEOUT, f"was not asked, since {busy} handlers are at work or hang")


def raised(error: BaseException) -> Failure:
    if isinstance(error, Left):
        error = error.original
    if isinstance(error, AuthorityUnavailable):
        return Failure(AUTHORITY_UNAVAILABLE, f"could not reach the authority ({type(error).__name__})")
    return Failure(HOOK_FAILED, f"raised {type(error).__name__}{place_of(error)}")


def place_of(error: BaseException) -> str:
    """Where it was raised; the message could carry a prompt or a secret."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f" in {PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
