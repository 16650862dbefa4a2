"""Real routers without a cluster: Envoy with Slipway's own configuration on loopback, upstreams that do as the path says."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from tests.integration.commands import ROOT
from tests.ports import free_port

from slipway.core.routing import Route, RouterState, Wanted
from slipway.manifests import envoy
from slipway.settings import Settings
from slipway_dev.python import image_packages

SETTINGS = Settings(server_image="", router_image="")
TIMEOUT_SECONDS = 0.4


def binary() -> Path:
    """Answer the Envoy that the router's image holds."""
    return image_packages(ROOT / "operator" / "router-requirements.txt") / "envoy" / "_bin" / "envoy"


class Router:
    """One Envoy on an address of its own (127.0.0.N), all with the same statistics port."""

    def __init__(self, folder: Path, address: str, stats_port: int) -> None:
        self.folder, self.address, self.stats_port = folder, address, stats_port
        self.port, self._admin_port = free_port(), free_port()
        self.timeout_seconds = TIMEOUT_SECONDS
        self.limits: dict[str, int] = {}
        # Where it asks for a pod (HOST:PORT), and the port of the pods that it does not know yet.
        self.activator, self.held_port, self._hold_port = "", 8080, free_port()
        self._process: asyncio.subprocess.Process | None = None
        folder.mkdir()

    def write(self, upstreams: dict[str, int]) -> None:
        """Write the configuration: a model for each revision (by name), served at a port of 127.0.0.1; at 0 there is no pod."""
        routes = {name: Route(self._wanted(name, port), 7) for name, port in upstreams.items()}
        state = RouterState(7, routes)
        files = {
            "bootstrap.json": envoy.build_bootstrap(None, self.activator),
            "clusters.json": envoy.build_clusters(state, "ns", SETTINGS),
            "routes.json": envoy.build_routes(state, "ns", SETTINGS),
            "limits.json": envoy.build_limits(state),
        }
        for name, text in files.items():
            for port, other in (
                (envoy.HTTP_PORT, self.port),
                (envoy.STATS_PORT, self.stats_port),
                (envoy.STATS_PORT - 1, self._admin_port),
                (envoy.HOLD_PORT, self._hold_port),
            ):
                text = text.replace(f'"port_value":{port}}}', f'"port_value":{other}}}')
            text = text.replace(envoy.CONFIG_DIR, str(self.folder)).replace("0.0.0.0", self.address)
            data: dict[str, Any] = json.loads(text)
            for cluster in data["resources"] if name == "clusters.json" else ():
                first = cluster["load_assignment"]["endpoints"][0]
                (endpoint,) = first["lb_endpoints"]
                endpoint["endpoint"]["address"]["socket_address"]["address"] = "127.0.0.1"
                if not upstreams[cluster["name"]]:
                    first["lb_endpoints"] = []
            new = self.folder / f"{name}.new"
            new.write_text(json.dumps(data))
            new.replace(self.folder / name)  # moved into the watched folder: that is what Envoy takes for a change

    def _wanted(self, name: str, port: int) -> Wanted:
        limits = {name: self.limits[name]} if name in self.limits else {}
        return Wanted(
            {name: 100},
            {name: port or self.held_port},
            timeout_seconds=self.timeout_seconds,
            limits=limits,
            hold=bool(self.activator),
        )

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        words = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
        with (self.folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                binary(), "-c", self.folder / "bootstrap.json", *words, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 20
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(f"http://{self.address}:{self.stats_port}/ready") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """End it at once, whatever it does."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()


@asynccontextmanager
async def started(routers: Iterable[Router]) -> AsyncIterator[None]:
    """Run routers."""
    running = list(routers)
    try:
        await asyncio.gather(*(router.start() for router in running))
        yield
    finally:
        for router in running:
            await router.kill()


@asynccontextmanager
async def upstream() -> AsyncIterator[tuple[int, list[float]]]:
    """Serve HTTP/1.1. Answer the port, and the milliseconds that each whole answer took, as the server saw it.

    The path says what comes: a status, a latency in milliseconds after `ms=`, `reset`, `cut` (the head, not the body),
    `close` (a body that ends with its connection).
    """
    took: list[float] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
                begun = time.perf_counter()
                if "ms=" in path:
                    await asyncio.sleep(float(path.rpartition("=")[2]) / 1000)
                if "reset" in path:
                    return
                if "cut" in path:
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nok")
                    await writer.drain()
                    return
                if "close" in path:
                    writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok")
                    await writer.drain()
                    took.append((time.perf_counter() - begun) * 1000)
                    return
                status = path[1:4] if path[1:4].isdigit() else "200"
                took.append((time.perf_counter() - begun) * 1000)
                writer.write(f"HTTP/1.1 {status} Said\r\ncontent-length: 2\r\n\r\nok".encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], took
