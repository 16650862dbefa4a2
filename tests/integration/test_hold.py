"""Requests for a model without pods wait in a real router, asked of real activators; only the pods are made up."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import aiohttp
import grpc
import grpc.aio
import pytest
from aiohttp import web
from tests.integration.test_meter import MODEL, NAMESPACE, Watched
from tests.ports import free_port

from slipway.activator.asks import Asks, serve
from slipway.activator.metrics import Metrics
from slipway.activator.pods import Pods
from slipway.activator.waiting import Waiting
from slipway.activator.waker import Waker
from slipway.core import holding
from slipway.kube.store import Store
from slipway.manifests import labels

SECONDS = 60.0
POD = "127.0.0.1"


class Activator:
    """One activator on a port of this machine; `wakes` are what it wrote."""

    def __init__(self, held_max: int = 1000, bytes_max: int = 1 << 30) -> None:
        self._store = Store()
        self.pods, self.wakes = Pods(self._store), list[dict[str, Any]]()
        self.waiting = Waiting(self.pods.ready, held_max, bytes_max)
        self._asks = Asks(self.pods, self.waiting, Waker(cast("Any", self)), Metrics(lambda: 0, lambda: 0))
        self._runner: web.ServerRunner | None = None
        self._version = 0

    async def apply(self, obj: dict[str, Any], *, status: bool, manager: str) -> None:
        """Stand for the API server."""
        self.wakes.append(obj)

    async def listen(self, port: int) -> None:
        self._runner = await serve(self._asks, port)

    async def kill(self) -> None:
        """Cut all its connections, and listen no more."""
        assert self._runner is not None
        for site in list(self._runner.sites):
            await site.stop()
        server = self._runner.server
        assert server is not None
        for connection in list(server.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await self._runner.cleanup()

    def pod(self, address: str = POD, *, ready: bool = True, going: bool = False) -> None:
        """Tell of a pod, as the watch does."""
        self._version += 1
        metadata: dict[str, Any] = {"name": f"pod-{address}", "namespace": NAMESPACE, "uid": address}
        metadata |= {"resourceVersion": str(self._version), "labels": labels.model_labels("m", MODEL)}
        if going:
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        status = {"podIP": address, "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}
        obj = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status}
        self._store.put(obj)
        revision = self.pods.notice(obj)
        assert revision is not None
        self.waiting.release(revision)


class Model:
    """A pod of the model: it tells how long the body was, and what it was told beside."""

    def __init__(self) -> None:
        self.port, self.headers = free_port(), list[dict[str, str]]()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, POD, self.port).start()
        yield
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.headers.append(dict(request.headers))
        body = await request.read()
        await asyncio.sleep(0.005)
        return web.json_response(len(body))


class Zero(Watched):
    """A router whose model has no pod, its activator, and the pod that there will be."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, activator: Activator | None = None) -> None:
        super().__init__(folder, 1, monkeypatch)
        (self.router,) = self.routers
        self.activator, self.model = activator or Activator(), Model()
        self.port = free_port()
        self.router.activator, self.router.timeout_seconds = f"127.0.0.1:{self.port}", SECONDS
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    @asynccontextmanager
    async def asleep(self, *, pods: bool = True) -> AsyncIterator[None]:
        """Run it all; `pods` false: but for the pod."""
        self.router.held_port = self.model.port
        await self.activator.listen(self.port)
        async with self.model.serving() if pods else nullcontext(), self.running({MODEL: 0}), self.session:
            yield
        await self.activator.kill()

    def post(self, body: Any = b"x", **headers: str) -> asyncio.Task[tuple[int, str, str]]:
        """Send a request. Answer its status, body and Retry-After."""

        async def send() -> tuple[int, str, str]:
            url = f"http://{self.router.address}:{self.router.port}/"
            async with self.session.post(url, data=body, headers={"host": MODEL, **headers}) as answer:
                return answer.status, await answer.text(), answer.headers.get("retry-after", "")

        return asyncio.create_task(send())

    async def wait(self, count: int) -> None:
        """Wait until so many requests wait."""
        await self.until(lambda: self.activator.waiting.count == count)


async def test_requests_wait_for_a_first_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zero = Zero(tmp_path, monkeypatch)
    async with zero.asleep():
        zero.activator.pod(ready=False)
        zero.activator.pod(ready=False, going=True)
        held = [zero.post() for _ in range(200)]
        await zero.wait(200)
        woken = {(obj["metadata"]["name"], *obj["status"]) for obj in zero.activator.wakes}
        assert woken == {(MODEL, "activation")}
        await zero.until(lambda: zero.figures().in_flight == 200)
        assert zero.meter.routers(NAMESPACE)[0].healthy.get(MODEL, 0) == 0, "where requests wait is no pod of the revision"
        zero.activator.pod()
        assert set(await asyncio.gather(*held)) == {(200, "1", "")}
        counted = await zero.counted(200)
        assert (counted.requests, counted.errors) == (200, 0)


