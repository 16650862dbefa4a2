"""The KServe SDK's inference clients, which nobody here wrote, against real servers: REST V2 and V1, gRPC."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.server.support import ROOT, Server, TensorProto, helper, model, serving

from slipway_dev.python import venv

REQUIREMENTS = ROOT / "tests/bench/serving/kserve-requirements.txt"
LENGTH = "inference-header-content-length"
GZIP = [["grpc.default_compression_algorithm", 2]]


class Sdk:
    """The SDK in a process of its own; see kserve_client.py."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self._process = process
        self._log = log

    def ask(self, client: str, server: Server, method: str, **call: Any) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"client": client, "port": server.port, "method": method, **call}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, self._log.read_text()
        return json.loads(line)

    def value(self, client: str, server: Server, method: str, **call: Any) -> Any:
        answer = self.ask(client, server, method, **call)
        assert "value" in answer, answer
        return answer["value"]

    def infer(self, client: str, server: Server, *requests: dict[str, Any], **call: Any) -> tuple[list[Any], dict[str, str]]:
        """(the answers to requests made at once, the headers of one of them)."""
        answer = self.ask(client, server, "infer", requests=requests, **_named(client), **call)
        assert "value" in answer, answer
        assert {each["model"] for each in answer["value"]} == {"m"}
        return answer["value"], answer["headers"]

    def refused(self, client: str, server: Server, request: dict[str, Any]) -> dict[str, str]:
        answer = self.ask(client, server, "infer", requests=[request], **_named(client))
        assert answer.keys() == {"error", "text"}, answer
        return answer


def _named(client: str) -> dict[str, Any]:
    """gRPC has the model's name in the request itself."""
    return {} if client == "grpc" else {"arguments": {"model_name": "m"}}


@contextmanager
def sdk_process(folder: Path) -> Iterator[Sdk]:
    log = folder / "sdk.log"
    command = [venv(REQUIREMENTS) / "bin/python", "-P", ROOT / "tests/integration/kserve_client.py"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    with log.open("w") as stderr, subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment
    ) as process:  # fmt: skip
        try:
            yield Sdk(process, log)
        finally:
            process.kill()


# --- servers ----------------------------------------------------------------------------------------------------------

VALUES: dict[str, tuple[int, list[Any]]] = {
    "BOOL": (TensorProto.BOOL, [True, False, False, True]),
    "INT8": (TensorProto.INT8, [-128, 127, 0, 1]),
    "INT16": (TensorProto.INT16, [-(2**15), 2**15 - 1, 0, 1]),
    "INT32": (TensorProto.INT32, [-(2**31), 2**31 - 1, 0, 1]),
    "INT64": (TensorProto.INT64, [-(2**63), 2**63 - 1, 2**53 + 1, 1]),
    "UINT8": (TensorProto.UINT8, [0, 255, 1, 2]),
    "UINT16": (TensorProto.UINT16, [0, 2**16 - 1, 1, 2]),
    "UINT32": (TensorProto.UINT32, [0, 2**32 - 1, 1, 2]),
    "UINT64": (TensorProto.UINT64, [0, 2**64 - 1, 2**53 + 1, 2]),
    "FP32": (TensorProto.FLOAT, [0.1, -3.4028235e38, 1e-45, 2.5]),
    "FP64": (TensorProto.DOUBLE, [0.1, -1.7976931348623157e308, 5e-324, 2.5]),
    "BYTES": (TensorProto.STRING, ["a", "é€", "", '"\\\n\0']),
}
"""Of each datatype that both ONNX and the SDK's JSON have: what ONNX calls it, and a [2,2] tensor, flat."""

