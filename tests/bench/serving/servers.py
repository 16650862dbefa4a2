"""The servers: how each is started with one model on one core, and what it can do."""

import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import grpc
from tests.bench.processes import Process, tree, tree_cpu_seconds, tree_megabytes
from tests.bench.serving import bodies
from tests.bench.serving.cases import Case

from slipway_dev.paths import REPOSITORY, cache_folder
from slipway_dev.python import venv

_HERE = Path(__file__).parent
_START_SECONDS = 60.0
_SLIPWAY_FORMATS = {"onnx": "ONNX", "sklearn": "SKLearn", "xgboost": "XGBoost", "lightgbm": "LightGBM"}
_MLSERVER_RUNTIMES = {
    "onnx": "mlserver_onnx.OnnxRuntime",
    "sklearn": "mlserver_sklearn.SKLearnModel",
    "xgboost": "mlserver_xgboost.XGBoostModel",
    "lightgbm": "mlserver_lightgbm.LightGBMModel",
}


def cores() -> tuple[int, int]:
    """Answer the core of the server and that of the load generator. Raises RuntimeError on a machine with one."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise RuntimeError("the serving benchmark needs two cores: one for the server, one for the load generator")
    return usable[0], usable[1]


@dataclass(frozen=True)
class Ports:
    """Where a server listens; Slipway has one port for both protocols."""

    http: int
    grpc: int
    metrics: int


@dataclass(frozen=True)
class Kind:
    """One kind of server. `command` answers its arguments after the interpreter, given a case, a folder and ports."""

    name: str
    title: str
    requirements: Path
    protocols: tuple[str, ...]
    command: Callable[[Case, Path, Ports], list[str]]
    environment: dict[str, str]

    @property
    def python(self) -> Path:
        """Answer the interpreter of its own environment, made where it is not yet."""
        return _environment(self.requirements) / "bin" / "python"

    def installed_megabytes(self) -> float:
        """Answer the size of its packages, without what every environment has and without byte code."""
        (site,) = (_environment(self.requirements) / "lib").glob("python*/site-packages")
        own = [path for path in site.iterdir() if path.name.partition("-")[0] not in ("pip", "setuptools", "_distutils_hack")]
        files = (file for path in own for file in ([path] if path.is_file() else path.rglob("*")))
        return sum(file.lstat().st_size for file in files if file.is_file() and file.suffix != ".pyc") / 1e6


@cache
def _environment(requirements: Path) -> Path:
    return venv(requirements)


def _slipway(case: Case, folder: Path, ports: Ports) -> list[str]:
    where = ["--model-dir", str(case.file.parent), "--name", bodies.NAME, "--host", "127.0.0.1", "--port", str(ports.http)]
    how = ["--format", _SLIPWAY_FORMATS[case.runtime], "--workers", "1", "--threads", "1"]
    return ["-m", "slipway_server", "serve", *where, *how]


def _mlserver(batch_seconds: float = 0.0, **changes: object) -> Callable[[Case, Path, Ports], list[str]]:
    """Answer the command with the settings that were measured fastest, changed: no access log, no worker process, no gzip."""

    def command(case: Case, folder: Path, ports: Ports) -> list[str]:
        settings = {
            "debug": False,
            "gzip_enabled": False,
            "parallel_workers": 0,
            "host": "127.0.0.1",
            "http_port": ports.http,
            "grpc_port": ports.grpc,
            "metrics_port": ports.metrics,
            "metrics_dir": str(folder / "metrics"),
            **changes,
        }
        model = {
            "name": bodies.NAME,
            "implementation": _MLSERVER_RUNTIMES[case.runtime],
            "parameters": {"uri": str(case.peer_file), "version": "1"},
        }
        if batch_seconds:
            model |= {"max_batch_size": 64, "max_batch_time": batch_seconds}
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "model-settings.json").write_text(json.dumps(model))
        return ["-c", "from mlserver.cli import main; main()", "start", str(folder)]

    return command


def _kserve(case: Case, folder: Path, ports: Ports) -> list[str]:
    model = ["--runtime", case.runtime, "--file", str(case.peer_file), "--model_name", bodies.NAME]
    where = ["--http_port", str(ports.http), "--grpc_port", str(ports.grpc)]
    return [str(_HERE / "peers" / "kserve_server.py"), *model, *where, "--enable_latency_logging", "false"]


_IMAGE = REPOSITORY / "serving-image"
_PEERS = {"PYTHONPATH": str(_HERE / "peers")}


def _mlserver_kind(name: str, title: str, command: Callable[[Case, Path, Ports], list[str]]) -> Kind:
    return Kind(name, title, _HERE / "mlserver-requirements.txt", ("json", "grpc"), command, _PEERS)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("slipway", "Slipway", _IMAGE / "requirements.txt", bodies.PROTOCOLS, _slipway, {"PYTHONPATH": str(_IMAGE)}),
        _mlserver_kind("mlserver", "MLServer", _mlserver()),
        _mlserver_kind("mlserver-parallel", "MLServer, parallel_workers 1", _mlserver(parallel_workers=1)),
        _mlserver_kind("mlserver-batching", "MLServer, batching", _mlserver(0.001)),
        _mlserver_kind(
            "mlserver-released", "MLServer, as released", _mlserver(debug=True, gzip_enabled=True, parallel_workers=1)
        ),
        Kind("kserve", "KServe", _HERE / "kserve-requirements.txt", bodies.PROTOCOLS, _kserve, {"KSERVE_LOGLEVEL": "WARNING"}),
    )
}


class Target:
    """A process under load, pinned to the servers' core."""

    def __init__(self, title: str, process: Process, ports: Ports) -> None:
        self.title = title
        self.process = process
        self.ports = ports

    def cpu_seconds(self) -> float:
        """Answer the CPU time of its processes so far."""
        return tree_cpu_seconds(self.process.pid)

    def megabytes(self) -> float:
        """Answer the resident size of its processes now."""
        return tree_megabytes(self.process.pid)

    def end(self) -> None:
        """End it and what it started."""
        children = tree(self.process.pid)[1:]
        self.process.end()
        for pid in children:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


