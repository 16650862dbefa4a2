"""Reads one router's statistics."""

import aiohttp

from slipway.core.observation import RouterSeen
from slipway.manifests.envoy import ROUTES, STATS_PORT

# A regular expression of Envoy statistics: the version of the routes in force, configurations refused, and for each cluster
# (a revision) its usable endpoints and its requests in flight.
_FILTER = (
    rf"(\.rds\.{ROUTES}\.(version_text|update_rejected)|cluster_manager\.cds\.update_rejected"
    r"|^cluster\.[^.]+\.(membership_healthy|upstream_rq_active))$"
)
_TIMEOUT = aiohttp.ClientTimeout(total=2.0)


async def scrape(session: aiohttp.ClientSession, pod: str, address: str, ready: bool) -> RouterSeen:
    """Ask the router pod at `address` (IP). One that does not answer within 2 s is seen as silent."""
    host = f"[{address}]" if ":" in address else address
    try:
        async with session.get(f"http://{host}:{STATS_PORT}/stats", params={"filter": _FILTER}, timeout=_TIMEOUT) as answer:
            if answer.status != 200:
                return RouterSeen(pod, ready)
            return parse(pod, ready, await answer.text())
    except (aiohttp.ClientError, TimeoutError, OSError):
        return RouterSeen(pod, ready)


def parse(pod: str, ready: bool, text: str) -> RouterSeen:
    """Read Envoy's text form of statistics: one `name: value` a line."""
    version = rejected = 0
    healthy: dict[str, int] = {}
    active: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(": ")
        if name.endswith(".version_text"):
            digits = value.strip('"')
            version = int(digits) if digits.isdigit() else 0
        elif name.endswith(".update_rejected"):
            rejected += int(value)
        elif name.endswith(".membership_healthy"):
            healthy[name[8:-19]] = int(value)
        elif name.endswith(".upstream_rq_active"):
            active[name[8:-19]] = int(value)
    return RouterSeen(pod, ready, True, version, healthy, active, rejected=rejected)