async def test_bodies_wait_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zero, mebibyte = Zero(tmp_path, monkeypatch), 1024 * 1024

    async def stream() -> AsyncIterator[bytes]:
        for _ in range(24):
            yield b"y" * mebibyte

    async with zero.asleep():
        held = [zero.post(b"x" * 24 * mebibyte), zero.post(stream())]
        await zero.wait(2)
        zero.activator.pod()
        assert await asyncio.gather(*held) == [(200, str(24 * mebibyte), "")] * 2


async def test_a_stream_of_grpc_waits_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zero = Zero(tmp_path, monkeypatch)

    async def echo(asked: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        async for message in asked:
            yield message

    async def messages() -> AsyncIterator[bytes]:
        for number in range(5):
            yield bytes([number]) * 100_000

    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(echo)  # pyright: ignore[reportArgumentType] - asynchronous, as aio takes it
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("x.X", {"Echo": handler}),))
    async with zero.asleep():
        zero.router.held_port = server.add_insecure_port(f"{POD}:0")
        zero.router.write({MODEL: 0})
        await server.start()
        options = [("grpc.default_authority", MODEL)]
        async with grpc.aio.insecure_channel(f"{zero.router.address}:{zero.router.port}", options=options) as channel:
            answers = channel.stream_stream("/x.X/Echo")(messages(), timeout=SECONDS, wait_for_ready=True)
            await zero.wait(1)
            zero.activator.pod()
            assert [len(answer) async for answer in answers] == [100_000] * 5
        await server.stop(None)


async def test_what_is_beyond_a_limit_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zero = Zero(tmp_path, monkeypatch, Activator(held_max=3, bytes_max=10 * 1024 * 1024))
    async with zero.asleep():
        held = [zero.post(b"x" * 8 * 1024 * 1024), zero.post(b"x" * 3 * 1024 * 1024)]
        await zero.wait(2)
        status, text, retry_after = await zero.post(b"x" * 8 * 1024 * 1024)
        assert (status, retry_after) == (503, "5")
        assert "all the memory" in text
        held.append(zero.post())
        await zero.wait(3)
        status, text, retry_after = await zero.post()
        assert (status, retry_after, text.startswith('{"error":"3 requests wait for a pod of')) == (503, "5", True), text
        held.pop().cancel()
        await zero.wait(2)  # who hangs up leaves its place
        zero.activator.pod()
        assert {status for status, _, _ in await asyncio.gather(*held)} == {200}


async def test_no_request_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zero = Zero(tmp_path, monkeypatch)
    zero.router.timeout_seconds = 1.0
    async with zero.asleep():
        status, text, retry_after = await zero.post()
        assert (status, retry_after) == (503, "5"), text
        assert f"no pod of {MODEL} was ready within 0.9 s" in text


async def test_callers_cannot_choose_whom_they_wake_nor_where_they_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zero = Zero(tmp_path, monkeypatch)
    async with zero.asleep():
        evil = {holding.HELD: "other/other/other-a/80/9/-", holding.ENDPOINT: "127.0.0.9:9"}
        held = zero.post(**evil)
        await zero.wait(1)
        assert [obj["metadata"]["namespace"] for obj in zero.activator.wakes] == [NAMESPACE]
        zero.activator.pod()
        assert (await held)[0] == 200
        assert zero.model.headers[0][holding.ENDPOINT] == f"{POD}:{zero.model.port}"


@pytest.mark.parametrize("how", ["leaves", "killed"])
async def test_another_activator_takes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    zero, other = Zero(tmp_path, monkeypatch), Activator()
    async with zero.asleep():
        held = [zero.post(b"x" * 1_000_000) for _ in range(40)]
        await zero.wait(40)
        if how == "leaves":
            zero.activator.waiting.leave()
        await zero.activator.kill()
        zero.activator = other
        await other.listen(zero.port)  # as the Service does: the same address leads to it
        await zero.wait(40)
        other.pod()
        assert Counter(status for status, _, _ in await asyncio.gather(*held)) == {200: 40}


async def test_without_an_activator_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zero = Zero(tmp_path, monkeypatch)
    async with zero.asleep():
        await zero.activator.kill()
        status, text, retry_after = await zero.post()
        assert (status, retry_after) == (503, "5")
        assert "nobody to hold requests" in text
        await zero.activator.listen(zero.port)


async def test_a_pod_that_is_well_takes_all_and_one_that_has_gone_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The router still knows a pod that has gone: connections to it fail, and the request waits for the next one."""
    zero = Zero(tmp_path, monkeypatch)
    async with zero.asleep(pods=False):
        async with zero.model.serving():
            zero.router.write({MODEL: zero.model.port})
            await zero.until(lambda: zero.meter.routers(NAMESPACE)[0].healthy.get(MODEL, 0) == 1)
            assert {(await zero.post())[0] for _ in range(50)} == {200}
            assert not zero.activator.wakes
        held = zero.post()
        await zero.wait(1)
        async with zero.model.serving():
            zero.activator.pod()
            assert (await held)[0] == 200
