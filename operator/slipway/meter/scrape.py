"""Asks one router for its statistics."""

import aiohttp

from slipway.core.observation import RouterSeen
from slipway.manifests.envoy import STATS_PORT
from slipway.meter.pods import read_text
from slipway.meter.statistics import QUERY, Statistics

# A full namespace's router says 5 MB at most: two revisions of 450 ModelDeployments, all buckets of their histograms in use.
_ANSWER_MAX = 8 * 1024 * 1024


async def scrape(
    session: aiohttp.ClientSession, pod: str, address: str, ready: bool, statistics: Statistics
) -> tuple[RouterSeen, set[str]]:
    """Ask the router pod at `address` (IP), and bring its statistics up to date. One silent for 2 s is seen as silent.

    Answers also the revisions of which something was counted since the statistics were read last. Raises ValueError where it says
    what no router says.
    """
    text = await read_text(session, address, STATS_PORT, "/stats", _ANSWER_MAX, QUERY)
    if text is None:
        return RouterSeen(pod, ready), set()
    changed = statistics.read(text)
    return seen(pod, ready, statistics), changed


def seen(pod: str, ready: bool, statistics: Statistics) -> RouterSeen:
    """Answer what a router that has answered was seen doing."""
    return RouterSeen(
        pod, ready, True, statistics.route_version, statistics.healthy, statistics.active, rejected=statistics.rejected
    )
