"""One operator replica: a process forked by the zygote, its proxy, its log; started again whenever it ends, as a kubelet does."""

import asyncio
import itertools
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.bench.client import Client
from tests.faults.proxy import Plan, Proxy

# Between the end of one that failed and its next start: a kubelet's back-off is longer.
_AGAIN_SECONDS = 0.2
_ROOT = Path(__file__).resolve().parents[2]
IMAGES = ("--server-image", "test/server", "--router-image", "test/router", "--operator-image", "test/operator")
ACTIVATOR = ("--activator", "slipway-activator.slipway-system.svc.cluster.local:8080")


class Zygote:
    """Forks operators of one source tree."""

    def __init__(self, operator: Path) -> None:
        self._operator = operator
        self._ids = itertools.count()
        self._told: dict[int, asyncio.Queue[dict[str, Any]]] = {}

    async def __aenter__(self) -> "Zygote":
        path = os.pathsep.join((str(self._operator), str(_ROOT)))
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.faults.zygote", stdin=-1, stdout=-1, env=environment, cwd="/"
        )
        assert self._process.stdout is not None
        if not await self._process.stdout.readline():
            raise RuntimeError("the zygote does not start")
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        self._reading.cancel()

    async def fork(self, argv: list[str], env: dict[str, str], log: Path) -> tuple[int, asyncio.Queue[dict[str, Any]]]:
        """Start an operator. Answer its process id, and the queue that tells of its end."""
        number = next(self._ids)
        told = self._told[number] = asyncio.Queue()
        assert self._process.stdin is not None
        line = json.dumps({"id": number, "argv": argv, "env": env, "log": str(log)})
        self._process.stdin.write(line.encode() + b"\n")
        return (await told.get())["pid"], told

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            await self._told[told["id"]].put(told)


class Replica:
    """One replica of a run's operator, in a namespace of its own with its Lease."""

    def __init__(
        self,
        name: str,
        namespace: str,
        zygote: Zygote,
        client: Client,
        plan: Plan,
        folder: Path,
        steal: Callable[[], Awaitable[None]],
    ) -> None:
        self.name, self._namespace, self.zygote, self._folder = name, namespace, zygote, folder
        self.proxy = Proxy(name, client.server, client.tls, plan, self.kill, steal)
        self.log = folder / f"{name}.log"
        self.pid = 0
        self._more: tuple[str, ...] = ()
        self._wanted = False

    async def start(self, *more: str) -> None:
        """Start it, and from now on again whenever it ends."""
        await self.proxy.__aenter__()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{self.proxy.port}"}}],
            "users": [{"name": "x", "user": {"token": "none"}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            "current-context": "x",
        }
        (self._folder / f"{self.name}.kubeconfig").write_text(json.dumps(config))
        self._more, self._wanted = more, True
        self._keeping = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Kill it, and start it no more."""
        self.kill()
        await self._ended()

    async def retire(self) -> None:
        """Ask it to end, as an upgrade does, and start it no more."""
        self.end()
        await self._ended()

    async def _ended(self) -> None:
        if self._wanted:
            self._wanted = False
            await self._keeping
            await self.proxy.__aexit__()

    def kill(self) -> None:
        """Kill the process."""
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """Ask the process to end: it is started again."""
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    async def _keep(self) -> None:
        argv = [
            *IMAGES,
            *ACTIVATOR,
            "--namespace",
            self._namespace,
            "--watch-namespaces",
            self._namespace,
            "--identity",
            self.name,
        ]
        argv += ["--http-port", "0", *self._more]
        environment = {"KUBECONFIG": str(self._folder / f"{self.name}.kubeconfig")}
        while self._wanted:
            self.pid, told = await self.zygote.fork(argv, environment, self.log)
            if not self._wanted:
                self.kill()
            code = (await told.get())["exit"]
            self.pid = 0
            if code > 0:
                await asyncio.sleep(_AGAIN_SECONDS)
