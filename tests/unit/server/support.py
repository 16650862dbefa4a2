"""Real processes of the server's commands, and small ONNX models, for the tests beside this file."""

import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

ROOT = Path(__file__).resolve().parents[3]
INFER = "/v2/models/m/infer"


def environment(**extra: str) -> dict[str, str]:
    """What a container has, no more: no CI variable for a library to behave differently under."""
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(ROOT / "serving-image"), **extra}


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.01)


# --- models -----------------------------------------------------------------------------------------------------------

Dims = list[int | str | None]


def model(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Dims]],
    outputs: Mapping[str, tuple[int, Dims]],
    constants: list[onnx.TensorProto] | None = None,
    opset: int = 17,
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, dims) for name, (kind, dims) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, dims) for name, (kind, dims) in outputs.items()],
        constants or [],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9).SerializeToString()


def classifier() -> bytes:
    """x FP32 [N,4] -> label INT64 [N] (the place of the largest value), double FP32 [N,4] (2x)."""
    return model(
        [
            helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
            helper.make_node("Add", ["x", "x"], ["double"]),
        ],
        {"x": (TensorProto.FLOAT, ["N", 4])},
        {"label": (TensorProto.INT64, ["N"]), "double": (TensorProto.FLOAT, ["N", 4])},
    )


def identity(kind: int, dims: Dims) -> bytes:
    return model([helper.make_node("Identity", ["x"], ["y"])], {"x": (kind, dims)}, {"y": (kind, dims)})


def loop(fixed_iterations: int | None = None) -> bytes:
    """n INT64 [1] -> y FP32 [64,64]: n products of matrices, about 10 us each; n is a constant where given."""
    size = 64
    iterations = [] if fixed_iterations is None else [helper.make_tensor("n", TensorProto.INT64, [1], [fixed_iterations])]
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["m_in", "m_in"], ["squared"]),
            helper.make_node("Mul", ["squared", "zero"], ["m_out"]),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("m_in", TensorProto.FLOAT, [size, size]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("m_out", TensorProto.FLOAT, [size, size]),
        ],
    )
    return model(
        [
            helper.make_node("Squeeze", ["n"], ["trips"]),
            helper.make_node("Loop", ["trips", "go", "m"], ["y"], body=body),
        ],
        {} if iterations else {"n": (TensorProto.INT64, [1])},
        {"y": (TensorProto.FLOAT, [size, size])},
        [
            *iterations,
            helper.make_tensor("go", TensorProto.BOOL, [], [True]),
            helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
            helper.make_tensor("m", TensorProto.FLOAT, [size, size], [0.5] * size * size),
        ],
    )


# --- processes --------------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """A running `serve`; use `serving`, which ends it."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self.process = process
        self.log = log
        self.port = 0

    def wait_listening(self) -> None:
        def listening() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            found = re.search(r'listening.* \"?port(?:=|": )(\d+)', self.log.read_text())
            self.port = int(found[1]) if found else 0
            return bool(found)

        wait_until(listening, "listening")

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.get("/v2/health/ready").status == 200

        wait_until(ready, "ready")

    def connect(self, timeout: float = 30.0) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        connection = self.connect()
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def infer(self, body: Any, path: str = INFER, **headers: str) -> Answer:
        return self.ask("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode(), headers)

    def raw(self, data: bytes, seconds: float = 10.0) -> bytes:
        """Sends bytes on a connection of their own; everything that comes back until the server closes it."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            connection.sendall(data)
            received = b""
            while piece := connection.recv(65536):
                received += piece
            return received

    def stop(self, seconds: float = 15.0) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def workers(self) -> list[int]:
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def memory_bytes(self) -> int:
        """Of the workers."""
        pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.workers())
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def serving(
    folder: Path, content: bytes, *flags: str, wait: str = "ready", name: str = "model.onnx", **env: str
) -> Iterator[Server]:
    """A server of the model `content`, ready (or only listening, or only started); killed at the end."""
    models = folder / "models"
    (models / name).parent.mkdir(parents=True, exist_ok=True)
    (models / name).write_bytes(content)
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "slipway_server", "serve", "--model-dir", models, "--name", "m", "--version", "3",
             "--revision", "m-7f9c", "--host", "127.0.0.1", "--port", "0", *flags],
            stdout=output, stderr=output, text=True,
            env=environment(SLIPWAY_TERMINATION_LOG=str(folder / "termination"), **env),
        )  # fmt: skip
    server = Server(process, log)
    try:
        if wait in ("ready", "listening"):
            server.wait_listening()
        if wait == "ready":
            server.wait_ready()
        yield server
    finally:
        process.kill()
        process.wait()


@dataclass
class Outcome:
    code: int
    termination: str
    output: str

    @property
    def reason(self) -> str:
        return self.termination.partition(":")[0]


# The retries of a download without their seconds of waiting.
IMPATIENT = (
    "import sys; from slipway_server.sources import retries; retries.BACKOFF_SECONDS = 0.01; "
    "from slipway_server.cli import main; main()"
)


def run(folder: Path, *arguments: object, **env: str) -> Outcome:
    """Runs a command of the server to its end."""
    termination = folder / "termination"
    termination.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", IMPATIENT, *map(str, arguments)],
        capture_output=True, text=True, timeout=60, check=False,
        env=environment(SLIPWAY_TERMINATION_LOG=str(termination), **env),
    )  # fmt: skip
    text = termination.read_text() if termination.exists() else ""
    if text:  # the contract: one line, of a failure on stderr too
        assert done.returncode == 0 or done.stderr.splitlines()[-1] == text
        assert re.fullmatch(r"[A-Z][A-Za-z]+: \S.*", text), text
        assert len(text.encode()) <= 4096
    return Outcome(done.returncode, text, done.stdout + done.stderr)


# --- fetched models ---------------------------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def fetched(tmp_path: Path, name: str = "model.onnx") -> bytes:
    names = sorted(entry.name for entry in (tmp_path / "models").iterdir())
    assert names == ["fetched.json", name]
    return (tmp_path / "models" / name).read_bytes()


def nothing_fetched(tmp_path: Path) -> bool:
    folder = tmp_path / "models"
    return not folder.exists() or not list(folder.iterdir())
