"""Dynamic batching: which requests may share a run, how they are joined, and whether a model's rows are independent."""

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slipway_server.formats import Model, ModelInputError, ModelMemoryError, ModelRunError, RunHandle
from slipway_server.tensors import Array, TensorSpec

MAX_BYTES = 16 << 20
"""Requests are joined up to this size: joining is copying, and rows that large gain nothing by company."""
_PROBE_ROWS = 6
_PROBE_SIZES = (8, 3, 1)  # for every other dimension that varies; the first that the model accepts decides
_TOLERANCE = 1e-3  # of a row's largest number: runtimes sum in another order for another number of rows


_ALONE: tuple[object, ...] = ()  # the key of jobs that cannot share a run


@dataclass(frozen=True)
class Batching:
    """Up to `max_size` rows share a run (1: no batching); one that is not full waits up to `max_delay_seconds` for more."""

    max_size: int = 64
    max_delay_seconds: float = 0.0


@dataclass(slots=True, eq=False)
class Job:
    """A request that waits for a run, or is in one. Nobody waits for the answer any more once `answer` is done."""

    feeds: Mapping[str, Array]
    outputs: Sequence[str]
    answer: "asyncio.Future[Any]"
    arrived: float
    """Seconds of the loop's clock."""
    rows: int
    """Rows of every input; 0 where they differ."""
    shared: bool
    """Whether it may share a run."""
    elements: int
    bytes: int
    explain: bool = False
    key: tuple[object, ...] = _ALONE
    run: "Run | None" = None


@dataclass(slots=True, eq=False)
class Run:
    """Jobs that are in one run of the model, and what stops it."""

    jobs: list[Job]
    handle: RunHandle
    elements: int


class Queue:
    """Jobs in the order of their arrival. Those of one key can share a run; the one that waits longest is always in the next."""

    def __init__(self, inputs: Sequence[TensorSpec], max_rows: int) -> None:
        self._names = tuple(spec.name for spec in inputs)
        self._max_rows = max_rows
        self._groups: dict[tuple[object, ...], deque[Job]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, job: Job) -> None:
        """Adds a job at the end."""
        job.key = self._key(job)
        self._groups.setdefault(job.key, deque()).append(job)
        self._size += 1

    def put_back(self, jobs: Sequence[Job], *, apart: bool) -> None:
        """Adds jobs that have waited already before all others that came later; `apart`: each for a run of its own."""
        for job in reversed(jobs):
            if apart:
                job.shared = False
                job.key = _ALONE
            self._groups.setdefault(job.key, deque()).appendleft(job)
            self._size += 1

    def remove(self, job: Job) -> None:
        """Drops a job that waits."""
        group = self._groups[job.key]
        group.remove(job)
        self._size -= 1
        if not group:
            del self._groups[job.key]

    def first(self) -> Job:
        """The job that has waited longest."""
        return min(self._groups.values(), key=_arrival)[0]

    def fills_run(self, job: Job) -> bool:
        """Whether `job`, the first of its kind, and those it can share a run with leave no room for more."""
        rows = 0
        for other in self._groups[job.key]:
            rows += other.rows
            if not other.shared or rows >= self._max_rows:
                return True
        return False

    def take(self) -> list[Job]:
        """Removes and returns the jobs of the next run: the one that has waited longest, and those that can share its run."""
        group = min(self._groups.values(), key=_arrival)
        batch = [group.popleft()]
        rows, size = batch[0].rows, batch[0].bytes
        while group and batch[0].shared and rows + group[0].rows <= self._max_rows and size + group[0].bytes <= MAX_BYTES:
            rows += group[0].rows
            size += group[0].bytes
            batch.append(group.popleft())
        if not group:
            del self._groups[batch[0].key]
        self._size -= len(batch)
        return batch

    def _key(self, job: Job) -> tuple[object, ...]:
        if not job.shared:
            return _ALONE
        parts: list[object] = [tuple(job.outputs)]
        for array in job.feeds.values() if len(self._names) == 1 else (job.feeds[name] for name in self._names):
            parts += (array.dtype, array.shape[1:])
        return tuple(parts)


def _arrival(group: deque[Job]) -> float:
    return group[0].arrived


def rows_of(feeds: Mapping[str, Array]) -> int:
    """The rows that all inputs have, or 0 where they differ."""
    rows = -1
    for array in feeds.values():
        if not array.ndim or rows not in (-1, array.shape[0]):
            return 0
        rows = array.shape[0]
    return max(rows, 0)


