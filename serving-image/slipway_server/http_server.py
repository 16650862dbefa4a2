"""The HTTP/1.1 front: uvicorn's httptools protocol with the limits it lacks, and a drain that loses no request."""

import asyncio
import socket
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from slipway_server.protocol.v2 import error_body

MAX_HEAD_BYTES = 32 << 10
BACKLOG = 2048
KEEP_ALIVE_SECONDS = 620
"""An idle connection is kept longer than most load balancers keep theirs, so that they close first."""
SWEEP_SECONDS = 1.0
QUIET_SECONDS = 0.25
"""A draining server without a request for this long has been taken out of rotation by everyone."""
ACCEPT_SECONDS = 3.0
"""A draining server stops accepting after this long even if callers go on."""


class _Protocol(HttpToolsProtocol):
    """One connection. Adds limits on a request's head and on waiting for the rest of a request, and draining."""

    front: "HttpServer"  # set on the subclass that HttpServer makes
    in_head = False
    head_bytes = 0
    waiting_since: float | None = None
    """When the sweep first saw this connection owe us bytes."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.in_head:
            self.head_bytes += len(data)
            if self.head_bytes > MAX_HEAD_BYTES:
                self.refuse(431, "Request Header Fields Too Large", f"the request's head is larger than {MAX_HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        self.in_head = True
        self.head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self.in_head = False
        super().on_headers_complete()
        if self.front.draining:
            self.cycle.keep_alive = False  # uvicorn then answers with `Connection: close`

    def send_400_response(self, msg: str) -> None:
        self.refuse(400, "Bad Request", "not an HTTP/1.1 request")

    def refuse(self, status: int, phrase: str, message: str) -> None:
        """Answers without the application and closes."""
        if self.transport.is_closing():
            return
        body = error_body(message)
        head = (
            f"HTTP/1.1 {status} {phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "connection: close",
        )
        self.transport.write("\r\n".join((*head, "", "")).encode() + body)
        self.transport.close()

    @property
    def idle(self) -> bool:
        """No request is being answered."""
        return self.cycle is None or self.cycle.response_complete  # pyright: ignore[reportUnnecessaryComparison]

    def sweep(self, now: float, limit_seconds: float) -> None:
        """Closes the connection if its caller has owed us bytes of a request for too long."""
        reading_body = not self.idle and self.cycle.more_body
        if not reading_body and not (self.idle and self.timeout_keep_alive_task is None):
            self.waiting_since = None
        elif self.waiting_since is None:
            self.waiting_since = now
        elif now - self.waiting_since > limit_seconds:
            if reading_body or self.in_head:
                self.refuse(408, "Request Timeout", f"the rest of the request did not come within {limit_seconds:g} s")
            else:
                self.transport.close()


class HttpServer:
    """Listens, sweeps and drains. It belongs to the event loop that `start` runs in."""

    def __init__(self, app: Any, request_seconds: float) -> None:
        self.draining = False
        self._request_seconds = request_seconds
        self._config = Config(
            app,
            http="httptools",
            ws="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        self._config.load()
        self._state = ServerState()
        self._protocol = type("Protocol", (_Protocol,), {"front": self})
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Begins to listen (host "": every address, IPv6 too where there is IPv6); returns the port. Raises OSError."""
        loop = asyncio.get_running_loop()
        listener = socket.create_server(
            (host, port),
            family=socket.AF_INET6 if ":" in host or (not host and socket.has_dualstack_ipv6()) else socket.AF_INET,
            dualstack_ipv6=not host and socket.has_dualstack_ipv6(),
            backlog=BACKLOG,
        )
        self._server = await loop.create_server(self._connect, sock=listener, backlog=BACKLOG)
        self._sweeper = loop.create_task(self._sweep())
        return listener.getsockname()[1]

    def _connect(self) -> HttpToolsProtocol:
        return self._protocol(config=self._config, server_state=self._state, app_state={})

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = loop.time()
            for connection in self._connections():
                connection.sweep(now, self._request_seconds)

    async def drain(self, timeout_seconds: float) -> int:
        """Answers what has been and is being sent, each answer with `Connection: close`, then stops listening.

        Returns the number of requests cut off because `timeout_seconds` was over (0 is the aim). Idle connections stay
        open until nobody has sent a request for QUIET_SECONDS: one closed earlier might have a request under way.
        """
        loop = asyncio.get_running_loop()
        self.draining = True
        begun = quiet_since = loop.time()
        answered = self._state.total_requests
        for connection in self._connections():
            if not connection.idle:
                connection.cycle.keep_alive = False
        while loop.time() - begun < min(ACCEPT_SECONDS, timeout_seconds):
            if self._busy() or self._state.total_requests != answered:
                answered = self._state.total_requests
                quiet_since = loop.time()
            elif loop.time() - quiet_since >= QUIET_SECONDS:
                break
            await asyncio.sleep(0.02)
        if self._server:
            self._server.close()
        for connection in self._connections():
            if connection.idle:
                connection.transport.close()
        while self._busy() and loop.time() - begun < timeout_seconds:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.02)
        if self._sweeper:
            self._sweeper.cancel()
        return self._busy()

    def _busy(self) -> int:
        return sum(not connection.idle for connection in self._connections())

    def _connections(self) -> list[_Protocol]:
        return list(self._state.connections)  # pyright: ignore[reportReturnType] - only _connect makes them
