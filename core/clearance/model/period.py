"""Budgets that renew themselves: when a period begins and ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import field_validator

from clearance.model.base import Model

HOUR_MS = 3_600_000
_LENGTH_MS = {"hour": HOUR_MS, "day": 24 * HOUR_MS, "week": 7 * 24 * HOUR_MS, "month": 30 * 24 * HOUR_MS}


class Period(Model):
    """How often a budget renews.

    `calendar` periods begin on the hour, at midnight, on Monday or on the first of the month in `timezone`;
    `rolling` ones begin at the first use after the last has ended and last a fixed time (a month is 30 days).
    """

    every: Literal["hour", "day", "week", "month"]
    kind: Literal["calendar", "rolling"] = "calendar"
    timezone: str = "UTC"

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            _zone(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{value!r} is no time zone known here; use an IANA name such as Europe/Berlin") from None
        return value

    def window(self, now_ms: int) -> tuple[int, int]:
        """The period that holds `now_ms`: start (inclusive) and end (exclusive), epoch ms."""
        if self.kind == "rolling":
            return now_ms, now_ms + _LENGTH_MS[self.every]
        if self.every == "hour":
            return self._hour(now_ms)
        zone = _zone(self.timezone)
        local = datetime.fromtimestamp(now_ms / 1000, zone)
        start = _floor(local, self.every)
        return _ms(start), _ms(_next(start, self.every))

    def _hour(self, now_ms: int) -> tuple[int, int]:
        # Whole hours are counted in absolute time, so a change of the clocks neither skips nor repeats one.
        offset = datetime.fromtimestamp(now_ms / 1000, _zone(self.timezone)).utcoffset() or timedelta()
        shift_ms = int(offset.total_seconds() * 1000)
        start = (now_ms + shift_ms) // HOUR_MS * HOUR_MS - shift_ms
        return start, start + HOUR_MS


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _floor(local: datetime, every: str) -> datetime:
    day = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if every == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if every == "month" else day


def _next(start: datetime, every: str) -> datetime:
    if every == "month":
        return (start.replace(day=28) + timedelta(days=7)).replace(day=1)
    return start + timedelta(days=7 if every == "week" else 1)


def _ms(local: datetime) -> int:
    return int(local.astimezone(UTC).timestamp() * 1000)
