"""Every state of an object, by a watch: between two looks one would miss what lasts a moment, the more so on a busy machine."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import httpx
from tests.integration.client import Client, Refused

Object = dict[str, Any]


@dataclass(frozen=True)
class State:
    """One state of an object, and when it was heard of (seconds since 1970): never before it was so."""

    at: float
    object: Object

    @property
    def status(self) -> Object:
        """Answer its status."""
        return self.object.get("status", {})

    @property
    def told_at(self) -> float:
        """Answer when Slipway last wrote that status, in whole seconds: never after it did."""
        writers = self.object["metadata"]["managedFields"]
        return max(
            datetime.fromisoformat(each["time"]).timestamp()
            for each in writers
            if each.get("subresource") == "status" and each["manager"].startswith("slipway")
        )


Seen = TypeVar("Seen", bound=State)


class Watch(Generic[Seen]):
    """The states, each of that kind, that an object has had since somebody began to watch, until it is deleted."""

    def __init__(self, kind: type[Seen], client: Client, collection: str, name: str) -> None:
        first = client.get(f"{collection}/{name}")
        self._kind, self.seen = kind, [kind(time.time(), first)]
        self._found, self._ended, self._news = 0, "", threading.Condition()
        version = first["metadata"]["resourceVersion"]
        threading.Thread(target=self._follow, args=(client, collection, name, version), daemon=True).start()

    def _follow(self, client: Client, collection: str, name: str, version: str) -> None:
        ended = "it was deleted"
        try:
            for obj in client.watch(collection, name, version):
                with self._news:
                    self.seen.append(self._kind(time.time(), obj))
                    self._news.notify_all()
        except (httpx.HTTPError, Refused) as error:
            ended = repr(error)
        with self._news:
            self._ended = ended
            self._news.notify_all()

    def await_(self, condition: Callable[[Seen], object], what: str, timeout: float = 150.0) -> Seen:
        """Wait until a state meets the condition, of all from the one found last on, and answer it."""
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                while self._found < len(self.seen):
                    if condition(state := self.seen[self._found]):
                        return state
                    self._found += 1
                assert not self._ended, f"no more is heard of it ({self._ended}): {what}"
                assert self._news.wait(deadline - time.monotonic()), f"not within {timeout:g} s: {what}"
