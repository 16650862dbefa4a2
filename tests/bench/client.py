"""A small asynchronous client of the API server for the benchmarks: JSON in, JSON out, many requests at once."""

import asyncio
import base64
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import yaml

Object = dict[str, Any]
_PARALLEL = 16


class Client:
    """Requests to one API server with the administrator's certificate, so that the audit log tells them from the operator's."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.server: str = cluster["server"]
        self.authority: str = cluster["certificate-authority-data"]
        self.tls = ssl.create_default_context(cadata=base64.b64decode(self.authority).decode())
        with tempfile.NamedTemporaryFile() as pair:  # ssl reads a key from a file only
            pair.write(base64.b64decode(user["client-certificate-data"]) + b"\n" + base64.b64decode(user["client-key-data"]))
            pair.flush()
            self.tls.load_cert_chain(pair.name)

    async def __aenter__(self) -> "Client":
        connector = aiohttp.TCPConnector(ssl=self.tls, limit=0)
        self._http = aiohttp.ClientSession(self.server, connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._http.close()

    async def request(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Object:
        """Send one request, again where the server is too busy. Raises aiohttp.ClientResponseError where it refuses."""
        data = None if body is None else json.dumps(body)
        while True:
            async with self._http.request(method, path, data=data, headers={"Content-Type": kind}) as answer:
                if answer.status == 429:
                    await asyncio.sleep(float(answer.headers.get("Retry-After", "1")))
                    continue
                if answer.status >= 400:
                    said = (await answer.text())[:400]
                    raise aiohttp.ClientResponseError(answer.request_info, (), status=answer.status, message=said)
                return json.loads(await answer.read())

    async def get(self, path: str) -> Object:
        """Read one object or list."""
        return await self.request("GET", path)

    async def items(self, path: str, selector: str = "") -> list[Object]:
        """Read all objects of a kind."""
        return (await self.get(f"{path}?labelSelector={selector}"))["items"]

    async def apply(self, path: str, body: Object) -> Object:
        """Apply server-side, with force."""
        return await self.request("PATCH", f"{path}?fieldManager=bench&force=true", body, "application/apply-patch+yaml")

    async def merge(self, path: str, body: Object) -> Object:
        """Change some fields."""
        return await self.request("PATCH", path, body, "application/merge-patch+json")

    async def delete(self, path: str) -> None:
        """Delete an object. Gone already is fine."""
        try:
            await self.request("DELETE", path, {"propagationPolicy": "Background"})
        except aiohttp.ClientResponseError as error:
            if error.status != 404:
                raise

    async def create_all(self, objects: Iterable[tuple[str, Object]]) -> None:
        """Create objects, each at the path of its collection, some at a time."""
        left = iter(objects)

        async def create() -> None:
            for path, obj in left:
                await self.request("POST", path, obj)

        await asyncio.gather(*(create() for _ in range(_PARALLEL)))

    async def watch(
        self, path: str, selector: str = "", *, initial: bool = False, since: str = ""
    ) -> AsyncIterator[tuple[str, Object]]:
        """Yield (ADDED | MODIFIED | DELETED, object) from now on, or since a resourceVersion; with `initial` from what exists."""
        if not initial and not since:
            since = (await self.get(f"{path}?limit=1"))["metadata"]["resourceVersion"]
        start = f"&resourceVersion={since}" if since else ""
        async with self._http.get(f"{path}?watch=true&labelSelector={selector}{start}", read_bufsize=2**22) as answer:
            answer.raise_for_status()
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise RuntimeError(f"watch of {path}: {event['object'].get('message')}")
                yield event["type"], event["object"]
