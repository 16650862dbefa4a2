"""Do two revisions answer the same request alike? By their numbers within a tolerance, or by the labels that they chose.

The difference of two numbers is |a - b| / max(1, |a|, |b|): absolute for small ones, relative for large ones, and thus the
least tolerance within which they agree. Integers, texts and truth values are equal or they are not; NaN equals NaN.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from slipway.core.answers import Content, Document, Tensor, Tensors, read


@dataclass(frozen=True)
class Rule:
    """How answers are compared: numbers may differ by the `tolerance`; or only the `labels` have to be the same.

    The labels are what the answer holds of integers, texts and truth values; where it has floating-point numbers alone, the
    place of the largest of each row of scores.
    """

    tolerance: float = 0.0
    labels: bool = False


@dataclass(frozen=True)
class Answer:
    """One revision's answer. `body` is None where it was not read, being too long or compressed, as `unread` says.

    `own` tells whether it is the revision's own, not that of a router that did not reach it.
    """

    status: int
    body: bytes | None = b""
    json_length: int | None = None
    unread: str = ""
    own: bool = True

    @property
    def ok(self) -> bool:
        """Tell whether the request succeeded."""
        return 200 <= self.status < 300


class Outcome(StrEnum):
    """What came of a pair of answers."""

    AGREED = "agreed"
    DISAGREED = "disagreed"
    NOT_COMPARED = "not_compared"


@dataclass(frozen=True)
class Comparison:
    """A pair compared: why it is not (`reason`, a word), and its largest difference, infinite where no tolerance would do.

    By labels the difference is the share of labels that differ. It is None where contents were not compared.
    """

    outcome: Outcome
    reason: str = ""
    difference: float | None = None


class _NoLabelsError(Exception):
    """Neither answer holds a label."""


class _UnlikeError(Exception):
    """They have different outputs, shapes or members."""


def compare(stable: Answer | None, candidate: Answer | None, rule: Rule) -> Comparison:
    """Compare the answers to one request; None is none at all.

    What stable did not answer well says nothing of the candidate, unless stable refused (4xx) what the candidate takes. Nor does
    an overload (429) of either.
    """
    if stable is None or candidate is None:
        return _not_compared("unanswered")
    if not candidate.own:
        return _not_compared("misrouted")
    if 429 in (stable.status, candidate.status):
        return _not_compared("overloaded")
    if stable.status >= 500 or not (stable.ok or candidate.ok):
        return _not_compared("failed")
    if stable.ok != candidate.ok:
        return Comparison(Outcome.DISAGREED, "status", math.inf)
    if stable.body is None:
        return _not_compared(stable.unread)
    if candidate.body is None:  # the candidate's answer alone is so long, or compressed unasked
        return Comparison(Outcome.DISAGREED, "structure", math.inf)
    if stable.body == candidate.body and stable.json_length == candidate.json_length and not rule.labels:
        return Comparison(Outcome.AGREED, difference=0.0)
    return contents(read(stable.body, stable.json_length), read(candidate.body, candidate.json_length), rule)


def contents(mine: Content, theirs: Content, rule: Rule) -> Comparison:
    """Compare what two answers hold. It does not matter which is which."""
    if isinstance(mine, bytes) and isinstance(theirs, bytes):
        return _compared(0.0 if mine == theirs else math.inf, 0.0, "bytes")
    try:
        if rule.labels:
            return _compared(_labels_apart(mine, theirs), 0.0, "labels")
        return _compared(_apart(mine, theirs), rule.tolerance, "values")
    except _UnlikeError:
        return Comparison(Outcome.DISAGREED, "structure", math.inf)
    except _NoLabelsError:
        return _not_compared("no_labels")


def _not_compared(reason: str) -> Comparison:
    return Comparison(Outcome.NOT_COMPARED, reason)


def _compared(difference: float, most: float, reason: str) -> Comparison:
    if difference <= most:
        return Comparison(Outcome.AGREED, difference=difference)
    return Comparison(Outcome.DISAGREED, reason, difference)


# --- by numbers -------------------------------------------------------------------------------------------------------


def _apart(mine: Content, theirs: Content) -> float:
    """Answer the largest difference. Raises _UnlikeError."""
    if isinstance(mine, Tensors) and isinstance(theirs, Tensors):
        pairs = (pair for a, b in _outputs(mine, theirs) for pair in zip(a.values, b.values, strict=True))
    elif isinstance(mine, Document) and isinstance(theirs, Document):
        pairs = _leaves(mine.value, theirs.value)
    else:
        raise _UnlikeError
    return max((apart(*pair) for pair in pairs), default=0.0)


def apart(a: Any, b: Any) -> float:
    """Answer how far two elements are apart, 0 to 2; infinite where they are not numbers and not the same."""
    if type(a) not in (int, float) or type(b) not in (int, float) or type(a) is type(b) is int:
        return 0.0 if type(a) is type(b) and a == b else math.inf
    if a == b:
        return 0.0
    try:
        if math.isfinite(a) and math.isfinite(b):
            scale = max(1.0, abs(a), abs(b))
            return abs(a / scale - b / scale)
        return 0.0 if math.isnan(a) and math.isnan(b) else math.inf
    except OverflowError:  # an integer beyond all floating-point numbers
        return math.inf


def _outputs(mine: Tensors, theirs: Tensors) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the outputs of the same name. Raises _UnlikeError where one is missing or of another shape."""
    if mine.outputs.keys() != theirs.outputs.keys():
        raise _UnlikeError
    for name, tensor in mine.outputs.items():
        other = theirs.outputs[name]
        if tensor.shape != other.shape:
            raise _UnlikeError
        yield tensor, other


