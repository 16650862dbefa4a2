"""Do two answers agree? What each protocol means by it, and the laws that hold whatever is compared."""

import base64
import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.core.agreement import Answer, Comparison, Outcome, Rule, apart, compare, contents
from slipway.core.answers import Document, Tensors, read

AGREED, DISAGREED, NOT_COMPARED = Outcome.AGREED, Outcome.DISAGREED, Outcome.NOT_COMPARED
EXACT, NEAR, LABELS = Rule(), Rule(0.01), Rule(labels=True)


def v2(*outputs: tuple[str, str, list[int], list[Any]], **more: Any) -> Answer:
    told = [{"name": name, "datatype": kind, "shape": shape, "data": data} for name, kind, shape, data in outputs]
    return Answer(200, json.dumps({"model_name": "m", "outputs": told, **more}).encode())


def binary(name: str, kind: str, shape: list[int], raw: bytes, version: str = "1") -> Answer:
    output = {"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"model_name": "m", "model_version": version, "outputs": [output]}).encode()
    return Answer(200, head + raw, len(head))


def document(value: Any) -> Answer:
    return Answer(200, json.dumps(value).encode())


def both(one: Answer, other: Answer, rule: Rule) -> tuple[Outcome, str]:
    """Compare both ways: it must not matter which is which."""
    found, turned = compare(one, other, rule), compare(other, one, rule)
    assert found == turned
    return found.outcome, found.reason


SCORES, ONE = ("p", "FP32", [1, 3], [0.1, 0.7, 0.2]), ("l", "INT64", [1], [1])


@pytest.mark.parametrize(
    ("one", "other", "rule", "expected"),
    [
        # V2: names of models, versions, ids and parameters do not count, nor does the order of the outputs.
        (v2(SCORES, id="a", model_version="1"), v2(SCORES, id="b", model_version="2", parameters={"x": 1}), EXACT, (AGREED, "")),
        (v2(SCORES, ("l", "INT64", [1], [1])), v2(("l", "INT64", [1], [1]), SCORES), EXACT, (AGREED, "")),
        (v2(SCORES), v2(("p", "FP32", [1, 3], [0.105, 0.7, 0.195])), NEAR, (AGREED, "")),
        (v2(SCORES), v2(("p", "FP32", [1, 3], [0.105, 0.7, 0.195])), EXACT, (DISAGREED, "values")),
        (v2(SCORES), v2(("p", "FP64", [1, 3], [0.1, 0.7, 0.2])), EXACT, (AGREED, "")),
        (v2(SCORES), v2(("p", "FP32", [1, 3], [[0.1, 0.7, 0.2]])), EXACT, (AGREED, "")),
        (v2(SCORES), v2(("p", "FP32", [3, 1], [0.1, 0.7, 0.2])), NEAR, (DISAGREED, "structure")),
        (v2(SCORES), v2(("q", "FP32", [1, 3], [0.1, 0.7, 0.2])), NEAR, (DISAGREED, "structure")),
        (v2(SCORES), v2(SCORES, ("l", "INT64", [1], [1])), NEAR, (DISAGREED, "structure")),
        (v2(("p", "FP32", [2], [None, 1.0])), v2(("p", "FP32", [2], [None, 1.0]), id="x"), EXACT, (AGREED, "")),
        (v2(("p", "FP32", [2], [None, 1.0])), v2(("p", "FP32", [2], [0.0, 1.0])), NEAR, (DISAGREED, "values")),
        (v2(("y", "FP64", [1], [1000.0])), v2(("y", "FP64", [1], [1009.0])), NEAR, (AGREED, "")),
        (v2(("y", "FP64", [1], [1000.0])), v2(("y", "FP64", [1], [1011.0])), NEAR, (DISAGREED, "values")),
        # Integers, texts and truth values are equal or not: class 1000 is not class 1001.
        (v2(("l", "INT64", [1], [1000])), v2(("l", "INT64", [1], [1001])), NEAR, (DISAGREED, "values")),
        (v2(("l", "BYTES", [1], ["cat"])), v2(("l", "BYTES", [1], ["dog"])), NEAR, (DISAGREED, "values")),
        (v2(("l", "BOOL", [1], [True])), v2(("l", "INT64", [1], [1])), NEAR, (DISAGREED, "values")),
        # Binary tensors, also beside JSON.
        (binary("p", "FP32", [2], struct.pack("<2f", 0.5, 2)), v2(("p", "FP32", [2], [0.5, 2.0])), EXACT, (AGREED, "")),
        (binary("p", "FP16", [2], struct.pack("<2e", 0.5, 2)), v2(("p", "FP32", [2], [0.5, 2.0])), EXACT, (AGREED, "")),
        (binary("p", "BF16", [2], b"\x00\x3f\x00\x40"), v2(("p", "FP32", [2], [0.5, 2.0])), EXACT, (AGREED, "")),
        (binary("p", "FP32", [1], struct.pack("<f", math.nan)), v2(("p", "FP32", [1], [None])), EXACT, (AGREED, "")),
        (binary("l", "INT16", [2], struct.pack("<2h", -1, 7)), v2(("l", "INT64", [2], [-1, 7])), EXACT, (AGREED, "")),
        (binary("l", "BOOL", [2], b"\x01\x00"), v2(("l", "BOOL", [2], [True, False])), EXACT, (AGREED, "")),
        (binary("l", "BYTES", [1], b"\x03\x00\x00\x00cat"), v2(("l", "BYTES", [1], ["cat"])), EXACT, (AGREED, "")),
        (
            binary("p", "FP32", [2], struct.pack("<2f", 0.5, 2), version="1"),
            binary("p", "FP32", [2], struct.pack("<2f", 0.5, 2.1), version="22"),
            Rule(0.1),
            (AGREED, ""),
        ),
        # V1, and any other JSON.
        (document({"predictions": [0.5, 1.5]}), document({"predictions": [0.504, 1.5]}), NEAR, (AGREED, "")),
        (document({"predictions": [0.5, 1.5]}), document({"predictions": [0.5]}), NEAR, (DISAGREED, "structure")),
        (document({"predictions": [1], "id": "a"}), document({"predictions": [1], "model_name": "m"}), EXACT, (AGREED, "")),
        (document({"a": {"b": [1.0, "x"]}}), document({"a": {"b": [1.001, "x"]}}), NEAR, (AGREED, "")),
        (document({"a": {"b": [1.0, "x"]}}), document({"a": {"b": [1.0, "y"]}}), NEAR, (DISAGREED, "values")),
        (document({"a": 1}), document({"b": 1}), NEAR, (DISAGREED, "structure")),
        (document({"a": {"id": 1}}), document({"a": {"id": 2}}), NEAR, (DISAGREED, "values")),
        (document({"a": 1}), v2(SCORES), NEAR, (DISAGREED, "structure")),
        # What is not understood is bytes.
        (Answer(200, b"\x00spam"), Answer(200, b"\x00spam"), NEAR, (AGREED, "")),
        (Answer(200, b"\x00spam"), Answer(200, b"\x00ham"), NEAR, (DISAGREED, "bytes")),
        (Answer(200, b"[" * 100_000), Answer(200, b"[" * 100_001), NEAR, (DISAGREED, "bytes")),
        # Labels: those that the answer names, else the places of the largest scores.
        (v2(SCORES), v2(("p", "FP32", [1, 3], [0.3, 0.4, 0.3])), LABELS, (AGREED, "")),
        (v2(SCORES), v2(("p", "FP32", [1, 3], [0.5, 0.4, 0.1])), LABELS, (DISAGREED, "labels")),
        (v2(SCORES, ONE), v2(("p", "FP32", [1, 3], [0.9, 0, 0]), ONE), LABELS, (AGREED, "")),
        (v2(SCORES, ("l", "BYTES", [1], ["a"])), v2(SCORES, ("l", "BYTES", [1], ["b"])), LABELS, (DISAGREED, "labels")),
        (v2(("p", "FP32", [2, 2], [0, 1, 1, 0])), v2(("p", "FP32", [2, 2], [0, 9, 2, 1])), LABELS, (AGREED, "")),
        (v2(("p", "FP32", [2], [0.1, 0.9])), v2(("p", "FP32", [2], [0.1, 0.9])), LABELS, (NOT_COMPARED, "no_labels")),
        (v2(("p", "FP32", [1, 1], [0.1])), v2(("p", "FP32", [1, 1], [0.9])), LABELS, (NOT_COMPARED, "no_labels")),
        (document({"predictions": [[0.1, 0.9]]}), document({"predictions": [[0.4, 0.6]]}), LABELS, (AGREED, "")),
        (document({"predictions": [[0.1, 0.9]]}), document({"predictions": [[0.6, 0.4]]}), LABELS, (DISAGREED, "labels")),
        (document({"predictions": [2, 0]}), document({"predictions": [2, 1]}), LABELS, (DISAGREED, "labels")),
        (document({"predictions": [0.1, 0.9]}), document({"predictions": [0.9, 0.1]}), LABELS, (NOT_COMPARED, "no_labels")),
        (
            document({"predictions": [{"label": "a", "p": [0.1, 0.9]}]}),
            document({"predictions": [{"label": "a", "p": [0.8, 0.2]}]}),
            LABELS,
            (AGREED, ""),
        ),
    ],
)  # fmt: skip
def test_what_agrees(one: Answer, other: Answer, rule: Rule, expected: tuple[Outcome, str]) -> None:
    assert both(one, other, rule) == expected


OK, REFUSED, BROKEN, BUSY = Answer(200, b"1"), Answer(400, b"no"), Answer(500, b"oh"), Answer(429, b"later")
LONG = Answer(200, None, unread="too_large")


@pytest.mark.parametrize(
    ("stable", "candidate", "expected"),
    [
        (OK, BROKEN, (DISAGREED, "status")),
        (OK, REFUSED, (DISAGREED, "status")),
        (REFUSED, OK, (DISAGREED, "status")),
        (REFUSED, REFUSED, (NOT_COMPARED, "failed")),
        (REFUSED, BROKEN, (NOT_COMPARED, "failed")),
        # What stable fails at is not the candidate's fault, nor is anyone's overload.
        (BROKEN, OK, (NOT_COMPARED, "failed")),
        (BROKEN, BROKEN, (NOT_COMPARED, "failed")),
        (BUSY, OK, (NOT_COMPARED, "overloaded")),
        (OK, BUSY, (NOT_COMPARED, "overloaded")),
        (None, OK, (NOT_COMPARED, "unanswered")),
        (OK, None, (NOT_COMPARED, "unanswered")),
        (OK, Answer(404, b"", own=False), (NOT_COMPARED, "misrouted")),
        (LONG, OK, (NOT_COMPARED, "too_large")),
        (OK, LONG, (DISAGREED, "structure")),
    ],
)
def test_whose_failure_counts(stable: Answer | None, candidate: Answer | None, expected: tuple[Outcome, str]) -> None:
    found = compare(stable, candidate, NEAR)
    assert (found.outcome, found.reason) == expected


def test_what_the_difference_is() -> None:
    assert compare(document([1.0, 0.25]), document([1.0, 0.5]), NEAR).difference == 0.25
    assert compare(document([100.0]), document([80.0]), NEAR).difference == pytest.approx(0.2)
    assert compare(document(["a"]), document(["b"]), NEAR).difference == math.inf
    assert compare(document([3, 4]), document([3, 5]), LABELS).difference == 0.5
    assert compare(OK, BROKEN, NEAR).difference == math.inf
    assert compare(BROKEN, BROKEN, NEAR).difference is None
    assert apart(10**400, 10**400 + 1) == math.inf
    assert apart(10**400, 1.0) == math.inf
    assert apart(math.inf, math.inf) == 0
    assert apart(-math.inf, math.inf) == math.inf


@pytest.mark.parametrize(
    "outputs",
    [
        [{"name": "p", "datatype": "FP32", "shape": [2], "data": [1.0]}],
        [{"name": "p", "datatype": "FP32", "shape": [-1, -1], "data": [1.0]}],
        [{"name": "p", "datatype": "FP32", "shape": [1], "data": ["1"]}],
        [{"name": "p", "datatype": "FP32", "shape": [2], "data": [[1.0], 2.0]}],
        [{"name": "p", "datatype": "INT8", "shape": [1], "data": [True]}],
        [{"name": "p", "datatype": "X", "shape": [1], "data": [1]}],
        [{"name": "p", "datatype": "BYTES", "shape": [1], "data": ["?"], "parameters": {"content_type": "base64"}}],
        [{"name": "p", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}],
        [{"name": "p", "datatype": "FP32", "shape": [], "data": 1.0}],
        [SCORES],
    ],
)
def test_what_is_no_v2_is_compared_as_it_stands(outputs: list[Any]) -> None:
    assert isinstance(read(json.dumps({"outputs": outputs}).encode()), Document)


@pytest.mark.parametrize("raw", [b"123", b"12345678"])
def test_binary_of_the_wrong_length_is_bytes(raw: bytes) -> None:
    answer = binary("p", "FP32", [1], b"1234")
    assert answer.body is not None
    broken = answer.body[:-4] + raw
    assert read(broken, answer.json_length) == broken
    assert isinstance(read(answer.body, answer.json_length), Tensors)


def test_base64_is_what_it_encodes() -> None:
    told = {"name": "l", "datatype": "BYTES", "shape": [1], "parameters": {"content_type": "base64"}}
    encoded = document({"outputs": [{**told, "data": [base64.b64encode(b"cat").decode()]}]})
    assert both(encoded, v2(("l", "BYTES", [1], ["cat"])), EXACT) == (AGREED, "")


def test_how_deep_an_answer_is_matters_to_nobody() -> None:
    deep: Any = 0.5
    for _ in range(900):
        deep = [deep]
    assert both(document({"a": deep}), document({"a": deep, "id": 1}), NEAR) == (AGREED, "")
    assert both(document({"a": deep}), document({"a": deep, "id": 1}), LABELS) == (NOT_COMPARED, "no_labels")


# --- laws -------------------------------------------------------------------------------------------------------------

NUMBERS = st.floats() | st.integers()
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=3),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.sampled_from(["predictions", "a", "id"]), below, max_size=3),
    max_leaves=12,
)
TENSOR = st.tuples(st.sampled_from(["FP32", "FP64"]), st.integers(1, 3), st.integers(1, 3)).flatmap(
    lambda kind: st.lists(st.floats(width=32) | st.none(), min_size=kind[1] * kind[2], max_size=kind[1] * kind[2]).map(
        lambda data: v2(("p", kind[0], [kind[1], kind[2]], data))
    )
)
ANSWERS = JSON.map(document) | TENSOR | st.binary(max_size=8).map(lambda body: Answer(200, body))
TOLERANCES = st.floats(0, 2)
RULES = TOLERANCES.map(Rule) | st.just(LABELS)