def join(batch: Sequence[Job]) -> Mapping[str, Array]:
    """The feeds of several jobs, one below the other."""
    if len(batch) == 1:
        return batch[0].feeds
    first = batch[0].feeds
    if len(first) == 1:  # whatever each caller called it
        return {next(iter(first)): np.concatenate([next(iter(job.feeds.values())) for job in batch])}
    return {name: np.concatenate([job.feeds[name] for job in batch]) for name in first}


def split(batch: Sequence[Job], arrays: Sequence[Array]) -> Iterator[list[Array]]:
    """Each job's rows of the answer, as views. Raises ModelRunError where an array has not one row for each of the feeds'."""
    rows = sum(job.rows for job in batch)
    for array in arrays:
        if not array.ndim or array.shape[0] != rows:
            raise ModelRunError(f"an output has the shape {list(array.shape)} for {rows} rows")
    start = 0
    for job in batch:
        end = start + job.rows
        yield [array[start:end] for array in arrays]
        start = end


def probe(model: Model) -> str | None:
    """Finds out whether requests of `model` may share a run; why not, or None if they may.

    Declared shapes must have rows that vary; and rows of chosen numbers must get the same answers one by one as together,
    answers that differ from row to row. That is evidence, not proof: a model that mixes rows only for numbers of another
    kind would pass.
    """
    if not model.inputs or not all(_varies(spec) for spec in (*model.inputs, *model.outputs)):
        return "its shapes do not all begin with a dimension that varies"
    if model.row_wise is not None:
        return None if model.row_wise else "it does not say that its rows are independent"
    for size in _PROBE_SIZES:
        feeds = {spec.name: _rows(spec, size, model.known_texts.get(spec.name, ())) for spec in model.inputs}
        try:
            return _compare(model, feeds)
        except ModelMemoryError:
            return "its probe needed more memory than there is"
        except (ModelRunError, ModelInputError):
            continue
    return "it refused the rows that were to show whether they are independent"


def _compare(model: Model, feeds: Mapping[str, Array]) -> str | None:
    names = [spec.name for spec in model.outputs]
    handle = model.new_handle()
    together = model.run(feeds, names, handle)
    apart = [
        model.run({name: array[row : row + 1] for name, array in feeds.items()}, names, handle) for row in range(_PROBE_ROWS)
    ]
    differ = False
    for place, joined in enumerate(together):
        alone = [answers[place] for answers in apart]
        if not joined.ndim or joined.shape[0] != _PROBE_ROWS or any(one.shape != (1, *joined.shape[1:]) for one in alone):
            return "its outputs have not one row for each row of its inputs"
        for row in range(_PROBE_ROWS):
            if not _same(joined[row : row + 1], alone[row]):
                return "its answer for a row depends on the other rows"
        differ = differ or any(not np.array_equal(joined[0], joined[row]) for row in range(1, _PROBE_ROWS))
    return None if differ else "its answers do not differ for different rows, so that nothing can be said"


def _varies(spec: TensorSpec) -> bool:
    return spec.dims is None or (len(spec.dims) > 0 and not isinstance(spec.dims[0], int))


def _rows(spec: TensorSpec, size: int, texts: Sequence[str]) -> Array:
    """Rows of very different magnitude, so that some differ for whatever numbers the model was made for."""
    shape = [_PROBE_ROWS, *(dim if isinstance(dim, int) else size for dim in (spec.dims or (None, None))[1:])]
    random = np.random.default_rng(7)
    kind = spec.datatype.dtype.kind
    if kind == "O":
        texts = texts or ("0", "1")
        return np.array([texts[index % len(texts)] for index in range(int(np.prod(shape)))], dtype=object).reshape(shape)
    if kind == "b":
        return random.random(shape) < 0.5
    if kind in "iu":  # small: they may be places in a table
        return random.integers(0, 3, shape).astype(spec.datatype.dtype)
    scale = np.array([0.1, 1, 1, 10, 100, 1000]).reshape(-1, *([1] * (len(shape) - 1)))
    return (random.standard_normal(shape) * scale).astype(spec.datatype.dtype)


def _same(one: Array, other: Array) -> bool:
    if one.dtype.kind not in "fV":
        return bool(np.array_equal(one, other))
    numbers, others = one.astype(np.float64), other.astype(np.float64)
    finite = np.abs(numbers[np.isfinite(numbers)])
    return bool(np.allclose(numbers, others, _TOLERANCE, _TOLERANCE * finite.max(initial=0.0), equal_nan=True))
