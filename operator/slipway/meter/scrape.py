"""Asks one router for its statistics."""

import aiohttp

from slipway.core.observation import RouterSeen
from slipway.manifests.envoy import STATS_PORT
from slipway.meter.statistics import QUERY, Statistics

_TIMEOUT = aiohttp.ClientTimeout(total=2.0)


async def scrape(
    session: aiohttp.ClientSession, pod: str, address: str, ready: bool, statistics: Statistics
) -> tuple[RouterSeen, set[str]]:
    """Ask the router pod at `address` (IP), and bring its statistics up to date. One silent for 2 s is seen as silent.

    Answers also the revisions of which something was counted since the statistics were read last.
    """
    host = f"[{address}]" if ":" in address else address
    try:
        async with session.get(f"http://{host}:{STATS_PORT}/stats", params=QUERY, timeout=_TIMEOUT) as answer:
            if answer.status != 200:
                return RouterSeen(pod, ready), set()
            text = await answer.text(encoding="utf-8")
    except (aiohttp.ClientError, TimeoutError, OSError):
        return RouterSeen(pod, ready), set()
    changed = statistics.read(text)
    return seen(pod, ready, statistics), changed


def seen(pod: str, ready: bool, statistics: Statistics) -> RouterSeen:
    """Answer what a router that has answered was seen doing."""
    return RouterSeen(
        pod, ready, True, statistics.route_version, statistics.healthy, statistics.active, rejected=statistics.rejected
    )
