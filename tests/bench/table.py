"""The figures: what was measured beside its goal and what others need, as a Markdown table."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

_started = time.monotonic()


def say(message: str) -> None:
    """Print one line of progress with the time since the start."""
    print(f"[{time.monotonic() - _started:6.1f}s] {message}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Row:
    """One figure, in words."""

    what: str
    measured: str
    goal: str = ""
    peers: str = ""


@dataclass
class Table:
    """The figures of one benchmark, with what a reader must know of how they were made."""

    title: str
    notes: list[str] = field(default_factory=list[str])
    rows: list[Row] = field(default_factory=list[Row])

    def add(self, what: str, measured: str, goal: str = "", peers: str = "") -> None:
        """Take a figure, and say it at once: what was measured survives a later failure."""
        self.rows.append(Row(what, measured, goal, peers))
        say(f"  {what}: {measured}" + (f" (goal {goal})" if goal else ""))

    def markdown(self) -> str:
        """Answer the table."""
        cells = [("figure", "measured", "goal", "peer or floor"), *((r.what, r.measured, r.goal, r.peers) for r in self.rows)]
        return "\n".join([f"### {self.title}", "", *grid(cells), "", *self.notes])


@dataclass(frozen=True)
class Sheet:
    """Figures of a benchmark that are columns beside each other; the first row is their head."""

    title: str
    cells: list[Sequence[str]]
    notes: list[str]

    def markdown(self) -> str:
        """Answer the table."""
        return "\n".join([f"### {self.title}", "", *grid(self.cells), "", *self.notes])


def grid(cells: Sequence[Sequence[str]]) -> list[str]:
    """Answer the lines of a Markdown table; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def median(values: list[float]) -> float:
    """Answer the middle value: the upper one of two."""
    return sorted(values)[len(values) // 2]


def spread(values: list[float], unit: str = "s", scale: float = 1.0) -> str:
    """Answer the median with the extremes."""
    low, middle, high = (f"{value * scale:.3g}" for value in (min(values), median(values), max(values)))
    return f"{middle} {unit} ({low} to {high}, n={len(values)})"