EXPLAINED = """
class Model:
    inputs = [("x", "FP32", [-1, 2]), ("half", "FP16", [-1, 2]), ("raw", "BYTES", [-1])]
    outputs = [("sum", "FP32", [-1]), ("negative", "FP16", [-1, 2]), ("same", "BYTES", [-1])]

    def predict(self, inputs):
        return {"sum": inputs["x"].sum(1), "negative": -inputs["half"], "same": inputs["raw"]}

    def explain(self, inputs):
        return {"weights": inputs["x"] / inputs["x"].sum(1, keepdims=True)}
"""

NEVER_LOADED = """
import threading

class Model:
    def load(self, folder):
        threading.Event().wait()
"""


@dataclass(frozen=True)
class Servers:
    types: Server
    """INT8 [N,2] -> of_INT8 [N,2], and so on for all of VALUES: ONNX."""
    explained: Server
    """FP16, and elements of BYTES that are no text: Python."""
    loading: Server
    """Live, and never ready."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sdk, Servers]]:
    identities = model(
        [helper.make_node("Identity", [name], [f"of_{name}"]) for name in VALUES],
        {name: (kind, ["N", 2]) for name, (kind, _) in VALUES.items()},
        {f"of_{name}": (kind, ["N", 2]) for name, (kind, _) in VALUES.items()},
    )
    python = {"name": "model/model.py"}
    with ExitStack() as stack:
        enter = stack.enter_context
        folders = (tmp_path_factory.mktemp(name) for name in ("sdk", "types", "explained", "loading"))
        sdk = enter(sdk_process(next(folders)))  # its imports take longer than the servers' start
        types = enter(serving(next(folders), identities, wait=""))
        explained = enter(serving(next(folders), EXPLAINED.encode(), "--format", "Python", wait="", **python))
        loading = enter(serving(next(folders), NEVER_LOADED.encode(), "--format", "Python", wait="listening", **python))
        for server in (types, explained):
            server.wait_listening()
            server.wait_ready()
        yield sdk, Servers(types, explained, loading)


@pytest.fixture
def sdk(running: tuple[Sdk, Servers]) -> Sdk:
    return running[0]


@pytest.fixture
def servers(running: tuple[Sdk, Servers]) -> Servers:
    return running[1]


# --- V2's tensors -----------------------------------------------------------------------------------------------------


def sent(name: str, values: Any, form: str, datatype: str = "") -> dict[str, Any]:
    return {"name": name, "datatype": datatype or name, "values": in_hex(values), "form": form}


def in_hex(value: Any) -> Any:
    if isinstance(value, list):
        return [in_hex(element) for element in value]
    return value.hex() if isinstance(value, bytes) else value.encode().hex() if isinstance(value, str) else value


def every_type(form: str, rows: int = 1) -> list[dict[str, Any]]:
    return [sent(name, [values[:2], values[2:]] * rows, form) for name, (_, values) in VALUES.items()]


def check(answer: dict[str, Any], rows: int = 1, names: Sequence[str] = tuple(VALUES)) -> None:
    """The answer has these types' outputs in this order, each as it was sent by `every_type`."""
    assert list(answer["outputs"]) == [f"of_{name}" for name in names]
    for given in every_type("", rows):
        if given["name"] in names:
            output = answer["outputs"][f"of_{given['name']}"]
            values = np.array(given["values"], np.float32).tolist() if given["name"] == "FP32" else given["values"]
            assert output["values"] == values, given["name"]
            assert (output["datatype"], output["shape"]) == (given["datatype"], [2 * rows, 2])


@pytest.mark.parametrize("form", ["json", "array", "list", "binary"])
@pytest.mark.parametrize("binary_answer", [None, False, True])
def test_rest_every_datatype(sdk: Sdk, servers: Servers, form: str, binary_answer: bool | None) -> None:
    request: dict[str, Any] = {"inputs": every_type(form), "id": "7"}
    if binary_answer is not None:
        request["parameters"] = {"binary_data_output": binary_answer}
    (answer,), headers = sdk.infer("v2", servers.types, request)
    check(answer)
    assert answer["id"] == "7"
    assert (LENGTH in headers) == bool(binary_answer)
    assert headers["content-type"] == ("application/octet-stream" if binary_answer else "application/json")


