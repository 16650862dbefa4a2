"""ModelDeployments that may be gone without our having been told: nothing is made for one until it is known to be there."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

import aiohttp

from slipway.kube.api import ApiError
from slipway.kube.informer import Informer
from slipway.kube.kinds import MODEL_DEPLOYMENT
from slipway.kube.store import Object, Store

log = logging.getLogger(__name__)
# What tells of a deletion is most often just under way.
_PATIENCE_SECONDS = 0.15
# Many doubts that come one after the other are settled together.
_INTERVAL_SECONDS = 1.0


class Doubts:
    """Says of which ModelDeployments it is in doubt that they are there, and lists them anew until it is not.

    The store is filled before kopf lists and begins to watch, and nobody tells of what is deleted between the two: until kopf has
    told of all that the store holds, what it has not told of is in doubt. So is later what a write did not find.
    """

    def __init__(self, store: Store, models: Sequence[Informer], notify: Callable[[Object], None]) -> None:
        self._store, self._models, self._notify = store, models, notify
        self._heard: set[str] | None = set()
        self._missed: set[str] = set()
        self._wake = asyncio.Event()

    def heard(self, obj: Object) -> bool:
        """Take notice that kopf tells of an object. Answer whether it was in doubt because it had not yet."""
        uid = obj["metadata"]["uid"]
        if self._heard is None or uid in self._heard:
            return False
        self._heard.add(uid)
        return True

    def missed(self, namespace: str, name: str) -> None:
        """Take notice that a write found no such ModelDeployment."""
        obj = self._store.get(MODEL_DEPLOYMENT, namespace, name)
        if obj is not None:
            self._missed.add(obj["metadata"]["uid"])
            self._wake.set()

    def about(self, namespace: str, name: str) -> bool:
        """Tell whether it is in doubt that there is this ModelDeployment."""
        obj = self._store.get(MODEL_DEPLOYMENT, namespace, name)
        return obj is not None and self._in_doubt(obj["metadata"]["uid"])

    async def run(self) -> None:
        """Settle doubts until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_INTERVAL_SECONDS):
                    await self._wake.wait()
                    await asyncio.sleep(_PATIENCE_SECONDS)
            self._wake.clear()
            try:
                settled = await self.settle()
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                settled = True
                log.warning("cannot see whether ModelDeployments are gone: %s", error or type(error).__name__)
            if settled:
                await asyncio.sleep(_INTERVAL_SECONDS)

    async def settle(self) -> bool:
        """List anew where anything is in doubt, and answer whether that was so. Raises what listing does."""
        missed = frozenset(self._missed)
        doubted = any(map(self._in_doubt, self._held()))
        if doubted:
            for informer in self._models:
                await informer.sweep()
        self._missed -= missed
        held = self._held()
        for uid in missed & held.keys():
            self._notify(held[uid])
        if self._heard is not None and held.keys() <= self._heard:
            self._heard = None
        return doubted

    def _in_doubt(self, uid: str) -> bool:
        return uid in self._missed or (self._heard is not None and uid not in self._heard)

    def _held(self) -> dict[str, Object]:
        return {obj["metadata"]["uid"]: obj for obj in self._store.all(MODEL_DEPLOYMENT)}