def _leaves(mine: Any, theirs: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the elements of two documents that stand at the same place. Raises _UnlikeError."""
    below = [(mine, theirs)]  # no recursion: documents may be deep
    while below:
        a, b = below.pop()
        if isinstance(a, (dict, list)) or isinstance(b, (dict, list)):
            below.extend(_members(a, b))
        else:
            yield a, b


def _members(a: Any, b: Any) -> list[tuple[Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [(value, b[key]) for key, value in a.items()]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return list(zip(a, b, strict=True))
    raise _UnlikeError


# --- by labels --------------------------------------------------------------------------------------------------------


def _labels_apart(mine: Content, theirs: Content) -> float:
    """Answer the share of labels that differ. Raises _UnlikeError, and _NoLabelsError where there are none."""
    if isinstance(mine, Tensors) and isinstance(theirs, Tensors):
        exact, scores = _labels_of_tensors(mine, theirs)
    elif isinstance(mine, Document) and isinstance(theirs, Document):
        exact, scores = _labels_of_documents(mine, theirs)
    else:
        raise _UnlikeError
    labels = exact or [(_largest(a), _largest(b)) for a, b in scores]
    if not labels:
        raise _NoLabelsError
    return sum(apart(a, b) > 0 for a, b in labels) / len(labels)


def _labels_of_tensors(mine: Tensors, theirs: Tensors) -> tuple[list[tuple[Any, Any]], list[tuple[Any, Any]]]:
    """Answer the pairs of labels and those of rows of scores: floating-point numbers of two axes and two classes at least."""
    exact: list[tuple[Any, Any]] = []
    scores: list[tuple[Any, Any]] = []
    for tensor, other in _outputs(mine, theirs):
        if tensor.floats != other.floats:
            raise _UnlikeError
        if not tensor.floats:
            exact += zip(tensor.values, other.values, strict=True)
        elif len(tensor.shape) >= 2 and tensor.shape[-1] >= 2:
            scores += zip(_rows_of(tensor), _rows_of(other), strict=True)
    return exact, scores


def _rows_of(tensor: Tensor) -> Iterator[Sequence[Any]]:
    classes = tensor.shape[-1]
    return (tensor.values[at : at + classes] for at in range(0, len(tensor.values), classes))


def _labels_of_documents(mine: Document, theirs: Document) -> tuple[list[tuple[Any, Any]], list[tuple[Any, Any]]]:
    """Answer the pairs of labels and those of rows of scores: lists of two numbers or more.

    A list of one number for each instance is none: which of the instances has the largest is no label.
    """
    exact: list[tuple[Any, Any]] = []
    scores: list[tuple[Any, Any]] = []
    below = [(mine.value, theirs.value)]
    if mine.by_row and theirs.by_row:
        below = [pair for members in _members(mine.value, theirs.value) for pair in _rows(*members)]
    while below:
        a, b = below.pop()
        if _is_scores(a) and _is_scores(b):
            if len(a) != len(b):
                raise _UnlikeError
            scores.append((a, b))
        elif isinstance(a, (dict, list)) or isinstance(b, (dict, list)):
            below.extend(_members(a, b))
        elif isinstance(a, float) != isinstance(b, float):
            raise _UnlikeError
        elif not isinstance(a, float) and (a, b) != (None, None):
            exact.append((a, b))
    return exact, scores


def _rows(a: Any, b: Any) -> list[tuple[Any, Any]]:
    return _members(a, b) if isinstance(a, list) and isinstance(b, list) else [(a, b)]


def _is_scores(value: Any) -> bool:
    if not isinstance(value, list) or len(value) < 2:
        return False
    return all(each is None or type(each) in (int, float) for each in value) and any(type(each) is float for each in value)


def _largest(row: Sequence[Any]) -> int:
    """Answer the place of the largest number, the first of equals; the first NaN counts as larger than all, as numpy has it."""
    best = 0
    for place, value in enumerate(row):
        if value is None or math.isnan(value):
            return place
        if value > row[best]:
            best = place
    return best