@pytest.mark.parametrize("form", ["array", "binary", "list"])
@pytest.mark.parametrize("options", [{}, {"channel_args": GZIP}], ids=["plain", "gzip"])
def test_grpc_every_datatype(sdk: Sdk, servers: Servers, form: str, options: dict[str, Any]) -> None:
    request = {"inputs": every_type(form), "id": "7", "version": "3"}
    (answer,), _ = sdk.infer("grpc", servers.types, request, **options)
    check(answer)
    assert (answer["id"], answer["version"]) == ("7", "3")
    # As KServe's own server: raw tensors are answered raw, typed ones typed.
    assert {output["raw"] for output in answer["outputs"].values()} == {form != "list"}


@pytest.mark.parametrize("client", ["v2", "grpc"])
def test_an_id_is_not_needed(sdk: Sdk, servers: Servers, client: str) -> None:
    (answer,), _ = sdk.infer(client, servers.types, {"inputs": every_type("binary")})
    if client == "grpc":
        assert answer["id"] == ""
    else:  # the SDK makes one up
        assert len(answer["id"]) == 36


@pytest.mark.parametrize("binary_answer", [False, True])
def test_rest_gzip_is_what_the_sdk_accepts(sdk: Sdk, servers: Servers, binary_answer: bool) -> None:
    request = {"inputs": every_type("binary", rows=50), "parameters": {"binary_data_output": binary_answer}}
    (answer,), headers = sdk.infer("v2", servers.types, request)
    check(answer, rows=50)
    assert headers["content-encoding"] == "gzip"


def test_rest_chosen_outputs_each_in_its_form(sdk: Sdk, servers: Servers) -> None:
    outputs = [["of_INT8", {"binary_data": True}], ["of_BYTES"], ["of_FP32", {"binary_data": False}]]
    request = {"inputs": every_type("binary"), "outputs": outputs, "parameters": {"binary_data_output": True}}
    (answer,), headers = sdk.infer("v2", servers.types, request)
    check(answer, names=["INT8", "BYTES", "FP32"])
    binary_bytes = 4 + sum(4 + len(text.encode()) for text in VALUES["BYTES"][1])
    assert int(headers["content-length"]) - int(headers[LENGTH]) == binary_bytes


@pytest.mark.parametrize("form", ["binary", "list"])
def test_grpc_chosen_outputs(sdk: Sdk, servers: Servers, form: str) -> None:
    request = {"inputs": every_type(form), "outputs": [["of_INT8", {"binary_data": True}], ["of_BYTES"]]}
    (answer,), _ = sdk.infer("grpc", servers.types, request)
    check(answer, names=["INT8", "BYTES"])


@pytest.mark.parametrize("client", ["v2", "grpc"])
def test_many_at_once(sdk: Sdk, servers: Servers, client: str) -> None:
    requests = [{"inputs": every_type("binary", rows=rows), "id": str(rows)} for rows in range(1, 17)]
    for rows, answer in enumerate(sdk.infer(client, servers.types, *requests)[0], 1):
        check(answer, rows)
        assert answer["id"] == str(rows)


def test_rest_v2_of_a_dict_and_of_a_graph_endpoint(sdk: Sdk, servers: Servers) -> None:
    data = {"inputs": [{"name": n, "shape": [2, 2], "datatype": n, "data": v} for n, (_, v) in VALUES.items()]}
    call: dict[str, Any] = {"arguments": {"data": data, "model_name": "m"}}
    check(sdk.value("v2", servers.types, "infer", **call))
    graph: dict[str, Any] = {"path": "/v2/models/m/infer", "arguments": {"data": data, "is_graph_endpoint": True}}
    answer = sdk.value("v1", servers.types, "infer", **graph)
    assert (answer["model_name"], answer["model_version"]) == ("m", "3")
    for output, (_, values) in zip(answer["outputs"], VALUES.values(), strict=True):
        assert output["data"] == values