class Server(Target):
    """A server of one kind with one model: ready when this returns."""

    def __init__(self, kind: Kind, case: Case, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        numbers = free_ports(3)
        ports = Ports(numbers[0], numbers[0] if kind.name == "slipway" else numbers[1], numbers[2])
        command = pinned(kind.python, *kind.command(case, folder, ports))
        started = time.monotonic()
        super().__init__(kind.title, Process(command, folder / "log", server_environment(kind.environment)), ports)
        self.kind = kind
        self.case = case
        try:
            self._wait_ready(started + _START_SECONDS)
        except BaseException:
            self.end()
            raise
        self.ready_seconds = time.monotonic() - started

    def _wait_ready(self, deadline: float) -> None:
        while True:
            self.process.require()
            try:
                status, _, _ = self.request("GET", f"/v2/models/{bodies.NAME}/ready", b"", {}, seconds=5)
            except (OSError, http.client.HTTPException):
                status = 0
            if status == 200:
                return
            if time.monotonic() > deadline:
                tail = self.process.log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.kind.title} is not ready after {_START_SECONDS:g} s:\n{tail}")
            time.sleep(0.005)

    def request(
        self, method: str, path: str, body: bytes, headers: dict[str, str], seconds: float = 30.0
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one HTTP request; answer status, headers by lower-case name, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports.http, timeout=seconds)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def check(self, protocol: str) -> int:
        """Ask once and compare; answer the bytes of the answer's body. Raises bodies.WrongAnswerError."""
        body = bodies.make(self.case, protocol)
        try:
            if protocol != "grpc":
                status, headers, answer = self.request("POST", bodies.HTTP_PATH, body.data, body.headers)
                bodies.check_http(self.case, status, headers, answer, protocol)
                return len(answer)
            with grpc.insecure_channel(f"127.0.0.1:{self.ports.grpc}") as channel:
                call = channel.unary_unary(bodies.GRPC_PATH)  # without serialisers bytes pass as they are
                message = call(body.data[5:], timeout=30, wait_for_ready=True)
            bodies.check_grpc(self.case, message)
            return len(message)
        except (OSError, http.client.HTTPException, grpc.RpcError, bodies.WrongAnswerError) as error:
            raise bodies.WrongAnswerError(f"{self.kind.title}, {self.case.name}, {protocol}: {error}") from error


def pinned(*command: str | Path, core: int | None = None) -> list[str | Path]:
    """Answer a command on the core of the servers, or on another one."""
    return ["taskset", "-c", str(cores()[0] if core is None else core), *command]


def server_environment(own: dict[str, str] | None = None) -> dict[str, str]:
    """Answer the environment of a server: one thread a library, byte code kept where the next start finds it."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(cache_folder() / "pycache")}
    return {**os.environ, "PYTHONPATH": "", "ORT_DISABLE_TELEMETRY": "1", **compiled, **threads, **(own or {})}


def free_ports(count: int) -> list[int]:
    """Answer ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
