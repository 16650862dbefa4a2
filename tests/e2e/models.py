"""What the journeys serve: tiny ONNX models that tell by their answer which version they are, and specs that name them."""

import base64
import hashlib
from functools import cache
from typing import Any

from onnx import TensorProto, helper

CONFIG_MAP = "models"
# One request of the load: version n answers n times the input.
INPUT = [1.0, 2.0, 3.0, 4.0]
BODY = '{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}'


@cache
def onnx_file(version: int) -> bytes:
    """Answer a model y = version * x."""
    factor = helper.make_tensor("factor", TensorProto.FLOAT, [1], [float(version)])
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        f"times-{version}",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [factor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString(deterministic=True)


def digest(version: int) -> str:
    """Answer the model's sha256."""
    return hashlib.sha256(onnx_file(version)).hexdigest()


def config_map() -> dict[str, Any]:
    """Answer the ConfigMap that holds the models: v1.onnx and v2.onnx, and one that is no model."""
    files = {"v1.onnx": onnx_file(1), "v2.onnx": onnx_file(2), "corrupt.onnx": onnx_file(2)[:40]}
    encoded = {name: base64.b64encode(content).decode() for name, content in files.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CONFIG_MAP}, "binaryData": encoded}


def spec(version: int = 1, replicas: int = 1) -> dict[str, Any]:
    """Answer the spec of a ModelDeployment that serves the version."""
    return {
        "model": {
            "uri": f"configmap://{CONFIG_MAP}/v{version}.onnx",
            "format": "ONNX",
            "version": str(version),
            "sha256": digest(version),
        },
        "server": {"resources": {"requests": {"cpu": "20m", "memory": "128Mi"}}},
        "scaling": {"min": replicas},
    }


def answer(version: int) -> list[float]:
    """Answer what the version makes of `BODY`."""
    return [version * value for value in INPUT]
