"""Sits between one operator replica and the real API server: counts its requests, and does to them what a plan of faults says."""

import asyncio
import json
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from tests.faults.fault import ON_WATCH, REFUSALS, WRITES, Action, Call, Fault, Verb

_REASONS = {"409": "Conflict", "429": "TooManyRequests", "500": "InternalError", "503": "ServiceUnavailable"}
_LATE_SECONDS = 1.5
# Longer than an operator waits for any answer (zygote.QUICKER).
_TIMEOUT_SECONDS = 8.0
# The Lease is renewed by the clock: its requests are no part of what a reconcile does.
LEASE = "leases"


@dataclass(frozen=True)
class Done:
    """One request as it came by: when it began, and the answer's status (0: none)."""

    at: float
    replica: str
    call: Call
    number: int
    name: str
    status: int


@dataclass
class Plan:
    """The faults of a run, shared by all replicas' proxies, and what came by."""

    faults: list[Fault]
    count: Counter[Call] = field(default_factory=Counter[Call])
    events: Counter[Call] = field(default_factory=Counter[Call])
    deletions: Counter[Call] = field(default_factory=Counter[Call])
    done: list[Done] = field(default_factory=list[Done])
    fired: list[Fault] = field(default_factory=list[Fault])
    first_lists: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def take(self, call: Call, number: int, actions: tuple[Action, ...] = ()) -> Fault | None:
        """Answer the fault that is due; each happens once."""
        for fault in self.faults:
            if (fault.call, fault.number) == (call, number) and (not actions or fault.action in actions):
                self.faults.remove(fault)
                self.fired.append(fault)
                return fault
        return None

    @property
    def writes(self) -> int:
        """Answer how many writes were begun, those of the Lease left out."""
        return sum(count for call, count in self.count.items() if call.verb in WRITES and call.kind != LEASE)


class Proxy:
    """One replica's way to the API server. `kill` kills the replica; `steal` hands its Lease to another one."""

    def __init__(
        self,
        replica: str,
        server: str,
        tls: ssl.SSLContext,
        plan: Plan,
        kill: Callable[[], None],
        steal: Callable[[], Awaitable[None]],
    ) -> None:
        self._replica, self._server, self._tls, self.plan = replica, server, tls, plan
        self._kill, self._steal = kill, steal
        self.port = 0
        self._late: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> "Proxy":
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        self._http = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False, read_bufsize=2**22
        )
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # pyright: ignore[reportOptionalMemberAccess]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._late:
            task.cancel()
        await self._runner.cleanup()
        await self._http.close()

    @property
    def owes(self) -> bool:
        """Tell whether a request is under way that will be done late."""
        return any(not task.done() for task in self._late)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        call = Call.of(request.method, request.path, request.query)
        self.plan.count[call] += 1
        number, at = self.plan.count[call], time.monotonic()
        if call.verb == Verb.WATCH:
            with suppress(ConnectionError):  # whoever watched is gone
                return await self._watch(request, call)
            return _cut(request)
        body = await request.read()
        fault = self.plan.take(call, number)
        status = 0
        try:
            answer = await (self._send(request, body) if fault is None else self._at_fault(request, body, call, fault))
            status = answer.status
            if call.verb == Verb.LIST and isinstance(answer, web.Response) and status == 200:
                self.plan.first_lists.setdefault(request.path_qs, answer.body)
            await self._deliver(request, answer)
        finally:
            name = request.path.rstrip("/").removesuffix("/status").rpartition("/")[2]
            self.plan.done.append(Done(at, self._replica, call, number, name, status))
        if fault is not None and fault.action == Action.KILL_AFTER:
            self._kill()
        return answer

    async def _deliver(self, request: web.Request, answer: web.StreamResponse) -> None:
        with suppress(ConnectionError):
            await answer.prepare(request)
            await answer.write_eof()

    async def _at_fault(self, request: web.Request, body: bytes, call: Call, fault: Fault) -> web.StreamResponse:
        action = fault.action
        if action in REFUSALS:
            return _refusal(int(action))
        if action == Action.STALE:
            known = self.plan.first_lists.get(request.path_qs)
            return await self._send(request, body) if known is None else web.Response(body=known, content_type="application/json")
        if action == Action.KILL_BEFORE:
            self._kill()
            return _cut(request)
        if action == Action.TIMEOUT:
            await asyncio.sleep(_TIMEOUT_SECONDS)
            return _cut(request)
        if action == Action.STEAL:
            await self._steal()
        if action in (Action.LATE, Action.STEAL):
            # It is under way, and no death of whoever sent it calls it back.
            task = asyncio.create_task(self._send_late(request, body, fault.seconds or _LATE_SECONDS))
            self._late.add(task)
            return await asyncio.shield(task)
        answer = await self._send(request, body)
        if action == Action.KILL_SENT:
            self._kill()
        if action in (Action.KILL_SENT, Action.CUT):
            return _cut(request)
        return answer

    async def _send_late(self, request: web.Request, body: bytes, seconds: float) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await self._send(request, body)

    async def _send(self, request: web.Request, body: bytes) -> web.StreamResponse:
        headers = {name: request.headers[name] for name in ("Accept", "Content-Type") if name in request.headers}
        async with self._http.request(
            request.method, self._server + request.path_qs, data=body or None, headers=headers
        ) as answer:
            read = await answer.read()
            kept = {
                name: answer.headers[name]
                for name in ("Content-Type", "Content-Encoding", "Retry-After")
                if name in answer.headers
            }
            return web.Response(status=answer.status, body=read, headers=kept)

    async def _watch(self, request: web.Request, call: Call) -> web.StreamResponse:
        async with self._http.get(self._server + request.path_qs, headers={"Accept": "application/json"}) as answer:
            told = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
            await told.prepare(request)
            held: list[bytes] = []
            async for line in answer.content:
                for each in await self._events(call, line, held):
                    if each is None:
                        await told.write_eof()
                        return told
                    await told.write(each)
            await told.write_eof()
            return told

    async def _events(self, call: Call, line: bytes, held: list[bytes]) -> list[bytes | None]:
        """Answer the lines to send for one that came; None ends the watch. `held` keeps one that is to come after the next."""
        if b'"type":"BOOKMARK"' in line[:40]:
            return [line]
        self.plan.events[call] += 1
        fault = self.plan.take(call, self.plan.events[call], tuple(each for each in ON_WATCH if each != Action.HIDE))
        if b'"type":"DELETED"' in line[:40]:
            self.plan.deletions[call] += 1
            fault = self.plan.take(call, self.plan.deletions[call], (Action.HIDE,)) or fault
        after = [held.pop()] if held else []
        if fault is None:
            return [line, *after]
        if fault.action == Action.REORDER:
            held.append(line)
            return [*after]
        if fault.action == Action.DELAY:
            await asyncio.sleep(fault.seconds or _LATE_SECONDS)
            return [line, *after]
        if fault.action == Action.GONE:
            status = {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "reason": "Expired",
                "code": 410,
                "message": "too old",
            }
            return [*after, json.dumps({"type": "ERROR", "object": status}).encode() + b"\n", None]
        return [*after, None] if fault.action == Action.END else [*after]


def _cut(request: web.Request) -> web.Response:
    """End the connection; the answer goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _refusal(status: int) -> web.Response:
    reason = _REASONS[str(status)]
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status, "message": "by the test"}
    return web.json_response(body, status=status, headers={"Retry-After": "1"} if status in (429, 503) else None)
