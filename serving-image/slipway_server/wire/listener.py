"""Listens, tells HTTP/1.1 from HTTP/2 by a connection's first bytes, sweeps, and drains without losing a request."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Protocol, cast

from slipway_server import logs
from slipway_server.exchange import Application
from slipway_server.wire import Connections, WireConfig
from slipway_server.wire.http1 import Http1Connection
from slipway_server.wire.sockets import BACKLOG

SWEEP_SECONDS = 0.5
QUIET_SECONDS = 0.25
"""A draining server without a request for this long has been taken out of rotation by everyone."""
ACCEPT_SECONDS = 3.0
"""A draining server stops accepting after this long even if callers go on."""
YIELD_SECONDS, YIELD_CONNECTIONS = 0.001, 5
"""How long a worker leaves a new connection to others, for each connection that it has more than the one with the fewest."""
_RETRY_SECONDS = 0.1  # where accepting fails: out of files or memory
_PREFACE = b"PRI"  # no method of HTTP/1.1 begins so (RFC 9113, 3.4)


class Balance(Protocol):
    """How many connections each of the workers has that accept from one socket."""

    def publish(self, connections: int) -> None:
        """Tells the others how many are open here; -1: none are accepted any more."""
        ...

    def fewest(self) -> int:
        """The connections of the worker that has the fewest of those that accept."""
        ...


class Listener:
    """Accepts connections of one socket for one application. It belongs to the event loop that `start` runs in."""

    def __init__(self, app: Application, config: WireConfig) -> None:
        self.connections = Connections()
        self._app = app
        self._config = config
        self._accepting: asyncio.Server | _Acceptor | None = None
        self._balance: Balance | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self, listening: socket.socket, balance: Balance | None = None) -> None:
        """Begins to accept; with `balance` in turns with the other workers that do."""
        loop = asyncio.get_running_loop()
        self._balance = balance
        self._sweep()
        if balance is None:
            self._accepting = await loop.create_server(self._newcomer, sock=listening, backlog=BACKLOG)
        else:
            self._accepting = _Acceptor(listening, self._newcomer, self.connections, balance)

    def _newcomer(self) -> "_Newcomer":
        return _Newcomer(self._app, self._config, self.connections)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = self.connections.now = loop.time()
        self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep)
        for connection in list(self.connections):
            connection.sweep(now)
        if self._balance is not None and not self.connections.draining:
            self._balance.publish(len(self.connections))

    async def drain(self, timeout_seconds: float) -> int:
        """Answers what has been and is being sent, each answer telling the caller to go elsewhere, then stops listening.

        Returns the number of connections still busy when `timeout_seconds` was over (0 is the aim). Idle connections stay
        open until nobody has sent a request for QUIET_SECONDS: one closed earlier might have a request under way.
        """
        loop = asyncio.get_running_loop()
        connections = self.connections
        begun = quiet_since = loop.time()
        connections.draining = True
        for connection in list(connections):
            connection.shutdown()
        answered = connections.requests
        while loop.time() - begun < min(ACCEPT_SECONDS, timeout_seconds):
            if self._busy() or connections.requests != answered:
                answered = connections.requests
                quiet_since = loop.time()
            elif loop.time() - quiet_since >= QUIET_SECONDS:
                break
            await asyncio.sleep(0.02)
        if self._accepting:
            self._accepting.close()
        while True:
            for connection in list(connections):
                if connection.idle:
                    connection.close()
            busy = self._busy()
            if not busy or loop.time() - begun >= timeout_seconds:
                return busy
            await asyncio.sleep(0.02)

    async def cut(self) -> None:
        """Ends what is left, as far as it can be said goodbye to within a moment."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + QUIET_SECONDS
        while self.connections and loop.time() < deadline:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.01)
        if self._sweeper:
            self._sweeper.cancel()
        for connection in list(self.connections):
            connection.abort()

    def _busy(self) -> int:
        return sum(not connection.idle for connection in self.connections)


