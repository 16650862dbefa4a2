"""A real router and callers who mean it ill: it goes on serving the others, and shows them nothing that is not for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from tests.integration.routers import Router, started, upstream
from tests.ports import free_port
from yarl import URL

MODEL = "m-a"


@asynccontextmanager
async def serving(folder: Path, **changed: str) -> AsyncIterator[Router]:
    """Run a router of one model, with parts of its bootstrap changed: what takes long or very many is made small."""
    async with upstream() as (port, _):
        router = Router(folder / "router", "127.0.0.1", free_port())
        router.write({MODEL: port})
        bootstrap = router.folder / "bootstrap.json"
        text = bootstrap.read_text()
        for before, after in changed.items():
            assert before in text
            text = text.replace(before, after)
        bootstrap.write_text(text)
        async with started([router]):
            yield router


async def ask(url: str, path: str = "/", **headers: str) -> tuple[int, str]:
    """Ask once, on a connection of its own."""
    headers = {"host": f"{MODEL}.ns", **headers}
    async with aiohttp.ClientSession() as session, session.get(URL(url + path, encoded=True), headers=headers) as answer:
        return answer.status, await answer.text()


async def test_a_models_own_metrics_are_not_for_its_callers(tmp_path: Path) -> None:
    async with serving(tmp_path) as router:
        url = f"http://127.0.0.1:{router.port}"
        for path in ("/metrics", "/metrics?name=x", "/%6detrics", "/v2/../metrics"):
            status, body = await ask(url, path)
            assert status == 404, path
            assert "not for its callers" in body
        assert (await ask(url, "/403"))[0] == 403, "what a model refuses itself is the model's word"
        assert (await ask(url, "/v2"))[0] == 200


async def test_headers_are_limited(tmp_path: Path) -> None:
    async with serving(tmp_path) as router:
        url = f"http://127.0.0.1:{router.port}"
        assert (await ask(url, padding="x" * 70_000))[0] == 431
        assert (await ask(url, **{f"x-{number}": "x" for number in range(200)}))[0] == 431
        assert (await ask(url))[0] == 200


async def test_who_never_ends_his_headers_is_sent_away(tmp_path: Path) -> None:
    async with serving(tmp_path, **{'"request_headers_timeout": "10s"': '"request_headers_timeout": "0.1s"'}) as router:
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: m-a.ns\r\nx-slow: ")
        await writer.drain()
        async with asyncio.timeout(60):
            assert b" 408 " in await reader.readline()
        writer.close()


async def test_who_holds_all_connections_does_not_have_the_router_restarted(tmp_path: Path) -> None:
    few = {'"max_active_downstream_connections": 20000': '"max_active_downstream_connections": 8'}
    async with serving(tmp_path, **few) as router, aiohttp.ClientSession() as session:
        held = [await asyncio.open_connection("127.0.0.1", router.port) for _ in range(20)]
        ended = [asyncio.create_task(reader.read(1)) for reader, _ in held]
        async with asyncio.timeout(60):  # it takes no more, and the others stay
            await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
        async with session.get(f"http://127.0.0.1:{router.stats_port}/ready") as answer:
            assert answer.status == 200
        for _, writer in held:
            writer.close()
        await asyncio.gather(*ended, return_exceptions=True)
