"""Keeps the store filled: list, then watch, for ever, for one kind. The server applies the label selector."""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

import aiohttp

from slipway.kube.api import Api, ApiError
from slipway.kube.kinds import Kind
from slipway.kube.store import Store

log = logging.getLogger(__name__)
_BACKOFF_MAX_SECONDS = 30.0
# A kind that the API server has not, or does not let us see, is looked for again after this long.
ABSENT_RETRY_SECONDS = 15.0

Notify = Callable[[dict[str, Any]], None]


class Informer:
    """List and watch of one kind in one namespace (None: all).

    Every change goes to the store and then to `notify`. After an error, or a 410 (the server has forgotten the version that we
    know), the list is read anew: an object that went meanwhile is noticed by its absence. `absent` says that there is nothing
    to watch, of an optional kind.
    """

    def __init__(self, api: Api, store: Store, kind: Kind, namespace: str | None, selector: str, notify: Notify) -> None:
        self._api, self._store, self._kind, self._namespace = api, store, kind, namespace
        self._selector, self._notify = selector, notify
        self.synced = asyncio.Event()
        self.absent = False

    async def run(self) -> None:
        """Run until cancelled."""
        backoff = 0.2
        while True:
            try:
                version = await self.sweep()
                self._found()
                backoff = 0.2
                while True:
                    version = await self._follow(version)
            except ApiError as error:
                if error.status == 410:
                    continue
                if self._kind.optional and error.status in (403, 404):
                    self._missed(error)
                    await asyncio.sleep(ABSENT_RETRY_SECONDS * random.uniform(0.9, 1.1))  # noqa: S311 - jitter
                    continue
                log.warning("watch of %s failed: %s", self._kind.plural, error)
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                log.warning("watch of %s failed: %s", self._kind.plural, error or type(error).__name__)
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            backoff = min(backoff * 2, _BACKOFF_MAX_SECONDS)

    async def sweep(self) -> str:
        """List everything into the store, notify of what differed, and answer the list's resourceVersion."""
        present: set[str] = set()
        version = ""
        async for page, listed_at in self._api.list(self._kind, self._namespace, self._selector):
            version = listed_at
            present.update(obj["metadata"]["uid"] for obj in page)
            for obj in page:
                if self._store.put(obj):
                    self._notify(obj)
        for obj in self._store.prune(self._kind, self._namespace, present, int(version)):
            self._notify(obj)
        return version

    def _found(self) -> None:
        if self.absent:
            log.info("%s are watched from now on", self._kind.plural)
        self.absent = False
        self.synced.set()

    def _missed(self, error: ApiError) -> None:
        """Go on without the kind. Without its definition (404) its objects are gone; what we may not see (403) may be there."""
        if not self.absent:
            log.info("%s are not watched, and looked for now and then: %s", self._kind.plural, error)
        self.absent = True
        if error.status == 404:
            for obj in self._store.prune(self._kind, self._namespace, set()):
                self._notify(obj)
        self.synced.set()

    async def _follow(self, version: str) -> str:
        async for event, obj in self._api.watch(self._kind, self._namespace, self._selector, version):
            version = obj["metadata"]["resourceVersion"]
            if event == "BOOKMARK":
                continue
            if self._store.drop(obj) if event == "DELETED" else self._store.put(obj):
                self._notify(obj)
        return version