@given(ANSWERS, RULES)
def test_each_agrees_with_itself(answer: Answer, rule: Rule) -> None:
    assert answer.body is not None
    found = contents(read(answer.body), read(answer.body), rule)
    assert found in (Comparison(AGREED, difference=0.0), Comparison(NOT_COMPARED, "no_labels"))


@given(ANSWERS, ANSWERS, RULES)
def test_it_does_not_matter_which_is_which(one: Answer, other: Answer, rule: Rule) -> None:
    both(one, other, rule)


@given(TENSOR | st.lists(NUMBERS, min_size=1, max_size=3).map(document), st.data())
def test_a_larger_tolerance_agrees_to_more(one: Answer, data: st.DataObject) -> None:
    assert one.body is not None
    value = json.loads(one.body)
    factor = data.draw(st.floats(0.5, 2))
    numbers = value if isinstance(value, list) else value["outputs"][0]["data"]
    numbers[:] = [each * factor if isinstance(each, float) else each for each in numbers]
    other = document(value)
    small, large = sorted((data.draw(TOLERANCES), data.draw(TOLERANCES)))
    if compare(one, other, Rule(small)).outcome == AGREED:
        assert compare(one, other, Rule(large)).outcome == AGREED
    difference = compare(one, other, Rule(small)).difference
    assert difference is not None
    if difference < 2:  # it is the least tolerance that would do
        assert compare(one, other, Rule(difference)).outcome == AGREED


@given(st.binary(max_size=64), st.none() | st.integers(0, 70))
def test_whatever_is_answered_can_be_read(body: bytes, json_length: int | None) -> None:
    read(body, json_length)
