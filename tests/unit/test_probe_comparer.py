"""The comparer: what it takes and drops, whom it asks what, and that it neither grows, nor waits, nor tells of a request."""

import asyncio
import gzip
import http.client
import json
import logging
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import generate_latest
from tests.ports import free_port
from tests.unit.server.support import ROOT, Server, serving, wait_until
from yarl import URL

from slipway.core.agreement import Rule
from slipway.probe import comparer as comparer_module
from slipway.probe.comparer import PARALLEL, Comparer, serve
from slipway.probe.counts import Counts, Told, read
from slipway.probe.pairs import BODY_MAX, Pairs, Targets, open_session

INFER = "/v2/models/m/infer"
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


async def eventually(holds: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)
    assert holds(), what


@dataclass
class Model:
    """A model server that answers as told, and remembers what it was asked."""

    answer: Handler
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list[Any])
    url: str = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append((request.method, request.raw_path, headers, await request.read()))
        return await self.answer(request)


def says(value: Any, status: int = 200, **headers: str) -> Handler:
    named = {name.replace("_", "-"): held for name, held in headers.items()}

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, body=value if isinstance(value, bytes) else json.dumps(value).encode(), headers=named)

    return answer


class World:
    """A comparer with its two models."""

    def __init__(
        self, comparer: Comparer, counts: Counts, session: aiohttp.ClientSession, stable: Model, candidate: Model
    ) -> None:
        self.comparer, self.counts, self.stable, self.candidate = comparer, counts, stable, candidate
        self.session, self.port = session, 0

    @property
    def told(self) -> Told:
        return read(self.metrics)

    @property
    def metrics(self) -> str:
        return generate_latest(self.counts.registry).decode()

    async def copy(self, body: bytes | Any = b"{}", path: str = INFER, method: str = "POST", **headers: str) -> int:
        url = URL(f"http://127.0.0.1:{self.port}{path}", encoded=True)
        named = {name.replace("_", "-"): held for name, held in headers.items()}
        async with self.session.request(method, url, data=body, headers=named) as answer:
            assert await answer.read() == b""
            return answer.status

    async def compared(self, count: int) -> Told:
        def done() -> bool:
            told = self.told
            return told.agreed + told.disagreed + sum(told.not_compared.values()) >= count

        await eventually(done, f"{count} compared")
        return self.told