class _Acceptor:
    """Accepts from a socket that other workers accept from too, so that each gets as many connections as the others.

    Left alone, whoever wakes first takes all that wait; and one socket a worker (SO_REUSEPORT) spreads a router's few
    connections by chance, and loses what waits on it when its worker dies.
    """

    def __init__(
        self,
        listening: socket.socket,
        factory: Callable[[], asyncio.Protocol],
        connections: Connections,
        balance: Balance,
    ) -> None:
        self._listening = listening
        self._factory = factory
        self._connections = connections
        self._balance = balance
        self._loop = asyncio.get_running_loop()
        self._yielding: asyncio.TimerHandle | None = None
        self._begun: set[asyncio.Task[Any]] = set()
        balance.publish(0)
        self._watch()

    def close(self) -> None:
        """Stops; what waits is left to the other workers."""
        if self._yielding:
            self._yielding.cancel()
        self._loop.remove_reader(self._listening.fileno())
        self._listening.close()
        self._balance.publish(-1)

    def _watch(self) -> None:
        self._loop.add_reader(self._listening.fileno(), self._readable)

    def _readable(self) -> None:
        ahead = len(self._connections) + len(self._begun) - self._balance.fewest()
        if ahead > 0:
            self._pause(YIELD_SECONDS * min(ahead, YIELD_CONNECTIONS), self._accept_late)
        else:
            self._accept()

    def _pause(self, seconds: float, then: Callable[[], None]) -> None:
        self._loop.remove_reader(self._listening.fileno())
        self._yielding = self._loop.call_later(seconds, then)

    def _accept_late(self) -> None:
        """Nobody may have taken it: those with fewer connections are busy."""
        self._watch()
        self._accept()

    def _accept(self) -> None:
        try:
            accepted, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            logs.error("a connection cannot be accepted", cause=error.strerror)
            self._pause(_RETRY_SECONDS, self._watch)
            return
        accepted.setblocking(False)
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._factory, accepted))
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)
        self._balance.publish(len(self._connections) + len(self._begun))


class _Newcomer(asyncio.Protocol):
    """A connection that has not shown yet what it speaks."""

    __slots__ = ("_app", "_config", "_connections", "_data", "_since", "_transport")

    def __init__(self, app: Application, config: WireConfig, connections: Connections) -> None:
        self._app = app
        self._config = config
        self._connections = connections
        self._since = connections.now
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the connection, if there are not too many that are busy."""
        self._transport = cast(asyncio.Transport, transport)
        if len(self._connections) < self._config.connections or self._connections.make_room():
            self._connections.add(self)
            return
        # Answered rather than left in the backlog: a router then knows to try another pod.
        connection = Http1Connection(self._app, self._config, self._connections)
        self._become(connection)
        connection.turn_away()

    def data_received(self, data: bytes) -> None:
        """Hands over to the protocol that the first bytes tell."""
        data = self._data + data
        if len(data) < len(_PREFACE) and _PREFACE.startswith(data):
            self._data = data
            return
        self._connections.discard(self)
        if data.startswith(_PREFACE):
            from slipway_server.wire.http2 import Http2Connection  # most servers never see HTTP/2

            connection = Http2Connection(self._app, self._config, self._connections)
        else:
            connection = Http1Connection(self._app, self._config, self._connections)
        self._become(connection)
        connection.data_received(data)

    def _become(self, connection: asyncio.Protocol) -> None:
        self._transport.set_protocol(connection)
        connection.connection_made(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """It left without a word."""
        self._connections.discard(self)

    @property
    def idle(self) -> bool:
        """Nothing has been asked."""
        return True

    @property
    def since(self) -> float:
        """See Connection."""
        return self._since

    def sweep(self, now: float) -> None:
        """Closes a connection that says nothing."""
        if now - self._since > self._config.request_seconds:
            self._transport.abort()

    def shutdown(self) -> None:
        """Nothing: there is nothing to end."""

    def close(self) -> None:
        """Closes."""
        self._transport.close()

    def abort(self) -> None:
        """Cuts."""
        self._transport.abort()
