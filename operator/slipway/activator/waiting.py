"""Requests that wait for a pod of their revision: bounded in number, bytes and time, released in the order in which they came."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager

from slipway.core.holding import Held

Revision = tuple[str, str]
# An ordered set: the first that came is the first in it, and whoever hangs up leaves it at once.
_Crowd = dict[asyncio.Future[str], None]
# What a waiting request takes of a router's memory beside its body, and the most that a router reads of a body meanwhile.
_REQUEST_BYTES, _BODY_BYTES_MAX = 32 * 1024, 4 * 1024 * 1024


class RefusedError(Exception):
    """A request cannot wait, or has waited for too long. `kind` is one word for the metrics."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class LeavingError(Exception):
    """The activator leaves: another one is to hold the request."""


class Waiting:
    """The requests that wait. `addresses` answers the ready pods of a revision (namespace, name), by IP.

    `held_max` bounds those of a revision, `bytes_max` the memory that those of one router take there.
    """

    def __init__(self, addresses: Callable[[Revision], list[str]], held_max: int, bytes_max: int) -> None:
        self._addresses, self._held_max, self._bytes_max = addresses, held_max, bytes_max
        self._crowds: dict[Revision, _Crowd] = {}
        self._bytes: dict[str, int] = {}
        self._turn = 0
        self._leaving = False

    @property
    def count(self) -> int:
        """Answer how many wait."""
        return sum(map(len, self._crowds.values()))

    def address(self, revision: Revision) -> str | None:
        """Answer the pod whose turn it is; None where none is ready."""
        ready = self._addresses(revision)
        self._turn += 1
        return ready[self._turn % len(ready)] if ready else None

    async def wait(self, held: Held, router: str) -> str:
        """Answer the address of a pod as soon as one is ready; `router` is whose request it is.

        Raises RefusedError where too many wait already or none is ready in time, LeavingError where the activator leaves.
        """
        with self._place(held, router) as released:
            try:
                async with asyncio.timeout(held.seconds):
                    return await released
            except TimeoutError:
                told = f"no pod of {held.revision} was ready within {held.seconds:g} s: try again later"
                raise RefusedError("time", told) from None

    @contextmanager
    def _place(self, held: Held, router: str) -> Generator[asyncio.Future[str]]:
        """Give a place in the crowd, and take it back however the wait ends."""
        if self._leaving:
            raise LeavingError
        revision = held.namespace, held.revision
        crowd = self._crowds.get(revision, {})
        if len(crowd) >= self._held_max:
            raise RefusedError("count", f"{len(crowd)} requests wait for a pod of {held.revision} already: try again later")
        size = _REQUEST_BYTES + min(_BODY_BYTES_MAX if held.body_bytes is None else held.body_bytes, _BODY_BYTES_MAX)
        taken = self._bytes.get(router, 0)
        if taken + size > self._bytes_max:
            raise RefusedError("bytes", "requests that wait take all the memory that the router has for them: try again later")
        released: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._crowds.setdefault(revision, crowd)[released] = None
        self._bytes[router] = taken + size
        try:
            yield released
        finally:
            self._bytes[router] -= size
            if not self._bytes[router]:
                del self._bytes[router]
            self._leave_crowd(revision, released)

    def _leave_crowd(self, revision: Revision, released: asyncio.Future[str]) -> None:
        crowd = self._crowds.get(revision, {})
        crowd.pop(released, None)
        if not crowd:
            self._crowds.pop(revision, None)

    def release(self, revision: Revision) -> None:
        """Let go all that wait for the revision, in order, to its ready pods in turns."""
        for released in list(self._crowds.get(revision, ())):
            address = self.address(revision)
            if address is None:
                break
            self._leave_crowd(revision, released)
            if not released.done():
                released.set_result(address)

    def leave(self) -> None:
        """Send all that wait to another activator, and whoever comes from now on."""
        self._leaving = True
        for crowd in self._crowds.values():
            for released in crowd:
                if not released.done():
                    released.set_exception(LeavingError())