@asynccontextmanager
async def comparing_here(stable: Model, candidate: Model, rule: Rule) -> AsyncIterator[World]:
    """A comparer in this process, so that its parts can be looked at."""
    counts = Counts("m-a", "m-b")
    targets = Targets(stable.url, candidate.url, "m-preview.ns", "m-b")
    async with open_session(PARALLEL) as session, aiohttp.ClientSession(auto_decompress=False) as routers:
        found = World(Comparer(Pairs(session, targets, rule, 1.0), counts), counts, routers, stable, candidate)
        found.port = free_port()
        copies = await serve(found.comparer, found.port)
        running = asyncio.create_task(found.comparer.run())
        yield found
        running.cancel()
        await asyncio.wait({running})
        await copies.cleanup()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    stable, candidate = Model(says([1.0])), Model(says([1.0]))
    runners: list[web.ServerRunner] = []
    for model in (stable, candidate):
        runner = web.ServerRunner(web.Server(model.handle, access_log=None, auto_decompress=False), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        runners.append(runner)
        model.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with comparing_here(stable, candidate, Rule(0.01)) as found:
        yield found
    for runner in runners:
        await runner.cleanup()


async def test_both_are_asked_what_the_caller_asked(world: World) -> None:
    body = gzip.compress(b'{"inputs": []}')
    status = await world.copy(
        body,
        f"{INFER}?a=%2Fb",
        Host="churn.shop-shadow",
        Content_Encoding="gzip",
        Cookie="session=1",
        Inference_Header_Content_Length="3",
        Accept_Encoding="gzip",
        X_Envoy_Expected_Rq_Timeout_Ms="1",
        X_Forwarded_For="192.0.2.1",
        Authorization="Bearer x",
    )
    assert status == 202
    told = await world.compared(1)
    assert (told.agreed, told.stable, told.candidate) == (1, "m-a", "m-b")
    (theirs,), (its,) = world.stable.asked, world.candidate.asked
    assert theirs == its
    method, path, headers, sent = its
    assert (method, path, sent) == ("POST", f"{INFER}?a=%2Fb", body)
    assert headers["host"] == "m-preview.ns", "that a router leads it to the candidate alone"
    assert headers["authorization"] == "Bearer x"
    assert headers["cookie"] == "session=1"
    assert headers["content-encoding"] == "gzip"
    assert headers["inference-header-content-length"] == "3"
    assert not [name for name in headers if name.startswith(("x-envoy-", "x-forwarded-", "accept-encoding"))]


@pytest.mark.parametrize(
    ("stable", "candidate", "expected"),
    [
        (says([1.0]), says([1.005]), {"agreed": 1}),
        (says([1.0]), says([1.5]), {"disagreed": 1}),
        (says([1.0]), says({}, 500), {"disagreed": 1}),
        (says([1.0]), says({}, 503, x_slipway_revision="m-b"), {"disagreed": 1}),
        (says({}, 500), says([1.0]), {"failed": 1}),
        (says([1.0]), says([1.0], x_slipway_revision="m-b"), {"agreed": 1}),
        (says([1.0]), says([1.0], x_slipway_revision="m-c"), {"misrouted": 1}),
        (says([1.0]), says(b"", 404), {"misrouted": 1}),
        (says([1.0]), says(b"", 404, x_slipway_revision="m-b"), {"disagreed": 1}),
        (says([1.0]), says([1.0], 302, location="/x"), {"disagreed": 1}),
        (says([1.0], content_encoding="gzip"), says([1.0]), {"encoded": 1}),
        (says(b" " * (BODY_MAX + 1)), says([1.0]), {"too_large": 1}),
        (says([1.0]), says(b" " * (BODY_MAX + 1)), {"disagreed": 1}),
        (says([1.0], inference_header_content_length="x"), says([1.0]), {"agreed": 1}),
    ],
)
async def test_what_the_answers_come_to(world: World, stable: Handler, candidate: Handler, expected: dict[str, int]) -> None:
    world.stable.answer, world.candidate.answer = stable, candidate
    await world.copy()
    told = await world.compared(1)
    found = {"agreed": told.agreed, "disagreed": told.disagreed, **told.not_compared}
    assert {name: count for name, count in found.items() if count} == expected


async def test_silence_is_no_answer_and_holds_nobody(world: World) -> None:
    gone = asyncio.Event()

    async def hang(_: web.BaseRequest) -> web.StreamResponse:
        await gone.wait()
        return web.Response()

    world.candidate.answer = hang
    world.comparer._pairs._timeout = aiohttp.ClientTimeout(total=0.3)
    assert await world.copy() == 202
    await eventually(lambda: bool(world.candidate.asked), "asked")
    assert not world.told.not_compared
    told = await world.compared(1)
    assert told.not_compared == {"unanswered": 1}
    gone.set()


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"method": "GET"}, "method"),
        ({"path": "/v2/models/m/versions/3/infer"}, "path"),
        ({"path": "/v2/models/m"}, "path"),
        ({"path": "/v1/chat/completions"}, "path"),
        ({"content_type": "application/grpc+proto"}, "grpc"),
        ({"x_slipway_compare": "1"}, "own"),
        ({"body": b"x" * (BODY_MAX + 1)}, "too_large"),
    ],
)
async def test_what_is_not_compared_is_dropped_and_counted(world: World, request_: dict[str, Any], reason: str) -> None:
    assert await world.copy(**request_) == 202
    assert world.told.dropped == {reason: 1}
    assert await world.copy(path="/v1/models/m:predict") == 202
    await world.compared(1)
    assert len(world.stable.asked) == len(world.candidate.asked) == 1


async def test_a_long_body_of_no_known_length_is_dropped(world: World) -> None:
    async def long() -> AsyncIterator[bytes]:
        for _ in range(BODY_MAX // 65536 + 1):
            yield b"x" * 65536

    assert await world.copy(long()) == 202
    assert world.told.dropped == {"too_large": 1}
    assert world.comparer._taken == world.comparer._held_bytes == 0


async def test_http2_is_refused_and_counted(world: World) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
    assert (await reader.read()).startswith(b"HTTP/1.")
    writer.close()
    assert world.told.dropped == {"unreadable": 1}


async def test_whoever_leaves_in_the_middle_leaves_nothing(world: World) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(f"POST {INFER} HTTP/1.1\r\nhost: m\r\ncontent-length: 1000\r\n\r\nabc".encode())
    await eventually(lambda: world.comparer._taken == 1, "taken")
    writer.close()
    await eventually(lambda: world.comparer._taken == 0, "let go")
    assert world.told.dropped == {"cut_off": 1}
    assert world.comparer._held_bytes == 0


async def test_it_takes_so_much_and_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparer_module, "_TAKEN_MAX", 20)
    go = asyncio.Event()

    async def wait(_: web.BaseRequest) -> web.StreamResponse:
        await go.wait()
        return web.json_response([1.0])

    world.stable.answer = wait
    for _ in range(30):
        assert await world.copy() == 202
    assert world.told.dropped == {"queue_full": 10}
    assert len(world.stable.asked) <= PARALLEL
    go.set()
    assert (await world.compared(20)).agreed == 20
    monkeypatch.setattr(comparer_module, "_HELD_BYTES_MAX", 100)
    await world.copy(b"x" * 101)
    assert world.told.dropped == {"queue_full": 11}
    assert world.comparer._taken == world.comparer._held_bytes == 0


