"""The ASGI application: routes, limits and status codes. Bytes are protocol/'s business, runs are the engine's."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from slipway_server import __version__, logs
from slipway_server.engine import Engine
from slipway_server.formats import ModelInputError, ModelMemoryError, ModelRunError
from slipway_server.metrics import CONTENT_TYPE, Metrics
from slipway_server.protocol.v2 import Codec, error_body
from slipway_server.tensors import RequestError

Headers = list[tuple[bytes, bytes]]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON = b"application/json"
_ALLOW_READ = ((b"allow", b"GET, HEAD"),)
_ALLOW_POST = ((b"allow", b"POST"),)
_RETRY_SOON = ((b"retry-after", b"1"),)
_CLOSE = ((b"connection", b"close"),)


@dataclass(frozen=True)
class Limits:
    """What one request, and all together, may take."""

    body_bytes: int
    concurrency: int
    request_seconds: float


@dataclass(frozen=True)
class Ready:
    """A model that is loaded and warmed up."""

    codec: Codec
    engine: Engine


class _DisconnectedError(Exception):
    """The caller is gone: nobody to answer."""


@dataclass(frozen=True)
class _FailureError(Exception):
    """An answer that is not a success."""

    status: int
    message: str
    headers: Iterable[tuple[bytes, bytes]] = ()


class Application:
    """One model over HTTP. Until `ready` is set it is live and not ready."""

    def __init__(self, name: str, version: str, revision: str, limits: Limits, metrics: Metrics) -> None:
        self.ready: Ready | None = None
        self._limits = limits
        self._metrics = metrics
        self._common: Headers = [(b"x-slipway-revision", revision.encode())] if revision else []
        self._server = msgspec.json.encode({"name": "slipway-server", "version": __version__, "extensions": []})
        self._name = name
        self._version = version
        self._reads: dict[str, Callable[[], tuple[int, bytes, bytes]]] = {
            "/v2": lambda: (200, self._server, JSON),
            "/v2/health/live": lambda: (200, b'{"live":true}', JSON),
            "/v2/health/ready": self._readiness,
            "/metrics": lambda: (200, metrics.render(), CONTENT_TYPE),
        }
        self._infers: set[str] = set()
        for base in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{version}"):
            self._reads[base] = self._metadata
            self._reads[f"{base}/ready"] = self._readiness
            self._infers.add(f"{base}/infer")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers one request (ASGI 3)."""
        path: str = scope["path"]
        method: str = scope["method"]
        if path in self._infers:
            if method == "POST":
                await self._infer(scope, receive, send)
            else:
                await self._answer(send, 405, error_body(f"{method} is not allowed here: use POST"), JSON, _ALLOW_POST)
        elif read := self._reads.get(path):
            if method in ("GET", "HEAD"):
                await self._answer(send, *read())
            else:
                await self._answer(send, 405, error_body(f"{method} is not allowed here: use GET"), JSON, _ALLOW_READ)
        else:
            await self._answer(send, 404, error_body(self._unknown(path)), JSON)

    def _readiness(self) -> tuple[int, bytes, bytes]:
        return (200, b'{"ready":true}', JSON) if self.ready else (503, b'{"ready":false}', JSON)

    def _metadata(self) -> tuple[int, bytes, bytes]:
        return (200, self.ready.codec.metadata, JSON) if self.ready else (503, error_body("the model is loading"), JSON)

    def _unknown(self, path: str) -> str:
        parts = path.split("/")
        if parts[1:3] == ["v2", "models"] and len(parts) > 3:
            if parts[3] != self._name:
                return f"model '{parts[3][:100]}' is not served here: this is '{self._name}'"
            if parts[4:5] == ["versions"] and len(parts) > 5 and parts[5] != self._version:
                return f"version '{parts[5][:100]}' of '{self._name}' is not served here: this is '{self._version}'"
        return "no such path: see GET /v2 and /v2/models/" + self._name

    async def _infer(self, scope: Message, receive: Receive, send: Send) -> None:
        metrics = self._metrics
        started = time.perf_counter()
        metrics.in_flight += 1
        try:
            status, body, headers = await self._result(scope, receive)
            await self._answer(send, status, body, JSON, headers)
            metrics.observe(status, time.perf_counter() - started)
        except _DisconnectedError:
            metrics.abandoned += 1
        finally:
            metrics.in_flight -= 1

    async def _result(self, scope: Message, receive: Receive) -> tuple[int, bytes, Iterable[tuple[bytes, bytes]]]:
        """(status, body, further headers) for an inference request, whatever happens."""
        try:
            if self.ready is None:
                raise _FailureError(503, "the model is loading", _RETRY_SOON)
            if self._metrics.in_flight > self._limits.concurrency:
                raise _FailureError(429, f"more than {self._limits.concurrency} requests at once: try again later", _RETRY_SOON)
            self._check_headers(scope["headers"])
            codec = self.ready.codec
            request = codec.decode(await self._body(receive))
            arrays = await self.ready.engine.infer(request.feeds, request.outputs, self._limits.request_seconds)
            return 200, codec.encode(request, arrays), ()
        except _FailureError as failure:
            return failure.status, error_body(failure.message), failure.headers
        except RequestError as error:
            return error.status, error_body(str(error)), ()
        except ModelInputError as error:
            return 400, error_body(f"the model refuses these values: {error}"), ()
        except TimeoutError:
            return 504, error_body(f"the model took longer than {self._limits.request_seconds:g} s"), ()
        except asyncio.CancelledError:  # the drain's time is over
            return 503, error_body("the server is stopping"), (*_RETRY_SOON, *_CLOSE)
        except ModelMemoryError:
            logs.error("a run needed more memory than there is")
            return 500, error_body("the model needed more memory than there is: send less at once"), ()
        except ModelRunError as error:
            logs.error("a run failed")  # not why: the runtime's message may quote the request
            return 500, error_body(f"the model failed: {error}"), ()
        except MemoryError:
            logs.error("out of memory reading or answering a request")
            return 500, error_body("out of memory: send less at once"), ()

    def _check_headers(self, headers: Headers) -> None:
        limit = self._limits.body_bytes
        for name, value in headers:
            if name == b"content-length":
                length = int(value)  # the parser lets only digits through
                if length > limit:
                    # The rest is read and dropped if it is not much: the caller sees this answer then, not a reset.
                    raise self._too_large(f"{length} bytes", () if length <= 4 * limit else _CLOSE)
            elif name == b"content-encoding" and value.lower() != b"identity":
                raise _FailureError(415, f"content encoding '{value.decode('latin-1')[:32]}' is not served: send plain JSON")
            elif name == b"inference-header-content-length":
                raise _FailureError(415, "binary tensors are not served: send JSON data")

    def _too_large(self, size: str, headers: Iterable[tuple[bytes, bytes]]) -> _FailureError:
        return _FailureError(
            413, f"the body has {size}, the limit is {self._limits.body_bytes}: send fewer rows at once", headers
        )

    async def _body(self, receive: Receive) -> bytes | bytearray:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _DisconnectedError
        body: bytes | bytearray = message["body"]
        while message["more_body"] and len(body) <= self._limits.body_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _DisconnectedError
            if isinstance(body, bytes):
                body = bytearray(body)
            body += message["body"]
        if len(body) > self._limits.body_bytes:
            raise self._too_large(f"more than {self._limits.body_bytes} bytes", _CLOSE)
        return body

    async def _answer(
        self, send: Send, status: int, body: bytes, content_type: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        length = str(len(body)).encode()
        all_headers = [(b"content-type", content_type), (b"content-length", length), *self._common, *headers]
        await send({"type": "http.response.start", "status": status, "headers": all_headers})
        await send({"type": "http.response.body", "body": body})