# --- FP16, bytes that are no text -------------------------------------------------------------------------------------

NO_TEXT = [b"\xff\x00", b"text"]
HALF = np.array([[0.5, -65504.0], [6e-8, 2.0]], np.float16).tolist()


def explained(raw: list[bytes]) -> list[dict[str, Any]]:
    x = sent("x", [[1.0, 3.0], [2.0, 2.0]], "binary", "FP32")
    return [x, sent("half", HALF, "binary", "FP16"), sent("raw", raw, "binary", "BYTES")]


@pytest.mark.parametrize("binary_answer", [False, True])
def test_rest_fp16(sdk: Sdk, servers: Servers, binary_answer: bool) -> None:
    request = {"inputs": explained([b"a", b"b"]), "parameters": {"binary_data_output": binary_answer}}
    outputs = sdk.infer("v2", servers.explained, request)[0][0]["outputs"]
    assert outputs["negative"]["datatype"] == "FP16"
    assert outputs["negative"]["values"] == np.negative(HALF).tolist()
    assert outputs["sum"]["values"] == [4.0, 4.0]
    assert outputs["same"]["values"] == [b"a".hex(), b"b".hex()]


def test_rest_json_and_binary_inputs_in_one_request(sdk: Sdk, servers: Servers) -> None:
    inputs = explained([b"a", b"b"])
    inputs[0]["form"] = "json"
    outputs = sdk.infer("v2", servers.explained, {"inputs": inputs, "outputs": [["sum"]]})[0][0]["outputs"]
    assert outputs["sum"]["values"] == [4.0, 4.0]


def test_grpc_fp16_and_bytes_that_are_no_text(sdk: Sdk, servers: Servers) -> None:
    outputs = sdk.infer("grpc", servers.explained, {"inputs": explained(NO_TEXT)})[0][0]["outputs"]
    assert outputs["negative"]["values"] == np.negative(HALF).tolist()
    assert outputs["same"]["values"] == [element.hex() for element in NO_TEXT]


@pytest.mark.parametrize("binary_answer", [False, True])
def test_rest_nan(sdk: Sdk, servers: Servers, binary_answer: bool) -> None:
    """It goes in as bytes; an answer in JSON has null, which the SDK reads as NaN."""
    inputs = explained([b"a", b"b"])
    inputs[0]["values"][0][0] = float("nan")
    request = {"inputs": inputs, "outputs": [["sum", {"binary_data": binary_answer}]]}
    outputs = sdk.infer("v2", servers.explained, request)[0][0]["outputs"]
    np.testing.assert_array_equal(outputs["sum"]["values"], [np.nan, 4.0])


# --- V1 ---------------------------------------------------------------------------------------------------------------


def test_v1_predict_rows_and_columns_of_every_datatype(sdk: Sdk, servers: Servers) -> None:
    columns = {name: [values[:2], values[2:]] for name, (_, values) in VALUES.items()}
    rows = [{name: column[place] for name, column in columns.items()} for place in range(2)]
    for data in ({"instances": rows}, {"inputs": columns}):
        answer = sdk.value("v1", servers.types, "infer", arguments={"data": data, "model_name": "m"})
        assert answer == {"predictions": [{f"of_{name}": values for name, values in row.items()} for row in rows]}


def test_v1_predict_and_explain(sdk: Sdk, servers: Servers) -> None:
    rows = [{"x": [1.0, 3.0], "half": [0.5, -2.0], "raw": {"b64": "/wA="}}, {"x": [2.0, 2.0], "half": [1, 2], "raw": "text"}]
    arguments = {"data": {"instances": rows}, "model_name": "m"}
    assert sdk.value("v1", servers.explained, "infer", arguments=arguments) == {
        "predictions": [
            {"sum": 4.0, "negative": [-0.5, 2.0], "same": {"b64": "/wA="}},
            {"sum": 4.0, "negative": [-1.0, -2.0], "same": "text"},
        ]
    }
    explanations = [[0.25, 0.75], [0.5, 0.5]]
    assert sdk.value("v1", servers.explained, "explain", arguments=arguments) == {"explanations": explanations}