async def test_what_is_taken_is_finished_and_no_more_is_taken(world: World) -> None:
    go = asyncio.Event()

    async def wait(_: web.BaseRequest) -> web.StreamResponse:
        await go.wait()
        return web.json_response([1.0])

    world.stable.answer = wait
    for _ in range(PARALLEL + 3):
        await world.copy()
    draining = asyncio.create_task(world.comparer.drain(10))
    await asyncio.sleep(0)
    assert await world.copy() == 202
    assert world.told.dropped == {"draining": 1}
    assert not draining.done()
    go.set()
    await draining
    assert world.told.agreed == PARALLEL + 3


async def test_a_bug_ends_one_pair_and_not_the_work(world: World, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("secret")

    with monkeypatch.context() as patched:
        patched.setattr(world.comparer._pairs, "compare", broken)
        for _ in range(PARALLEL + 1):
            await world.copy()
        assert (await world.compared(PARALLEL + 1)).not_compared == {"error": PARALLEL + 1}
    await world.copy()
    assert (await world.compared(PARALLEL + 2)).agreed == 1
    assert "secret" not in caplog.text


async def test_nothing_of_a_request_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "hunter2"  # noqa: S105 - it must not be told
    world.candidate.answer = says([secret])
    await world.copy(secret.encode(), f"{INFER}?{secret}", Authorization=secret)
    await world.copy(secret.encode(), f"/{secret}")
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(f"{secret}\r\n\r\n".encode())
    await reader.read()
    writer.close()
    await world.compared(1)
    assert world.told.dropped == {"path": 1, "unreadable": 1}
    assert secret not in world.metrics
    assert not [record for record in caplog.records if secret in record.getMessage() or secret in str(record.exc_info)]


async def test_differences_are_counted(world: World) -> None:
    for value in (1.0, 1.005, 1.5, "x"):
        world.candidate.answer = says([value])
        count = world.told.agreed + world.told.disagreed + 1
        await world.copy()
        await world.compared(count)
    told = world.told
    assert (told.agreed, told.disagreed) == (2, 2)
    assert told.largest_difference == pytest.approx(1 / 3)
    buckets = dict(re.findall(r'slipway_compare_difference_bucket\{le="([^"]+)"\} (\S+)', world.metrics))
    assert (buckets["0.0"], buckets["0.01"], buckets["1.0"], buckets["+Inf"]) == ("1.0", "2.0", "3.0", "4.0")


# --- the real program, and the real server ----------------------------------------------------------------------------


@dataclass
class Program:
    process: "subprocess.Popen[bytes]"
    port: int
    metrics_port: int

    def told(self) -> Told:
        return read(self.get("/metrics").decode())

    def get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=10)
        connection.request("GET", path)
        return connection.getresponse().read()

    def copy(self, body: bytes, headers: Mapping[str, str] | None = None, path: str = INFER) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("POST", path, body, dict(headers or {}))
        assert connection.getresponse().status == 202
        connection.close()

    def compared(self, count: int) -> Told:
        wait_until(lambda: self._all() >= count, f"{count} compared")
        assert self._all() == count
        return self.told()

    def _all(self) -> int:
        told = self.told()
        return told.agreed + told.disagreed + sum(told.not_compared.values())


