"""Floors by the clock."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.core.scaling.schedule import Floor, parse


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("floor", "moment", "holds"),
    [
        (Floor("0 8 * * 1-5", 10, 3), "2026-03-02T08:00:00", True),  # a Monday
        (Floor("0 8 * * 1-5", 10, 3), "2026-03-02T07:59:59", False),
        (Floor("0 8 * * 1-5", 10, 3), "2026-03-02T17:59:59", True),
        (Floor("0 8 * * 1-5", 10, 3), "2026-03-02T18:00:00", False),
        (Floor("0 8 * * 1-5", 10, 3), "2026-03-01T09:00:00", False),  # a Sunday
        (Floor("0 22 * * fri", 5, 3), "2026-03-07T02:30:00", True),  # over midnight
        (Floor("0 22 * * 5", 5, 3), "2026-03-08T02:30:00", False),
        (Floor("30 6 1 jan,jul *", 1, 3), "2026-07-01T07:00:00", True),
        (Floor("0 0 1 * 7", 1, 3), "2026-03-08T00:30:00", True),  # either day, and 7 is Sunday
        (Floor("*/15 * * * *", 0.1, 3), "2026-03-08T00:20:00", True),
        (Floor("*/15 * * * *", 0.1, 3), "2026-03-08T00:22:00", False),
        (Floor("0 8 * * *", 1, 3, "Europe/Berlin"), "2026-03-02T07:30:00", True),
        (Floor("0 8 * * *", 1, 3, "Europe/Berlin"), "2026-07-02T06:30:00", True),  # summer time
        (Floor("30 2 * * *", 1, 3, "Europe/Berlin"), "2026-03-29T01:00:00", False),  # skipped that night
    ],
)
def test_a_floor_holds_from_its_start_for_its_hours(floor: Floor, moment: str, holds: bool) -> None:
    assert floor.holds(at(moment)) is holds


@given(
    st.integers(0, 59),
    st.integers(0, 23),
    st.integers(0, 6),
    st.floats(0.05, 167),
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)),
)
def test_a_floor_holds_exactly_if_one_of_its_starts_is_recent(
    minute: int, hour: int, weekday: int, hours: float, now: datetime
) -> None:
    moment = now.replace(tzinfo=UTC, second=0, microsecond=0)
    started = any(
        (start := moment - timedelta(minutes=back)).minute == minute
        and start.hour == hour
        and start.isoweekday() % 7 == weekday
        and moment < start + timedelta(hours=hours)
        for back in range(int(hours * 60) + 1)
    )
    assert Floor(f"{minute} {hour} * * {weekday}", hours, 1).holds(moment) is started


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0 8 * *", "has 4 fields"),
        ("60 8 * * *", "'60' is no minute: numbers go from 0 to 59"),
        ("0 8 * * xyz", "'xyz' is no day of the week"),
        ("0 8-4 * * *", "'8-4' is no hour"),
        ("*/0 8 * * *", "steps from 1"),
    ],
)
def test_what_is_no_cron_expression_is_named(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("*", r"\*")):
        parse(text)


def test_what_is_no_time_zone_is_named() -> None:
    with pytest.raises(ValueError, match="'Mars/Base' is no time zone"):
        Floor("0 8 * * *", 1, 1, "Mars/Base").holds(at("2026-01-01T00:00:00"))
