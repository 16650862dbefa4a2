"""Whether what is stored is what is wanted: defaults and others' additions do not count, drift does."""

from typing import Any

import pytest

from slipway.kube.diff import covers, mark

SAME: list[tuple[str, Any, Any]] = [
    ("server defaults", {"a": 1, "default": 2}, {"a": 1}),
    ("empty is as absent", {"a": 1}, {"a": 1, "resources": {}, "env": [], "x": None}),
    ("quantity in another form", {"cpu": "500m", "memory": "1Gi"}, {"cpu": "0.5", "memory": "1024Mi"}),
    ("quantity as a number", {"cpu": "2"}, {"cpu": 2}),
    ("a container that another added", [{"name": "a"}, {"name": "sidecar"}], [{"name": "a"}]),
    ("another order of named entries", [{"name": "b"}, {"name": "a", "x": 1}], [{"name": "a"}, {"name": "b"}]),
    ("our owner among others", [{"uid": "1"}, {"uid": "2", "name": "o"}], [{"uid": "2", "name": "o"}]),
]
DIFFERENT: list[tuple[str, Any, Any]] = [
    ("value", {"a": 1}, {"a": 2}),
    ("missing key", {}, {"a": 1}),
    ("quantity", {"cpu": "500m"}, {"cpu": "1"}),
    ("shorter list", ["a"], ["a", "b"]),
    ("longer list of plain values", ["a", "b"], ["a"]),
    ("named entry changed", [{"name": "a", "image": "x"}], [{"name": "a", "image": "y"}]),
    ("named entry gone", [{"name": "b"}], [{"name": "a"}]),
    ("a digest that reads like a number", {"digest": "0123e99999999999"}, {"digest": "4567e88888888888"}),
    ("a boolean is no quantity", {"a": 1}, {"a": True}),
    ("other type", {"a": "x"}, {"a": {"b": 1}}),
]


@pytest.mark.parametrize(("stored", "wanted"), [row[1:] for row in SAME], ids=[row[0] for row in SAME])
def test_is_as_wanted(stored: Any, wanted: Any) -> None:
    assert covers(stored, wanted)


@pytest.mark.parametrize(("stored", "wanted"), [row[1:] for row in DIFFERENT], ids=[row[0] for row in DIFFERENT])
def test_differs(stored: Any, wanted: Any) -> None:
    assert not covers(stored, wanted)


def test_a_field_no_longer_wanted_shows_in_the_mark() -> None:
    before = mark({"metadata": {"name": "a"}, "spec": {"x": 1, "y": 2}})
    after = mark({"metadata": {"name": "a"}, "spec": {"x": 1}})
    assert covers(before, before)
    assert not covers(before, after)