@contextmanager
def comparing(stable: str, candidate: str, *flags: str) -> Iterator[Program]:
    """The comparer as its pod runs it."""
    port, metrics_port = free_port(), free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "slipway", "compare", "--stable", stable, "--stable-revision", "m-a", "--candidate", candidate,
         "--candidate-host", "m-preview.ns", "--candidate-revision", "m-b", "--port", str(port),
         "--metrics-port", str(metrics_port), *flags],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "operator")}, stderr=subprocess.PIPE,
    )  # fmt: skip
    program = Program(process, port, metrics_port)

    def ready() -> bool:
        assert process.poll() is None, process.stderr and process.stderr.read()
        try:
            return program.get("/readyz") == b"ok\n"
        except OSError:
            return False

    try:
        wait_until(ready, "the comparer is ready")
        yield program
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def iris() -> dict[str, bytes]:
    """Classifiers of irises as ONNX: one, one trained a little otherwise, and one that has the classes mixed up."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    rows, classes = load_iris(return_X_y=True)
    rows = rows.astype("float32")
    trained = {"a": (1.0, classes), "near": (1.001, classes), "other": (1.0, (classes + 1) % 3)}
    return {
        name: to_onnx(
            LogisticRegression(C=strength, max_iter=5000, tol=1e-8).fit(rows, told), rows[:1], options={"zipmap": False}
        ).SerializeToString()
        for name, (strength, told) in trained.items()
    }


IRISES = [[5.1, 3.5, 1.4, 0.2], [6.0, 2.9, 4.5, 1.5], [6.3, 3.3, 6.0, 2.5]]


def ask(name: str) -> tuple[bytes, dict[str, str], str]:
    """Answer the same request in each of the protocols: body, headers, path."""
    tensor = {"name": "X", "datatype": "FP32", "shape": [3, 4]}
    if name == "V1":
        return json.dumps({"instances": IRISES}).encode(), {}, "/v1/models/m:predict"
    if name == "V2":
        return json.dumps({"id": "x", "inputs": [{**tensor, "data": IRISES}]}).encode(), {}, INFER
    raw = struct.pack("<12f", *(value for row in IRISES for value in row))
    inputs = [{**tensor, "parameters": {"binary_data_size": len(raw)}}]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    return head + raw, {"Inference-Header-Content-Length": str(len(head))}, INFER


@pytest.fixture(scope="module")
def servers(iris: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    folder = tmp_path_factory.mktemp
    with (
        serving(folder("a"), iris["a"], "--revision", "m-a", "--version", "1") as a,
        serving(folder("near"), iris["near"], "--revision", "m-b", "--version", "2") as near,
        serving(folder("other"), iris["other"], "--revision", "m-b", "--version", "2") as other,
    ):
        yield {"a": a, "near": near, "other": other}


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    ("candidate", "rule", "agrees"),
    [
        ("near", Rule(0.01), True),
        ("near", Rule(0.0), False),
        ("near", Rule(labels=True), True),
        ("other", Rule(0.01), False),
        ("other", Rule(labels=True), False),
    ],
)
async def test_real_models_of_the_real_server(servers: dict[str, Server], candidate: str, rule: Rule, agrees: bool) -> None:
    models = (Model(says(None), url=url(servers[name])) for name in ("a", candidate))
    async with comparing_here(*models, rule) as world:
        for protocol in ("V2", "V1", "binary"):
            body, headers, path = ask(protocol)
            await world.copy(body, path, **headers)
        told = await world.compared(3)
        assert (told.agreed, told.disagreed) == ((3, 0) if agrees else (0, 3))
        if candidate == "near" and not rule.labels:
            assert 0 < told.largest_difference < 0.01
        await world.copy(b"{}")  # both refuse it
        assert (await world.compared(4)).not_compared == {"failed": 1}


def test_the_real_program(servers: dict[str, Server]) -> None:
    with comparing(url(servers["a"]), url(servers["near"]), "--labels") as program:
        for protocol in ("V2", "V1", "binary"):
            program.copy(*ask(protocol))
        told = program.compared(3)
        assert (told.agreed, told.disagreed, told.stable, told.candidate) == (3, 0, "m-a", "m-b")


async def test_sigterm_finishes_what_was_taken(world: World) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def wait(_: web.BaseRequest) -> web.StreamResponse:
        asked.set()
        await go.wait()
        return web.json_response([1.0])

    world.candidate.answer = wait
    with comparing(world.stable.url, world.candidate.url) as program:
        await asyncio.to_thread(program.copy, b"{}")
        await asked.wait()
        program.process.send_signal(signal.SIGTERM)
        await eventually(lambda: program.get("/readyz") == b"not yet\n", "it is no longer ready")
        assert program.told().agreed == 0
        go.set()
        assert await asyncio.to_thread(program.process.wait, 10) == 0


def test_it_runs_without_the_operators_shell() -> None:
    names = "kopf", "kubernetes", "slipway.app"
    code = f"import sys; import slipway.probe.command; print([name for name in {names!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "operator")}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--tolerance", "3"], "3 is no tolerance"),
        (["--paths", "("], "not a regular expression"),
        (["--labels", "--tolerance", "1"], "not allowed with"),
        ([], "required: --stable, --stable-revision"),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags: list[str], says: str, capsys: Any) -> None:
    from slipway.probe.command import parse

    needed = ["--stable=a", "--stable-revision=a", "--candidate=b", "--candidate-host=b", "--candidate-revision=b"]
    with pytest.raises(SystemExit):
        parse([*(needed if flags else []), *flags])
    assert says in capsys.readouterr().err


def test_other_metrics_are_not_a_comparers() -> None:
    for text in ("", "up 1\n", "slipway_compare_started_seconds 1\n"):
        with pytest.raises(ValueError, match="no comparer's metrics"):
            read(text)
