"""Leader election on a Lease: one operator acts, the others wait. The one that stops gives the Lease back."""

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import Any

import aiohttp

from slipway.kube.api import Api, ApiError
from slipway.kube.kinds import LEASE

log = logging.getLogger(__name__)
NAME = "slipway-operator"
DURATION_SECONDS = 10
RENEW_SECONDS = 2.0
# The holder stops acting before another may take over: clocks differ, and requests under way must end.
GIVE_UP_SECONDS = 7.0
RETRY_SECONDS = 1.0


class Lease:
    """A Lease in the operator's namespace, held by `identity`.

    A Lease counts as expired once *we* have seen it unchanged for its duration: the holder's clock is never compared with ours.
    """

    def __init__(self, api: Api, namespace: str, identity: str) -> None:
        self._api, self._namespace, self._identity = api, namespace, identity
        self._version = ""
        self._seen_at = 0.0
        self._transitions = 0

    async def acquire(self) -> None:
        """Return once the Lease is ours."""
        log.info("waiting for the Lease %s/%s as %s", self._namespace, NAME, self._identity)
        while True:
            try:
                if await self._try():
                    log.info("holding the Lease %s/%s", self._namespace, NAME)
                    return
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                log.warning("cannot read the Lease: %s", error or type(error).__name__)
            await asyncio.sleep(RETRY_SECONDS)

    async def hold(self) -> None:
        """Renew until the Lease is lost: return then. The caller must stop acting at once."""
        renewed = time.monotonic()
        while time.monotonic() - renewed < GIVE_UP_SECONDS:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                async with asyncio.timeout(GIVE_UP_SECONDS - (time.monotonic() - renewed)):
                    await self._write(self._identity)
                renewed = time.monotonic()
            except ApiError as error:
                if error.status == 409:
                    break
                log.warning("cannot renew the Lease: %s", error)
            except (aiohttp.ClientError, TimeoutError) as error:
                log.warning("cannot renew the Lease: %s", error or type(error).__name__)
        log.error("lost the Lease %s/%s", self._namespace, NAME)

    async def release(self) -> None:
        """Give the Lease back, so that a waiting replica takes over at once."""
        try:
            async with asyncio.timeout(RENEW_SECONDS):
                await self._write("")
            log.info("gave the Lease %s/%s back", self._namespace, NAME)
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("cannot give the Lease back, it expires in %s s: %s", DURATION_SECONDS, error)

    async def _try(self) -> bool:
        found = await self._api.get(LEASE, self._namespace, NAME)
        if found is None:
            self._version = ""
        else:
            holder = found["spec"].get("holderIdentity", "")
            if found["metadata"]["resourceVersion"] != self._version:
                self._version, self._seen_at = found["metadata"]["resourceVersion"], time.monotonic()
            self._transitions = found["spec"].get("leaseTransitions", 0)
            if holder and holder != self._identity and time.monotonic() - self._seen_at < DURATION_SECONDS:
                return False
        try:
            self._transitions += 1
            await self._write(self._identity)
        except ApiError as error:
            if error.status == 409:
                return False
            raise
        return True

    async def _write(self, holder: str) -> None:
        """Write the Lease if it is still as we last saw it: ApiError 409 where another wrote meanwhile."""
        body: dict[str, Any] = {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": NAME, "namespace": self._namespace},
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": DURATION_SECONDS,
                "leaseTransitions": self._transitions,
                "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            },
        }
        if self._version:
            body["metadata"]["resourceVersion"] = self._version
        written = await self._api.apply(body, create=not self._version)
        self._version = written["metadata"]["resourceVersion"]
