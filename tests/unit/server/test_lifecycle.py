"""Start and end of `serve`: models that must not be served, readiness, signals, and a drain that loses nothing."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from tests.unit.server.support import (
    INFER,
    Server,
    TensorProto,
    classifier,
    environment,
    helper,
    loop,
    model,
    run,
    serving,
    wait_until,
)

from slipway_server.termination import Reason, TerminalError
from slipway_server.workers import load_ended

BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]})
MIB = 1 << 20


def division() -> bytes:
    """Divides integers by its input, and rightly refuses zeros."""
    return model(
        [helper.make_node("Div", ["one", "x"], ["y"])],
        {"x": (TensorProto.INT32, [1])},
        {"y": (TensorProto.INT32, [1])},
        [helper.make_tensor("one", TensorProto.INT32, [1], [1])],
    )


def hungry(side: int = 20_000) -> bytes:
    """Wants 4 bytes * side * side for its output: 1.6 GB."""
    return model(
        [helper.make_node("Expand", ["x", "shape"], ["y"])],
        {"x": (TensorProto.FLOAT, [1])},
        {"y": (TensorProto.FLOAT, [side, side])},
        [helper.make_tensor("shape", TensorProto.INT64, [2], [side, side])],
    )


def wrong_at_zero() -> bytes:
    """Reshapes 4 numbers into 7."""
    return model(
        [helper.make_node("Add", ["shape", "x"], ["s"]), helper.make_node("Reshape", ["data", "s"], ["y"])],
        {"x": (TensorProto.INT64, [1])},
        {"y": (TensorProto.FLOAT, [None])},
        [
            helper.make_tensor("shape", TensorProto.INT64, [1], [7]),
            helper.make_tensor("data", TensorProto.FLOAT, [4], [1, 2, 3, 4]),
        ],
    )


def sequence() -> bytes:
    graph = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def future() -> bytes:
    node = helper.make_node("Neg", ["x"], ["y"])
    return model([node], {"x": (TensorProto.FLOAT, [1])}, {"y": (TensorProto.FLOAT, [1])}, opset=999)


def foreign() -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Frobnicate", ["x"], ["y"], domain="com.acme")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.acme", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def external() -> bytes:
    """Keeps its weights in a file outside the model folder."""
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [4], [0.0] * 4)
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "../../../../../../etc/passwd", "offset": "0", "length": "16"}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    shape = (TensorProto.FLOAT, [4])
    return model([helper.make_node("Add", ["x", "w"], ["y"])], {"x": shape}, {"y": shape}, [tensor])


@pytest.mark.parametrize(
    ("content", "flags", "reason", "message"),
    [
        (b"", (), "ModelCorrupt", "not a sound ONNX model"),
        (b"not a model", (), "ModelCorrupt", "export and upload it again"),
        (classifier()[:-40], (), "ModelCorrupt", "model.onnx is not a sound ONNX model"),
        (b"\xff" * 1000, (), "ModelCorrupt", "."),
        (wrong_at_zero(), (), "ModelCorrupt", "loads, but fails its first run"),
        (external(), (), "ModelCorrupt", "external|escape|outside"),
        (sequence(), (), "UnsupportedModel", r"output y has the type seq\(tensor\(float\)\), which V2"),
        (foreign(), (), "UnsupportedModel", "Frobnicate"),
        (future(), (), "UnsupportedModel", "opset"),
        (hungry(), ("--load-memory", str(300 * MIB)), "OutOfMemory", "memory"),
        (loop(10**12), ("--load-timeout", "1"), "ModelLoadTimeout", "took longer than 1 s"),
    ],
)  # fmt: skip
def test_models_that_are_not_served(tmp_path: Path, content: bytes, flags: tuple[str, ...], reason: str, message: str) -> None:
    with serving(tmp_path, content, *flags, wait="") as server:
        assert server.process.wait(30) == 1
        termination = (tmp_path / "termination").read_text()
        assert termination.startswith(f"{reason}: "), termination
        assert re.search(message, termination), termination
        assert server.log.read_text().splitlines()[-1] == termination


def test_a_hungry_model_is_served_where_there_is_memory_for_it(tmp_path: Path) -> None:
    with serving(tmp_path, hungry(200), "--load-memory", str(300 * MIB), wait="listening") as server:
        wait_until(lambda: server.get("/v2/health/ready").status == 200, "ready")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--name", "m"), "ModelNotFound"),
        ((), "InvalidArguments"),
        (("--name", "m", "--port", "70000"), "InvalidArguments"),
        (("--name", "m", "--revision", "a b"), "InvalidArguments"),
        (("--name", "m", "--threads", "0"), "InvalidArguments"),
        (("--name", "m", "--format", "Pickle"), "UnsupportedModel"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: tuple[str, ...], reason: str) -> None:
    outcome = run(tmp_path, "serve", "--model-dir", tmp_path, *arguments)
    assert (outcome.code, outcome.reason) == (1, reason)


def test_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with serving(tmp_path, classifier(), "--port", str(port), wait="") as server:
            assert server.process.wait(20) == 1
    assert (
        (tmp_path / "termination")
        .read_text()
        .startswith(f"PortUnavailable: port {port} cannot be bound (Address already in use): ")
    )


def test_help() -> None:
    for command in ("fetch", "serve"):
        done = subprocess.run(
            [sys.executable, "-m", "slipway_server", command, "--help"], env=environment(), capture_output=True, check=True
        )
        assert b"--format" in done.stdout


def test_termination_lines() -> None:
    long = TerminalError(Reason.MODEL_CORRUPT, "a\nb " + "\u00e9" * 5000)
    assert long.line().startswith("ModelCorrupt: a b \u00e9")
    assert len(long.line().encode()) <= 4096
    assert all(re.fullmatch(r"([A-Z][a-zA-Z]+)+", reason) for reason in Reason)


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (signal.SIGSEGV, "ModelLoadCrashed: loading model.onnx killed its process (SIGSEGV)"),
        (signal.SIGABRT, "ModelLoadCrashed: loading model.onnx killed its process (SIGABRT)"),
        (7 << 8, "ModelLoadCrashed: loading model.onnx ended its process with exit code 7"),
        (0, "ModelLoadCrashed: loading model.onnx ended its process with exit code 0"),
        (signal.SIGKILL, "OutOfMemory: the kernel killed the process that loaded model.onnx"),
    ],
)
def test_how_a_load_ended(status: int, line: str) -> None:
    assert load_ended(Path("/mnt/models/model.onnx"), status).line().startswith(line)


def test_the_supervisor_is_small_and_can_fork(tmp_path: Path) -> None:
    with serving(tmp_path, classifier()) as server:
        process = Path(f"/proc/{server.process.pid}")
        assert len(list((process / "task").iterdir())) == 1
        assert not re.search("numpy|onnxruntime|uvloop|asyncio", (process / "maps").read_text())
        (worker,) = server.workers()
        assert "numpy" in Path(f"/proc/{worker}/maps").read_text()


def test_live_but_not_ready_while_the_model_loads(tmp_path: Path) -> None:
    with serving(tmp_path, loop(10**12), wait="listening") as server:
        assert server.get("/v2/health/live").status == 200
        ready = server.get("/v2/health/ready")
        assert (ready.status, ready.json) == (503, {"ready": False})
        refused = server.infer(BODY.encode())
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert server.get("/v2/models/m").status == 503
        assert server.get("/metrics").status == 200
        assert server.stop(5) == 0


def test_a_model_that_dislikes_zeros_is_warmed_with_ones(tmp_path: Path) -> None:
    with serving(tmp_path, division()) as server:
        assert "could not be warmed up" not in server.log.read_text()
        assert server.infer({"inputs": [{"name": "x", "shape": [1], "datatype": "INT32", "data": [0]}]}).status == 500


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_load_ends_with_its_server(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path, loop(10**12), wait="listening") as server:
        wait_until(server.workers, "the worker")
        (worker,) = server.workers()
        server.process.send_signal(number)
        server.process.wait(10)
        wait_until(lambda: not Path(f"/proc/{worker}/exe").exists(), "the load's end")


def test_dynamic_models_that_dislike_every_guess_are_served(tmp_path: Path) -> None:
    content = model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        {"x": (TensorProto.FLOAT, ["N"])},
        {"y": (TensorProto.FLOAT, ["M", 4])},
        [helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 4])],
    )
    with serving(tmp_path, content) as server:
        assert "could not be warmed up" in server.log.read_text()
        body = {"inputs": [{"name": "x", "shape": [4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
        assert server.infer(body).json["outputs"][0]["shape"] == [1, 4]
        body["inputs"][0] |= {"shape": [3], "data": [1, 2, 3]}
        refused = server.infer(body)
        assert refused.status in (400, 500)
        assert "model" in refused.json["error"]


def test_no_telemetry(tmp_path: Path) -> None:
    script = "import os; from slipway_server.formats import onnx; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(HOME=str(home)), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1"]
    with serving(tmp_path, classifier(), HOME=str(home)):
        pass
    assert not list(home.iterdir())  # where the vendor's telemetry keeps its device id


def test_runs_without_a_writable_folder(tmp_path: Path) -> None:
    with serving(tmp_path, classifier(), TMPDIR="/nonexistent") as server:
        assert server.infer(BODY.encode()).status == 200
        assert server.stop() == 0


# --- SIGTERM ----------------------------------------------------------------------------------------------------------


def test_idle_server_stops_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, classifier()) as server:
        connection = server.connect()
        connection.request("GET", "/v2")
        connection.getresponse().read()  # and stays connected
        assert server.stop(2) == 0
        assert not (tmp_path / "termination").exists()


@pytest.mark.parametrize("content", [classifier(), loop()], ids=["quick", "slow"])
def test_drain_under_load(tmp_path: Path, content: bytes) -> None:
    """Callers that keep their connections, send as fast as they can, and go away when told to: not one is failed."""
    slow = {"inputs": [{"name": "n", "shape": [1], "datatype": "INT64", "data": [2000]}]}
    body = BODY if content == classifier() else json.dumps(slow)
    with serving(tmp_path, content) as server:
        results: Counter[str] = Counter()
        told: list[bool] = []
        lock = threading.Lock()

        def caller() -> None:
            connection = server.connect()
            try:
                while True:
                    connection.request("POST", INFER, body)
                    response = connection.getresponse()
                    response.read()
                    with lock:
                        results[str(response.status)] += 1
                    if response.getheader("connection") == "close":
                        told.append(True)
                        return
            except (OSError, http.client.HTTPException) as error:
                with lock:
                    results[type(error).__name__] += 1

        callers = [threading.Thread(target=caller) for _ in range(16)]
        for thread in callers:
            thread.start()
        wait_until(lambda: results["200"] > 100, "load")
        assert server.stop() == 0
        for thread in callers:
            thread.join(10)
        assert set(results) == {"200"}
        assert len(told) == len(callers)
        assert "requests_cut_off=0" in server.log.read_text()


def test_accepted_requests_are_answered_after_sigterm(tmp_path: Path) -> None:
    with serving(tmp_path, loop()) as server:
        body = json.dumps({"inputs": [{"name": "n", "shape": [1], "datatype": "INT64", "data": [50_000]}]}).encode()
        answers: list[int] = []
        thread = threading.Thread(target=lambda: answers.append(server.infer(body).status))
        thread.start()
        half = socket.create_connection(("127.0.0.1", server.port), timeout=20)  # a request half sent
        half.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:10])
        wait_until(lambda: metric(server, "requests_in_flight") == 2, "in flight")
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "draining" in server.log.read_text(), "draining")
        assert server.get("/v2/health/ready").status == 200  # whoever still asks is still served
        half.sendall(body[10:])
        head = half.recv(65536)
        thread.join(20)
        assert answers == [200]
        assert head.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in head
        assert server.process.wait(20) == 0


def test_drain_has_an_end(tmp_path: Path) -> None:
    with serving(tmp_path, loop(), "--drain-timeout", "1") as server:
        body = json.dumps({"inputs": [{"name": "n", "shape": [1], "datatype": "INT64", "data": [10**12]}]}).encode()
        answers: list[int] = []
        thread = threading.Thread(target=lambda: answers.append(server.infer(body).status))
        thread.start()
        wait_until(lambda: metric(server, "requests_in_flight") == 1, "in flight")
        assert server.stop(4) == 0
        assert "requests_cut_off=1" in server.log.read_text()
        thread.join(5)
        assert answers == [503]


def metric(server: Server, name: str) -> float:
    found = re.search(rf"^slipway_server_{name} (\S+)$", server.get("/metrics").body.decode(), re.MULTILINE)
    assert found, name
    return float(found[1])


def test_sigterm_before_anything(tmp_path: Path) -> None:
    with serving(tmp_path, loop(10**12), wait="") as server:
        server.wait_listening()
        assert server.stop(5) == 0
