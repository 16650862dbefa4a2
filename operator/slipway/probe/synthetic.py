"""Sends a user's sample of requests to candidates that no caller reaches, through the routers, which measure the answers."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from yarl import URL

from slipway.core.observation import Symptom
from slipway.core.sample import SampleError, SampleRequest, parse
from slipway.core.symptoms import short
from slipway.kube.api import Api, ApiError
from slipway.kube.kinds import CONFIG_MAP
from slipway.manifests.envoy import HTTP_PORT
from slipway.meter.meter import RouterPod
from slipway.queue import Key

log = logging.getLogger(__name__)
RATE_MAX = 50.0
# Requests of one rollout under way at a time: a candidate that hangs holds so many, and no one else's.
SLOTS = 64
_LOOK_SECONDS = 0.25
_ROUTERS_SECONDS = 1.0
_RETRY_SECONDS = 10.0
# A router ends a request at the model's own timeout. It is waited for a little longer, for it is to count that.
_MARGIN_SECONDS = 2.0


@dataclass(frozen=True)
class Wish:
    """One rollout's wish: the sample in `config_map` under `key`, so often a second (1 to RATE_MAX), to the routers' `host`."""

    namespace: str
    model: str
    host: str
    config_map: str
    key: str
    rate: float
    timeout_seconds: float = 30.0


@dataclass
class Sending:
    """What became of a wish: requests `sent`, and those `skipped` for want of a ready router or of a free slot."""

    wish: Wish
    sent: int = 0
    skipped: int = 0
    symptom: Symptom | None = None
    task: asyncio.Task[None] | None = field(default=None, repr=False)


ReadConfigMap = Callable[[str, str], Awaitable[dict[str, Any] | None]]


def config_maps(api: Api) -> ReadConfigMap:
    """Answer how a ConfigMap is read: by a list of that name, for which the rights that the operator has are enough."""

    async def read(namespace: str, name: str) -> dict[str, Any] | None:
        async for found, _ in api.list(CONFIG_MAP, namespace, fields=f"metadata.name={name}"):
            for obj in found:
                return obj
        return None

    return read


class Synthetic:
    """Sends what is wished for, as long as it is wished for.

    `wishes` answers the rollouts whose step is under way and asks for it; `routers` the router pods of a namespace; `read` a
    ConfigMap, None where there is none; `changed` is told of whose symptom is another than before.
    """

    def __init__(
        self,
        wishes: Callable[[], Iterable[Wish]],
        routers: Callable[[str], Iterable[RouterPod]],
        read: ReadConfigMap,
        changed: Callable[[Key], None],
    ) -> None:
        self._wishes, self._routers, self._read, self._changed = wishes, routers, read, changed
        self._sending: dict[Key, Sending] = {}
        self._wake = asyncio.Event()

    def symptom(self, namespace: str, model: str) -> Symptom | None:
        """Answer why a rollout's sample is not sent; None where it is, or none is wished for."""
        sending = self._sending.get((namespace, model))
        return sending.symptom if sending is not None else None

    def look(self) -> None:
        """Look at the wishes at once, not only within a quarter of a second: a rollout has begun or ended."""
        self._wake.set()

    async def run(self) -> None:
        """Send until cancelled."""
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
        ) as session:
            try:
                while True:
                    self._wake.clear()
                    self._follow(session)
                    try:
                        async with asyncio.timeout(_LOOK_SECONDS):
                            await self._wake.wait()
                    except TimeoutError:
                        pass
            finally:
                for key in list(self._sending):
                    self._stop(key)

    def _follow(self, session: aiohttp.ClientSession) -> None:
        wished = {(wish.namespace, wish.model): wish for wish in self._wishes()}
        for key, sending in list(self._sending.items()):
            if wished.get(key) != sending.wish:
                self._stop(key)
        for key in wished.keys() - self._sending.keys():
            sending = self._sending[key] = Sending(wished[key])
            sending.task = asyncio.create_task(self._keep_sending(session, sending))

    def _stop(self, key: Key) -> None:
        """End what is sent, requests under way included."""
        task = self._sending.pop(key).task
        if task is not None:
            task.cancel()

    async def _keep_sending(self, session: aiohttp.ClientSession, sending: Sending) -> None:
        while True:
            sample, symptom = await self._sample(sending.wish)
            if symptom != sending.symptom:
                sending.symptom = symptom
                self._changed((sending.wish.namespace, sending.wish.model))
            try:
                if sample:
                    await self._send_for_ever(session, sending, sample)
            except Exception as error:  # the text of an error may hold what the sample holds
                first = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
                log.error("a sample is not sent for a while: %s", type(first).__name__)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _sample(self, wish: Wish) -> tuple[tuple[SampleRequest, ...], Symptom | None]:
        """Read the sample; where it is of no use, answer why."""
        where = f"the sample in ConfigMap {wish.config_map}, key {wish.key}"
        try:
            found = await self._read(wish.namespace, wish.config_map)
        except ApiError as error:
            return (), Symptom("SampleInvalid", short(f"{where}, cannot be read: {error}"))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return (), Symptom("SampleInvalid", f"{where}, cannot be read: {type(error).__name__}")
        if found is None:
            return (), Symptom("SampleInvalid", f"{where}: there is no ConfigMap of that name; create it")
        text = (found.get("data") or {}).get(wish.key)
        if text is None:
            return (), Symptom("SampleInvalid", f"{where}: it has no such key with text; add it below data")
        try:
            return parse(text, wish.model), None
        except SampleError as error:
            return (), Symptom("SampleInvalid", f"{where}: {error}")

    async def _send_for_ever(self, session: aiohttp.ClientSession, sending: Sending, sample: tuple[SampleRequest, ...]) -> None:
        """Send one request after the other at the rate, whether or not those before have been answered."""
        clock = asyncio.get_running_loop().time
        period = 1 / min(sending.wish.rate, RATE_MAX)
        slots = 0
        routers: list[str] = []
        routers_at = -_ROUTERS_SECONDS
        due = clock()

        def ended(_: object) -> None:
            nonlocal slots
            slots -= 1

        async with asyncio.TaskGroup() as group:
            number = 0
            while True:
                now = clock()
                if now - routers_at >= _ROUTERS_SECONDS:
                    routers = [pod.address for pod in self._routers(sending.wish.namespace) if pod.ready]
                    routers_at = now
                if routers and slots < SLOTS:
                    slots += 1
                    asked = self._send(session, sending.wish, sample[number % len(sample)], routers[number % len(routers)])
                    group.create_task(asked).add_done_callback(ended)
                    sending.sent += 1
                else:
                    sending.skipped += 1
                number += 1
                due = max(due + period, now)  # what was missed is not made up for: it would come all at once
                await asyncio.sleep(due - clock())

    @staticmethod
    async def _send(session: aiohttp.ClientSession, wish: Wish, request: SampleRequest, address: str) -> None:
        """Send one request and read its answer to the end: the routers would take less for a caller who gave up."""
        host = f"[{address}]" if ":" in address else address
        url = URL(f"http://{host}:{HTTP_PORT}{request.path}", encoded=True)
        timeout = aiohttp.ClientTimeout(total=wish.timeout_seconds + _MARGIN_SECONDS)
        headers = [*request.headers, ("host", wish.host)]
        try:
            async with session.request(
                request.method, url, headers=headers, data=request.body or None, allow_redirects=False, timeout=timeout
            ) as answer:
                async for _ in answer.content.iter_any():
                    pass
        except (aiohttp.ClientError, TimeoutError, OSError):
            return  # what the candidate did wrong the routers have counted
