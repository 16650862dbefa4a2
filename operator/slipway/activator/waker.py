"""Wakes ModelDeployments: one write into status, which the operator's watch sees at once."""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

import aiohttp

from slipway.kube.api import Api, ApiError
from slipway.kube.kinds import MODEL_DEPLOYMENT

log = logging.getLogger(__name__)
FIELD_MANAGER = "slipway-activator"
# Who has been woken is not woken again so soon: its first pod is on its way. Then whoever still waits wakes it once more.
AGAIN_SECONDS = 5.0

Key = tuple[str, str]


class Waker:
    """Wakes by server-side apply of `status.activation` alone: whatever else is in status is the operator's."""

    def __init__(self, api: Api, now: Callable[[], float] = time.monotonic) -> None:
        self._api, self._now = api, now
        self._woken: dict[Key, float] = {}
        self._writes: set[asyncio.Task[None]] = set()
        self.count = 0

    def wake(self, namespace: str, name: str) -> None:
        """Wake it in the background, unless that was done just now."""
        key, now = (namespace, name), self._now()
        if now - self._woken.get(key, -AGAIN_SECONDS) < AGAIN_SECONDS:
            return
        self._woken = {key: at for key, at in self._woken.items() if now - at < AGAIN_SECONDS} | {key: now}
        task = asyncio.create_task(self._write(key))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _write(self, key: Key) -> None:
        namespace, name = key
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        metadata = {"name": name, "namespace": namespace}
        body = {"apiVersion": MODEL_DEPLOYMENT.api_version, "kind": MODEL_DEPLOYMENT.kind, "metadata": metadata}
        try:
            await self._api.apply({**body, "status": {"activation": {"at": at}}}, status=True, manager=FIELD_MANAGER)
            self.count += 1
            log.info("woke %s/%s", namespace, name)
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            self._woken.pop(key, None)  # whoever comes next tries again
            log.warning("cannot wake %s/%s: %s", namespace, name, error or type(error).__name__)
