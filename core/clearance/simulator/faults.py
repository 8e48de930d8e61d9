"""Faults on request: from the model's name, and from `Simulator.fail_next`."""

from __future__ import annotations

import re
import threading
from collections import Counter
from dataclasses import dataclass, replace

from clearance.simulator.errors import bad_request

_DEFAULT_CUT = 2
_SUFFIX = re.compile(r"(?P<name>[a-z]+)(?:-(?P<number>\d{1,9}))?|(?P<status>[45]\d\d)(?:-(?P<retry>\d{1,9}))?")
_NEEDS_NUMBER = frozenset({"slow", "drip", "flaky", "cached", "reasoning"})
_ALLOWED = "+429, +429-250, +500, +slow-1500, +drip-50, +cut, +cut-3, +flaky-2, +nousage, +cached-100, +reasoning-64"


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong with one request.

    `cut_after_chunks`: the connection dies after so many chunks of a stream; 0 is before any reply.
    `flaky`: only the first so many requests of this model name fail.
    """

    status: int | None = None
    retry_after_ms: int | None = None
    delay_ms: int = 0
    chunk_delay_ms: int = 0
    cut_after_chunks: int | None = None
    flaky: int | None = None
    no_usage: bool = False
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def fails(self) -> bool:
        return self.status is not None or self.cut_after_chunks is not None

    def healed(self) -> Faults:
        return replace(self, status=None, cut_after_chunks=None)


def parse_model(name: str) -> tuple[str, Faults]:
    """`gpt-4o-mini+429+slow-20` as the model `gpt-4o-mini` and its faults."""
    model, *suffixes = name.split("+")
    if not model:
        raise bad_request("model", "you must provide a model parameter")
    faults = Faults()
    for suffix in suffixes:
        faults = _with_suffix(faults, suffix)
    if faults.flaky is not None and not faults.fails:
        faults = replace(faults, status=500)
    return model, faults


def _with_suffix(faults: Faults, suffix: str) -> Faults:
    match = _SUFFIX.fullmatch(suffix)
    if match is None:
        raise _unknown(suffix)
    if match["status"]:
        retry = None if match["retry"] is None else int(match["retry"])
        return replace(faults, status=int(match["status"]), retry_after_ms=retry)
    name, number = match["name"], int(match["number"] or 0)
    if (name in _NEEDS_NUMBER) != (match["number"] is not None) and name != "cut":
        raise _unknown(suffix)
    if name == "cut":
        return replace(faults, cut_after_chunks=_DEFAULT_CUT if match["number"] is None else number)
    if name == "slow":
        return replace(faults, delay_ms=number)
    if name == "drip":
        return replace(faults, chunk_delay_ms=number)
    if name == "flaky":
        return replace(faults, flaky=number)
    if name == "nousage":
        return replace(faults, no_usage=True)
    if name == "cached":
        return replace(faults, cached_tokens=number)
    if name == "reasoning":
        return replace(faults, reasoning_tokens=number)
    raise _unknown(suffix)


def _unknown(suffix: str) -> Exception:
    return bad_request("model", f"the simulator has no fault '+{suffix}'; allowed: {_ALLOWED}", code="unknown_fault")


@dataclass(slots=True)
class _Pending:
    faults: Faults
    left: int
    model: str | None


class FaultDesk:
    """The faults that wait for coming requests. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[_Pending] = []
        self._failed: Counter[str] = Counter()

    def add(self, faults: Faults, times: int, model: str | None) -> None:
        with self._lock:
            self._pending.append(_Pending(faults, times, model))

    def settle(self, name: str, model: str, asked: Faults) -> Faults:
        """The faults of the next request: a waiting one, else those that its model name asks for."""
        with self._lock:
            waiting = self._take(model)
            if waiting is not None:
                return replace(
                    asked,
                    status=waiting.status,
                    retry_after_ms=waiting.retry_after_ms,
                    cut_after_chunks=waiting.cut_after_chunks,
                    delay_ms=asked.delay_ms + waiting.delay_ms,
                )
            if asked.flaky is None:
                return asked
            if self._failed[name] >= asked.flaky:
                return asked.healed()
            self._failed[name] += 1
            return asked

    def clear(self) -> None:
        with self._lock:
            self._pending.clear()
            self._failed.clear()

    def _take(self, model: str) -> Faults | None:
        for pending in self._pending:
            if pending.model in (None, model):
                pending.left -= 1
                if pending.left == 0:
                    self._pending.remove(pending)
                return pending.faults
        return None
