"""Asks two revisions the same, and compares what they answer."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from slipway.core.agreement import Answer, Comparison, Rule, compare
from slipway.meter.pods import read_at_most

BODY_MAX = 1024 * 1024
REVISION_HEADER = "x-slipway-revision"
# Marks what the comparer sends, so that it never compares its own requests.
OWN_HEADER = "x-slipway-compare"
# What is of one connection, or added by a router. Answers are asked for as they are, not compressed.
_DROPPED = frozenset(
    "accept-encoding connection content-length expect host keep-alive te trailer transfer-encoding upgrade".split()  # noqa: SIM905
)
_DROPPED_PREFIXES = ("proxy-", "x-envoy-", "x-forwarded-")
# A router ends a request at the model's own timeout. It is waited for a little longer, to hear so from it.
_MARGIN_SECONDS = 2.0


@dataclass(frozen=True)
class LiveRequest:
    """A caller's request, as a router copied it. Headers and body are the caller's secrets: they are in no representation."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Targets:
    """The two: where stable's pods are, and the routers that reach the revision `candidate`, it alone, by the name `host`.

    Both are asked under that name, for a model may look at it.
    """

    stable_url: str
    candidate_url: str
    host: str
    candidate: str


def open_session(parallel: int) -> aiohttp.ClientSession:
    """Open a session for so many pairs at a time. It adds nothing to what a caller sent, and keeps no caller's cookies."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=2 * parallel, ttl_dns_cache=5),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("accept", "accept-encoding", "content-type", "user-agent"),
    )


class Pairs:
    """Compares one request after the other by a rule. `timeout_seconds` is how long a request to the model may take."""

    def __init__(self, session: aiohttp.ClientSession, targets: Targets, rule: Rule, timeout_seconds: float) -> None:
        self._session, self._targets, self._rule = session, targets, rule
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds + _MARGIN_SECONDS)

    async def compare(self, request: LiveRequest) -> Comparison:
        """Send the request to both at the same time and compare the answers."""
        headers = [*_forwarded(request.headers), (OWN_HEADER, "1"), ("host", self._targets.host)]
        stable, candidate = await asyncio.gather(
            self._ask(self._targets.stable_url, request, headers),
            self._ask(self._targets.candidate_url, request, headers, routed=True),
        )
        return compare(stable, candidate, self._rule)

    async def _ask(
        self, base: str, request: LiveRequest, headers: list[tuple[str, str]], *, routed: bool = False
    ) -> Answer | None:
        url = URL(base.rstrip("/") + request.path, encoded=True)
        try:
            async with self._session.request(
                request.method, url, headers=headers, data=request.body, allow_redirects=False, timeout=self._timeout
            ) as answer:
                own = not routed or self._is_candidates(answer)
                if answer.headers.get("content-encoding", "identity").lower() != "identity":
                    return Answer(answer.status, None, unread="encoded", own=own)
                body = await read_at_most(answer.content, BODY_MAX)
                if body is None:
                    answer.close()
                    return Answer(answer.status, None, unread="too_large", own=own)
                length = answer.headers.get("inference-header-content-length", "")
                return Answer(answer.status, body, int(length) if length.isdecimal() and len(length) < 10 else None, own=own)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None

    def _is_candidates(self, answer: aiohttp.ClientResponse) -> bool:
        """Tell whether a router passed the candidate's answer on; one that has no route to it, yet or any more, says 404."""
        told = answer.headers.get(REVISION_HEADER)
        return answer.status != 404 if told is None else told == self._targets.candidate


def _forwarded(headers: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for name, value in headers:
        lower = name.lower()
        if lower not in _DROPPED and not lower.startswith(_DROPPED_PREFIXES):
            yield name, value
