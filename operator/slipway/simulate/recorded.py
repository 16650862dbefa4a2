"""Recorded arrivals: a CSV file of counts by interval, or of one timestamp a request."""

import csv
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

_SECONDS_MAX = 14 * 86_400


class RecordError(Exception):
    """The file cannot be read as arrivals. The message says where and why."""


def read(path: Path) -> npt.NDArray[np.int64]:
    """Answer the requests of each second.

    Two columns: the beginning of an interval and its count, spread evenly up to the next beginning. One column: the time of one
    request a line, in any order. Times are seconds or RFC 3339; a head line is passed over. Raises RecordError.
    """
    times, counts = list[float](), list[float]()
    for line, row in _rows(path):
        try:
            time, count = _time(row[0]), _number(row[1]) if len(row) > 1 else 1.0
        except ValueError:
            if not times and line == 1:
                continue
            raise RecordError(f"{path}:{line}: {','.join(row)!r} is no time, or time and count") from None
        if count < 0:
            raise RecordError(f"{path}:{line}: the count {row[1]} is below 0")
        if times and len(row) > 1 and time <= times[-1]:
            raise RecordError(f"{path}:{line}: {row[0]} is not after the line before; intervals must ascend")
        times.append(time)
        counts.append(count if len(row) > 1 else -1.0)
    if len(times) < 2:
        raise RecordError(f"{path} has {len(times)} lines of arrivals; two are the least")
    if max(times) - min(times) > _SECONDS_MAX:
        raise RecordError(f"{path} spans {(max(times) - min(times)) / 86_400:.0f} days; 14 are the most")
    return _requests(times) if counts[0] < 0 else _spread(times, counts)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            columns = 0
            for line, row in enumerate(csv.reader(file), 1):
                if not row or not "".join(row).strip() or row[0].startswith("#"):
                    continue
                columns = columns or len(row)
                if len(row) != columns or columns > 2:
                    raise RecordError(
                        f"{path}:{line}: {len(row)} columns; write a time, or a time and a count, the same in every line"
                    )
                yield line, [cell.strip() for cell in row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecordError(f"{path} cannot be read: {error}") from None


def _time(text: str) -> float:
    try:
        return _number(text)
    except ValueError:
        return datetime.fromisoformat(text).timestamp()


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _requests(times: list[float]) -> npt.NDArray[np.int64]:
    seconds = np.floor(np.array(times) - min(times)).astype(np.int64)
    return np.bincount(seconds)


def _spread(times: list[float], counts: list[float]) -> npt.NDArray[np.int64]:
    """Spread counts over whole seconds so that their sum stays what it is."""
    ends = [*times[1:], times[-1] + (times[-1] - times[-2])]
    grown = np.concatenate(([0.0], np.cumsum(counts)))
    edges = np.arange(0, int(np.ceil(ends[-1] - times[0])) + 1)
    return np.diff(np.round(np.interp(edges, np.array([*times, ends[-1]]) - times[0], grown))).astype(np.int64)
