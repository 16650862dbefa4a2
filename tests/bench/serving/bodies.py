"""Requests and answers of the protocol's three forms, as bytes: V2 JSON, V2 with binary tensors, gRPC with raw contents."""

import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from tests.bench.serving.cases import Array, Case
from tritonclient.grpc import service_pb2

PROTOCOLS = ("json", "binary", "grpc")
NAME = "bench"  # what every server calls its model
HTTP_PATH = f"/v2/models/{NAME}/infer"
GRPC_PATH = "/inference.GRPCInferenceService/ModelInfer"
_JSON_LENGTH = "Inference-Header-Content-Length"
_DTYPES = {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8", "INT32": "<i4"}


class WrongAnswerError(Exception):
    """A server answered something else than the model's values."""


@dataclass(frozen=True)
class Body:
    """What a load generator sends: for gRPC one message with its five-byte prefix."""

    data: bytes
    headers: dict[str, str]


def make(case: Case, protocol: str) -> Body:
    """Answer the request of a case in one of the forms."""
    raw = case.array.tobytes()
    datatype = "FP64" if case.array.dtype == np.float64 else "FP32"
    if protocol == "grpc":
        message: Any = service_pb2.ModelInferRequest(model_name=NAME)
        message.inputs.add(name=case.input, datatype=datatype, shape=case.array.shape)
        message.raw_input_contents.append(raw)
        data = message.SerializeToString()
        return Body(struct.pack(">BI", 0, len(data)) + data, {"content-type": "application/grpc", "te": "trailers"})
    tensor: dict[str, Any] = {"name": case.input, "shape": list(case.array.shape), "datatype": datatype}
    if protocol == "json":
        # As short as the numbers were meant: 5.1, not 5.099999904632568.
        tensor["data"] = [float(str(value)) for value in case.array.reshape(-1)]
        return Body(json.dumps({"inputs": [tensor]}).encode(), {"Content-Type": "application/json"})
    tensor["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return Body(head + raw, {"Content-Type": "application/octet-stream", _JSON_LENGTH: str(len(head))})


def check_http(case: Case, status: int, headers: dict[str, str], body: bytes, protocol: str) -> None:
    """Raise WrongAnswerError unless this is a good answer in the form that was asked for."""
    if status != 200:
        raise WrongAnswerError(f"status {status}: {body[:400]!r}")
    length = headers.get(_JSON_LENGTH.lower())
    if (length is not None) != (protocol == "binary"):
        raise WrongAnswerError(f"a {protocol} request was answered {'with' if length else 'without'} binary tensors")
    end = int(length) if length else len(body)
    outputs: dict[str, Array] = {}
    at = end
    for output in json.loads(body[:end])["outputs"]:
        if length:
            after = at + output["parameters"]["binary_data_size"]
            outputs[output["name"]] = np.frombuffer(body[at:after], _DTYPES[output["datatype"]])
            at = after
        else:
            outputs[output["name"]] = np.asarray(output["data"], np.float64)
    _check(case, outputs)


def check_grpc(case: Case, data: bytes) -> None:
    """Raise WrongAnswerError unless this message is a good answer with raw contents."""
    message: Any = service_pb2.ModelInferResponse.FromString(data)
    if len(message.raw_output_contents) != len(message.outputs):
        raise WrongAnswerError("a gRPC request with raw contents was answered without")
    pairs = zip(message.outputs, message.raw_output_contents, strict=True)
    _check(case, {output.name: np.frombuffer(raw, _DTYPES[output.datatype]) for output, raw in pairs})


def _check(case: Case, outputs: dict[str, Array]) -> None:
    expected = case.expected.reshape(-1)
    for array in outputs.values():
        if array.size == expected.size and np.allclose(array.reshape(-1), expected, rtol=1e-3, atol=1e-4):
            return
    raise WrongAnswerError(f"expected {expected.tolist()}, got { ({name: a.tolist() for name, a in outputs.items()}) }")
