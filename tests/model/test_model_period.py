"""When a period begins and ends: in its time zone, across changes of the clocks and the ends of months."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from clearance.errors import InvalidRequest
from clearance.model.period import HOUR_MS, Period

DAY_MS = 24 * HOUR_MS


def ms(text: str, zone: str = "UTC", fold: int = 0) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp() * 1000)


CALENDAR = [
    ("hour", "UTC", "2026-03-10T12:34", "2026-03-10T12:00", "2026-03-10T13:00"),
    ("day", "UTC", "2026-03-10T12:34", "2026-03-10T00:00", "2026-03-11T00:00"),
    ("week", "UTC", "2026-03-11T12:34", "2026-03-09T00:00", "2026-03-16T00:00"),
    ("week", "UTC", "2026-03-09T00:00", "2026-03-09T00:00", "2026-03-16T00:00"),
    ("week", "UTC", "2026-03-15T23:59", "2026-03-09T00:00", "2026-03-16T00:00"),
    ("week", "UTC", "2026-01-01T00:00", "2025-12-29T00:00", "2026-01-05T00:00"),
    ("month", "UTC", "2026-01-31T23:59", "2026-01-01T00:00", "2026-02-01T00:00"),
    ("month", "UTC", "2026-02-28T12:00", "2026-02-01T00:00", "2026-03-01T00:00"),
    ("month", "UTC", "2028-02-29T12:00", "2028-02-01T00:00", "2028-03-01T00:00"),
    ("month", "UTC", "2026-12-31T23:59", "2026-12-01T00:00", "2027-01-01T00:00"),
    ("day", "Europe/Berlin", "2026-03-29T12:00", "2026-03-29T00:00", "2026-03-30T00:00"),
    ("day", "Europe/Berlin", "2026-10-25T12:00", "2026-10-25T00:00", "2026-10-26T00:00"),
    ("week", "Europe/Berlin", "2026-03-29T12:00", "2026-03-23T00:00", "2026-03-30T00:00"),
    ("month", "Europe/Berlin", "2026-10-31T12:00", "2026-10-01T00:00", "2026-11-01T00:00"),
    ("day", "Asia/Kolkata", "2026-03-10T00:00", "2026-03-10T00:00", "2026-03-11T00:00"),
    ("hour", "Asia/Kolkata", "2026-03-10T05:45", "2026-03-10T05:00", "2026-03-10T06:00"),
    ("month", "Pacific/Auckland", "2026-04-30T23:59", "2026-04-01T00:00", "2026-05-01T00:00"),
]


@pytest.mark.parametrize(("every", "zone", "now", "start", "end"), CALENDAR)
def test_a_calendar_period_begins_and_ends_on_local_midnight(
    every: Any, zone: str, now: str, start: str, end: str
) -> None:
    window = Period(every=every, timezone=zone).window(ms(now, zone))
    assert window == (ms(start, zone), ms(end, zone))


@pytest.mark.parametrize(
    ("date", "zone", "hours"),
    [
        ("2026-03-29", "Europe/Berlin", 23),
        ("2026-10-25", "Europe/Berlin", 25),
        ("2026-03-08", "America/New_York", 23),
        ("2026-11-01", "America/New_York", 25),
        ("2026-04-05", "Australia/Lord_Howe", 24.5),
        ("2024-04-26", "Africa/Cairo", 23),
        ("2026-11-01", "America/Havana", 25),
    ],
)
def test_the_day_of_a_change_of_the_clocks_is_as_long_as_it_is(date: str, zone: str, hours: float) -> None:
    start, end = Period(every="day", timezone=zone).window(ms(f"{date}T12:00", zone))
    assert end - start == hours * HOUR_MS


def test_the_hour_that_comes_twice_is_two_hours() -> None:
    period = Period(every="hour", timezone="Europe/Berlin")
    first = period.window(ms("2026-10-25T02:30", "Europe/Berlin", fold=0))
    second = period.window(ms("2026-10-25T02:30", "Europe/Berlin", fold=1))
    assert first[1] == second[0]
    assert second[1] - second[0] == HOUR_MS


@pytest.mark.parametrize(
    "zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Africa/Cairo", "America/Havana"]
)
@pytest.mark.parametrize("every", ["day", "week", "month"])
def test_periods_follow_each_other_without_a_gap_or_an_overlap(every: Any, zone: str) -> None:
    period = Period(every=every, timezone=zone)
    windows = [period.window(ms("2026-01-01T00:00", zone))]
    while windows[-1][1] < ms("2027-01-01T00:00", zone):
        windows.append(period.window(windows[-1][1]))
    assert all(before[1] == after[0] for before, after in pairwise(windows))
    for start, end in windows:
        assert period.window(start) == (start, end)
        assert period.window(end - 1) == (start, end)


@pytest.mark.parametrize(
    ("every", "length"), [("hour", HOUR_MS), ("day", DAY_MS), ("week", 7 * DAY_MS), ("month", 30 * DAY_MS)]
)
def test_a_rolling_period_begins_now_and_lasts_a_fixed_time(every: Any, length: int) -> None:
    assert Period(every=every, kind="rolling").window(1_234_567) == (1_234_567, 1_234_567 + length)


@pytest.mark.parametrize(
    "fields",
    [
        {"every": "year"},
        {"every": "day", "kind": "sliding"},
        {"every": "day", "timezone": "Mars/Base"},
        {"every": "day", "timezone": ""},
        {"every": "day", "timezone": "../etc/passwd"},
        {"every": "day", "timezone": "/etc/localtime"},
        {},
    ],
)
def test_a_bad_period_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        Period(**fields)
