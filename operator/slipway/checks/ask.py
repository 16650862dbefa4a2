"""One question by HTTP: to whom the user may name, by no detour, bounded in time and in what is read."""

import asyncio
import json
import math
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import aiohttp
from yarl import URL

from slipway.core.polled import Answer, Hook, MetricQuery, Outcome, Outward, Polled, Query, Subject, phrase
from slipway.kube.api import ApiError

BODY_BYTES = 64 * 1024
# Sums of squares of larger numbers are none that a float can hold.
_MEAN_MAX = 1e100
# What these say is not about the candidate: nobody is there, nobody is let in, or not now.
_NOT_A_WORD = (401, 403, 404, 405, 408, 429)

Services = Callable[[str, str], Awaitable[Mapping[str, Any] | None]]
"""Answers the Service of a namespace by its name, None where there is none."""


class NoAnswerError(Exception):
    """There was no answer that says anything; why, in words that may be shown."""


@dataclass(frozen=True)
class Asker:
    """Asks on behalf of the users of all namespaces. A Service of theirs is reached by the address that it has in the cluster.

    So a Service that only stands for another name (ExternalName) leads nowhere, and no name is looked up on their behalf.
    """

    session: aiohttp.ClientSession
    outward: Outward
    services: Services

    @staticmethod
    def open_session() -> aiohttp.ClientSession:
        """Open connections that keep no cookies, inflate nothing and know no proxies."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=512, limit_per_host=32, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"User-Agent": "slipway", "Accept": "application/json", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def ask(self, check: Polled, subject: Subject) -> Answer:
        """Answer what is said of the candidate."""
        try:
            if isinstance(check.ask, Query):
                return await self._number(check, check.ask, subject)
            if isinstance(check.ask, MetricQuery):
                return await self._means(check, check.ask, subject)
            assert isinstance(check.ask, Hook)  # noqa: S101 - a Job is no question
            return await self._word(check, check.ask, subject)
        except NoAnswerError as error:
            return Answer(Outcome.NONE, phrase(str(error)))

    async def trouble(self, check: Polled, subject: Subject) -> Answer | None:
        """Answer why the Prometheus of a check says nothing, None where it does: asked what costs it nothing."""
        assert isinstance(check.ask, Query | MetricQuery)  # noqa: S101 - only a Prometheus can be asked without effect
        try:
            await self._queried(check, check.ask, "1", subject.namespace)
        except NoAnswerError as error:
            return Answer(Outcome.NONE, phrase(str(error)))
        return None

    async def _number(self, check: Polled, ask: Query, subject: Subject) -> Answer:
        value = await self._queried(check, ask, subject.fill(ask.query), subject.namespace)
        told = f"{value:.4g}, limit {ask.limit}"
        return Answer(Outcome.GOOD if ask.keeps(value) else Outcome.BAD, told, value)

    async def _means(self, check: Polled, ask: MetricQuery, subject: Subject) -> Answer:
        """Answer the means of both arms: there is an answer where both have one."""
        candidate, stable = [await self._mean(check, ask, subject, arm) for arm in (subject.revision, subject.stable)]
        return Answer(Outcome.GOOD, f"{candidate:.4g}, stable {stable:.4g}", candidate, stable)

    async def _mean(self, check: Polled, ask: MetricQuery, subject: Subject, arm: str) -> float:
        try:
            value = await self._queried(check, ask, replace(subject, revision=arm).fill(ask.query), subject.namespace)
        except NoAnswerError as error:
            raise NoAnswerError(f"of {arm}: {error}") from None
        if abs(value) > _MEAN_MAX:
            raise NoAnswerError(f"of {arm}: the query gives {value:g}, of which no mean can be taken")
        return value

    async def _queried(self, check: Polled, ask: Query | MetricQuery, query: str, namespace: str) -> float:
        url = ask.address or self.outward.prometheus
        params = {"query": query, "timeout": f"{check.timeout_seconds:g}s"}
        trusted = ask.address is None
        url = f"{url.rstrip('/')}/api/v1/query"
        status, body = await self._send(check, "GET", url, namespace, trusted=trusted, params=params)
        return number(status, body)

    async def _word(self, check: Polled, ask: Hook, subject: Subject) -> Answer:
        told = {
            "name": subject.name,
            "namespace": subject.namespace,
            "revision": subject.revision,
            "version": subject.version,
            "stable": subject.stable,
            "step": subject.step,
            "weight": subject.weight,
        }
        return word(*await self._send(check, "POST", ask.url, subject.namespace, json=told))

    async def _send(
        self, check: Polled, method: str, url: str, namespace: str, *, trusted: bool = False, **more: Any
    ) -> tuple[int, bytes]:
        """Answer status and body. A redirect is an answer like others, and not followed."""
        seconds, host = check.timeout_seconds, URL(url).host
        try:
            async with asyncio.timeout(seconds):
                target, headers = (URL(url), {}) if trusted else await self._locate(url, namespace)
                request = self.session.request(method, target, headers=headers, allow_redirects=False, **more)
                async with request as answer:
                    return answer.status, await _read(answer)
        except TimeoutError:
            raise NoAnswerError(f"{host} did not answer within {seconds:g} s") from None
        except (aiohttp.ClientConnectorError, OSError) as error:
            code = error.errno or 0
            why = os.strerror(code) if code > 0 else "its name is not known"
            raise NoAnswerError(f"{host} cannot be reached: {why}") from None
        except (aiohttp.ClientError, ValueError) as error:
            raise NoAnswerError(f"{host} did not answer in HTTP: {type(error).__name__}") from None

    async def _locate(self, url: str, namespace: str) -> tuple[URL, dict[str, str]]:
        """Answer what to connect to, and the header Host where the URL does not say it."""
        asked = URL(url)
        if asked.host in self.outward.hosts:
            return asked, {}
        name = self.outward.service(url, namespace)
        if name is None:
            raise NoAnswerError(f"{asked.host} may not be asked")
        try:
            service = await self.services(namespace, name)
        except ApiError as error:
            raise NoAnswerError(f"the Service {name} cannot be looked up: {error.reason or error.status}") from None
        if service is None:
            raise NoAnswerError(f"there is no Service {name} in namespace {namespace}")
        address = service["spec"].get("clusterIP") or "None"
        if service["spec"].get("type") == "ExternalName" or address == "None":
            raise NoAnswerError(f"the Service {name} has no address of its own in the cluster (ExternalName, or headless)")
        host = f"{name}.{namespace}.svc"
        return asked.with_host(address), {"Host": host if asked.is_default_port() else f"{host}:{asked.port}"}


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    body = b""
    async for chunk in answer.content.iter_chunked(8192):
        body += chunk
        if len(body) > BODY_BYTES:
            raise NoAnswerError(f"an answer has more than {BODY_BYTES // 1024} KiB")
    return body


def number(status: int, body: bytes) -> float:
    """Answer the one number in an answer of Prometheus' HTTP API. Raises NoAnswerError where there is none, several, or NaN."""
    told = _json(body)
    if not isinstance(told, dict) or told.get("status") not in ("success", "error"):
        raise NoAnswerError(f"status {status} and no answer of Prometheus' API: is the address right?")
    if told["status"] == "error":
        raise NoAnswerError(f"the query is refused: {told.get('error')}")
    data: Any = told.get("data")
    kind, result = (data.get("resultType"), data.get("result")) if isinstance(data, dict) else (None, None)
    if kind == "vector" and isinstance(result, list):
        series = cast("list[Any]", result)
        if len(series) != 1:
            cure = ": aggregate them, as by sum()" if series else ""
            raise NoAnswerError(f"the query gives {len(series)} series{cure}")
        result = series[0].get("value") if isinstance(series[0], dict) else None
    elif kind != "scalar":
        raise NoAnswerError(f"the query gives a {phrase(str(kind))}, not one number")
    try:
        value = float(cast("Any", result)[1])
    except (TypeError, ValueError, IndexError, KeyError):
        raise NoAnswerError("the query gives no number") from None
    if math.isnan(value):
        raise NoAnswerError("the query gives NaN: nothing to divide, or to take a quantile of")
    return value


def word(status: int, body: bytes) -> Answer:
    """Answer what a webhook's answer says: 2xx is good unless it says `"passed": false`, 4xx is bad, the rest says nothing.

    Raises NoAnswerError there.
    """
    told = _json(body)
    said: dict[str, Any] = told if isinstance(told, dict) else {}
    message = phrase(said["message"]) if isinstance(said.get("message"), str) else ""
    if 400 <= status < 500 and status not in _NOT_A_WORD:
        return Answer(Outcome.BAD, message or f"status {status}")
    if not 200 <= status < 300:
        raise NoAnswerError(f"status {status}" + (", a redirect, which is not followed" if 300 <= status < 400 else ""))
    passed = said.get("passed", True)
    if not isinstance(passed, bool):
        raise NoAnswerError("`passed` in its answer is neither true nor false")
    return Answer(Outcome.GOOD, message) if passed else Answer(Outcome.BAD, message or "passed is false")


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