# --- health -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ["v2", "v1", "grpc"])
def test_live_and_ready(sdk: Sdk, servers: Servers, client: str) -> None:
    of_model = {"arguments": {"model_name": "m"}}
    for server in (servers.types, servers.explained):
        assert sdk.value(client, server, "is_server_live") is True
        assert sdk.value(client, server, "is_model_ready", **of_model) is True
        if client != "v1":  # which has no such question
            assert sdk.value(client, server, "is_server_ready") is True


@pytest.mark.parametrize("client", ["v2", "v1", "grpc"])
def test_live_and_not_ready(sdk: Sdk, servers: Servers, client: str) -> None:
    assert sdk.value(client, servers.loading, "is_server_live") is True
    assert sdk.value(client, servers.loading, "is_model_ready", arguments={"model_name": "m"}) is False
    if client == "grpc":
        assert sdk.value(client, servers.loading, "is_server_ready") is False
    elif client == "v2":  # the SDK raises on 503
        assert sdk.ask(client, servers.loading, "is_server_ready")["error"] == "503"


# --- errors -----------------------------------------------------------------------------------------------------------


def test_infer_while_loading(sdk: Sdk, servers: Servers) -> None:
    request = {"inputs": every_type("binary")}
    answer = sdk.refused("v2", servers.loading, request)
    assert answer["error"] == "503"
    assert answer["text"].startswith("the model is loading, '503 Service Unavailable'")
    assert sdk.refused("grpc", servers.loading, request) == {"error": "UNAVAILABLE", "text": "the model is loading"}


@pytest.mark.parametrize("form", ["list", "binary"])
def test_a_wrong_shape_is_named(sdk: Sdk, servers: Servers, form: str) -> None:
    inputs = [sent("INT8", [[1, 2, 3]], form) if each["name"] == "INT8" else each for each in every_type(form)]
    message = "input 'INT8': shape [1, 3], expected [-1, 2]"
    answer = sdk.refused("v2", servers.types, {"inputs": inputs})
    assert answer["error"] == "400"
    assert answer["text"].startswith(f"{message}, '400 Bad Request'")
    assert sdk.refused("grpc", servers.types, {"inputs": inputs}) == {"error": "INVALID_ARGUMENT", "text": message}


def test_v1_errors(sdk: Sdk, servers: Servers) -> None:
    arguments = {"data": {"instances": [{"x": [1, 2]}]}, "model_name": "m"}
    answer = sdk.ask("v1", servers.explained, "infer", arguments=arguments)
    assert answer["error"] == "400"
    assert "'half' (FP16 [-1, 2])" in answer["text"]
    answer = sdk.ask("v1", servers.types, "explain", arguments=arguments)
    assert answer["error"] == "501"
    assert "does not explain" in answer["text"]


def test_another_model(sdk: Sdk, servers: Servers) -> None:
    other = {"model_name": "other"}
    message = "model 'other' is not served here: this is 'm'"
    assert sdk.value("v2", servers.types, "is_model_ready", arguments=other) is False
    for client, method in (("v1", "is_model_ready"), ("v1", "infer"), ("v1", "explain"), ("v2", "infer")):
        data = {} if method == "is_model_ready" else {"data": {}}
        answer = sdk.ask(client, servers.types, method, arguments=other | data)
        assert answer["error"] == "404", (client, method)
        assert answer["text"].startswith(message), (client, method)
    refused = {"error": "NOT_FOUND", "text": message}
    assert sdk.ask("grpc", servers.types, "is_model_ready", arguments=other) == refused
    assert sdk.refused("grpc", servers.types, {"model": "other", "inputs": every_type("binary")}) == refused
