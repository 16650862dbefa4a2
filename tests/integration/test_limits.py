"""What is beyond a limit is refused by a real router and is no error; a limit that changes cuts nothing."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import pytest
from tests.integration.routers import Router
from tests.integration.test_meter import MODEL, Watched, ask

OTHER = "n-bcdfghjk"


class Gate:
    """A server that answers nobody until it is opened."""

    def __init__(self) -> None:
        self.port, self.waiting, self.open = 0, 0, asyncio.Event()

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None]:
        """Serve HTTP/1.1."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while await reader.readuntil(b"\r\n\r\n"):
                    self.waiting += 1
                    await self.open.wait()
                    self.waiting -= 1
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            finally:
                writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield


async def _said(router: Router, statistic: str) -> str:
    url = f"http://{router.address}:{router.stats_port}/stats?filter=^{statistic}$"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return (await answer.text()).strip()


async def _flood(router: Router, many: int, host: str = MODEL) -> Counter[str]:
    return Counter(await asyncio.gather(*(ask(router, "/", host) for _ in range(many))))


async def test_what_is_beyond_a_limit_is_429_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched, gate = Watched(tmp_path, 1, monkeypatch), Gate()
    (router,) = watched.routers
    router.timeout_seconds = 60.0
    async with gate.serving(), watched.running({MODEL: gate.port, OTHER: gate.port}):
        held = [asyncio.create_task(ask(router, "/", seconds=60)) for _ in range(4)]
        await watched.until(lambda: gate.waiting == 4)
        before = await _said(router, "runtime.load_success")
        router.limits = {MODEL: 4}
        router.write({MODEL: gate.port, OTHER: gate.port})
        for _ in range(1000):
            if await _said(router, "runtime.load_success") != before:
                break
            await asyncio.sleep(0.01)
        async with (
            aiohttp.ClientSession(f"http://{router.address}:{router.port}", headers={"host": MODEL}) as session,
            session.get("/") as answer,
        ):
            assert (answer.status, answer.headers["retry-after"]) == (429, "1")
            assert "grpc-status" not in answer.headers
            assert "as many requests under way as it can answer in time" in (await answer.json())["error"]
        assert await _flood(router, 9) == {"429": 9}
        assert gate.waiting == 4, "what was under way still is"
        gate.open.set()
        assert await asyncio.gather(*held) == ["200"] * 4
        assert await _flood(router, 12, OTHER) == {"200": 12}, "one model's limit is no other's"
        assert await ask(router, "/") == "200"
        assert (await _said(router, f"cluster.{MODEL}.upstream_cx_destroy")).endswith(" 0"), "no connection was made anew"

        await watched.counted(5)
        await watched.until(lambda: watched.total().refused == 10)
        assert (watched.total().requests, watched.total().errors, watched.total().server_errors) == (5, 0, 0)
        assert (await watched.counted(12, OTHER)).refused == 0


async def test_of_grpc_a_refusal_is_resource_exhausted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched, server, opened = Watched(tmp_path, 1, monkeypatch), grpc.aio.server(), asyncio.Event()
    (router,) = watched.routers
    router.timeout_seconds, router.limits = 60.0, {MODEL: 2}

    async def answer(_: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await opened.wait()
        return b"ok"

    method = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", {"Ask": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with watched.running({MODEL: port}):
        options = [("grpc.default_authority", MODEL)]
        async with grpc.aio.insecure_channel(f"{router.address}:{router.port}", options=options) as channel:
            calls = [channel.unary_unary("/test/Ask")(b"") for _ in range(8)]
            await watched.until(lambda: sum(call.done() for call in calls) == 6)
            opened.set()
            codes = Counter([await call.code() for call in calls])
        assert codes == {grpc.StatusCode.OK: 2, grpc.StatusCode.RESOURCE_EXHAUSTED: 6}
        await watched.counted(2)
        await watched.until(lambda: watched.total().refused == 6)
        assert (watched.total().requests, watched.total().errors, watched.total().grpc_errors) == (2, 0, 0)
    await server.stop(0)
