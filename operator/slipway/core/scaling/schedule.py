"""Floors by the clock: from each moment that a cron expression names, for some hours, no fewer than so many replicas."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7))
_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_WEEKDAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_NAMES: tuple[dict[str, int], ...] = ({}, {}, {}, _MONTHS, _WEEKDAYS)
FLOOR_HOURS_MAX = 168.0


@dataclass(frozen=True)
class Cron:
    """The five fields of cron, as the sets of numbers that match; where both kinds of day are restricted, either suffices."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool

    def matches(self, moment: datetime) -> bool:
        """Tell whether this minute is one of the expression's."""
        return moment.minute in self.minutes and moment.hour in self.hours and self.matches_day(moment)

    def matches_day(self, moment: datetime) -> bool:
        """Tell whether this day is one of the expression's."""
        day, weekday = moment.day in self.days, moment.isoweekday() % 7 in self.weekdays
        return moment.month in self.months and (day or weekday if self.either_day else day and weekday)


@lru_cache(maxsize=1024)
def parse(text: str) -> Cron:
    """Read a cron expression: five fields of numbers, names, ranges, lists and steps.

    Raises ValueError where it is none.
    """
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(
            f"{text!r} has {len(fields)} fields, and cron has five: minute hour day month weekday, such as 0 8 * * 1-5"
        )
    sets = [_numbers(each, *about, names) for each, about, names in zip(fields, _FIELDS, _NAMES, strict=True)]
    weekdays = frozenset(number % 7 for number in sets[4])
    either = not fields[2].startswith("*") and not fields[4].startswith("*")
    return Cron(sets[0], sets[1], sets[2], sets[3], weekdays, either)


def _numbers(text: str, what: str, lowest: int, highest: int, names: dict[str, int]) -> frozenset[int]:
    found = set[int]()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        try:
            stride = int(step) if step else 1
            low = lowest if span == "*" else _number(first, names)
            high = highest if span == "*" or (step and not dash) else _number(last, names) if dash else low
        except ValueError:
            raise ValueError(f"{part!r} is no {what}: write numbers from {lowest} to {highest}, *, 1-5, 1,2 or */5") from None
        if stride < 1 or not lowest <= low <= high <= highest:
            raise ValueError(f"{part!r} is no {what}: numbers go from {lowest} to {highest}, ranges upwards, steps from 1")
        found.update(range(low, high + 1, stride))
    return frozenset(found)


def _number(text: str, names: dict[str, int]) -> int:
    return names[text.lower()] if text.lower() in names else int(text)


@dataclass(frozen=True)
class Floor:
    """At least so many replicas for `hours` from each start of a cron expression, read in a time zone."""

    start: str
    hours: float
    replicas: int
    zone: str = "UTC"

    def holds(self, now: datetime) -> bool:
        """Tell whether the minute of a moment lies in the window of one of the starts.

        Starts are those of the zone's wall clock: one that a change of the clock skips does not come, one that it repeats
        comes twice. Raises ValueError where start or zone is wrong.
        """
        return self._holds(now.astimezone(UTC).replace(second=0, microsecond=0))

    @lru_cache(maxsize=4096)  # noqa: B019 - floors are few, frozen and small
    def _holds(self, now: datetime) -> bool:
        cron, zone = parse(self.start), _zone(self.zone)
        at, first = now, now - timedelta(hours=min(self.hours, FLOOR_HOURS_MAX))
        while at > first:
            local = at.astimezone(zone)
            if cron.matches_day(local):
                if cron.matches(local):
                    return True
                at -= timedelta(minutes=1) if local.hour in cron.hours else timedelta(minutes=local.minute + 1)
            else:
                at -= timedelta(minutes=local.minute + 1)
        return False


@lru_cache(maxsize=64)
def _zone(name: str) -> tzinfo:
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone: write one such as UTC or Europe/Berlin") from None
