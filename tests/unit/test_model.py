"""A stored ModelDeployment, read: what this cluster does not allow is an error of the spec, and nothing else."""

from typing import Any

import pytest

from slipway.model import read
from slipway.settings import Settings


def stored(model: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "m", "namespace": "ns", "generation": 1}, "spec": {"model": model}}


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"uri": "s3://bucket/m.onnx", "format": "ONNX"}, None),
        ({"uri": "https://host/m.onnx", "format": "ONNX"}, "SchemeNotAllowed"),
        ({"format": "Custom"}, None),
        ({"uri": "https://host/m.onnx"}, "SpecInvalid"),
    ],
)
def test_schemes_are_allowed_by_the_cluster(model: dict[str, Any], reason: str | None) -> None:
    found = read(stored(model), Settings("server:1", "router:1", model_schemes=("s3", "oci")))
    assert (found.spec_error and found.spec_error.reason) == reason
    assert (found.spec is None, found.target is None) == (reason is not None, reason is not None)
    assert found.history_limit == (100 if reason else 10), "what is kept is not decided by a spec that is refused"


def test_without_a_list_all_schemes_are() -> None:
    found = read(stored({"uri": "https://host/m.onnx", "format": "ONNX"}), Settings("server:1", "router:1"))
    assert found.spec_error is None
