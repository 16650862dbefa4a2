"""The routes of a namespace: what its routers are told, and whether they do it.

The state is kept, as JSON, beside the router's files in one ConfigMap: Kubernetes is the database and the transport.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from slipway.core.observation import RouterSeen, RoutesSeen, Symptom


@dataclass(frozen=True)
class Wanted:
    """What one ModelDeployment asks of the routers: weights by revision (percent), and each revision's port."""

    weights: Mapping[str, int]
    ports: Mapping[str, int]
    hosts: tuple[str, ...] = ()
    timeout_seconds: float = 30.0

    @property
    def positive(self) -> dict[str, int]:
        """Answer the weights without zeros."""
        return {revision: weight for revision, weight in self.weights.items() if weight}


@dataclass(frozen=True)
class Route:
    """One ModelDeployment's route as written, and the version in which what it does for callers last changed."""

    wanted: Wanted
    version: int


@dataclass(frozen=True)
class RouterState:
    """All routes of a namespace. Versions only grow: a router that has version n has every change up to n."""

    version: int = 0
    routes: Mapping[str, Route] = field(default_factory=dict[str, Route])

    @property
    def clusters(self) -> dict[str, int]:
        """Answer the port of every revision that routers must know."""
        return {revision: port for route in self.routes.values() for revision, port in route.wanted.ports.items()}

    def dump(self) -> str:
        """Answer the state as JSON."""
        return json.dumps(
            {"version": self.version, "routes": {name: asdict(route) for name, route in sorted(self.routes.items())}},
            separators=(",", ":"),
        )


def _load_wanted(data: dict[str, Any]) -> Wanted:
    return Wanted(data["weights"], data["ports"], tuple(data["hosts"]), data["timeout_seconds"])


def load(text: str) -> RouterState:
    """Read what `RouterState.dump` wrote. Unreadable text is an empty state: it is then written anew."""
    try:
        data = json.loads(text)
        routes = {name: Route(_load_wanted(route["wanted"]), int(route["version"])) for name, route in data["routes"].items()}
        return RouterState(int(data["version"]), routes)
    except (ValueError, KeyError, TypeError):
        return RouterState()


def plan(
    written: RouterState, wanted: Mapping[str, Wanted], unknown: Iterable[str], live_version: int, now_ms: int
) -> RouterState:
    """Answer the next state.

    `wanted` holds what each ModelDeployment asks. Those in `unknown` cannot say (their spec is invalid, or their status is
    lost and not yet rebuilt): their route stays as it is. A new version is larger than every version written or live before,
    also where the ConfigMap was lost: it starts from the time in milliseconds.
    """
    routes = {name: written.routes[name] for name in unknown if name in written.routes}
    version = max(written.version + 1, live_version + 1, now_ms)
    for name, want in wanted.items():
        was = written.routes.get(name)
        routes[name] = Route(want, was.version if was is not None and _same(was.wanted, want) else version)
    return written if routes == written.routes else RouterState(version, routes)


def _same(was: Wanted, want: Wanted) -> bool:
    """Tell whether callers are routed alike. Ports only make endpoints known: a revision without weight is not routed to."""
    return (was.positive, was.hosts, was.timeout_seconds) == (want.positive, want.hosts, want.timeout_seconds)


def seen(state: RouterState, name: str, routers: tuple[RouterSeen, ...], config_error: Symptom | None) -> RoutesSeen:
    """Answer what the routers do for the ModelDeployment `name`.

    A router that neither answers nor is ready gets no traffic and does not count.
    """
    route = state.routes.get(name)
    if route is None:
        return RoutesSeen(routers=routers, config_error=config_error)
    settled = all(router.answered and router.route_version >= route.version for router in routers if router.counts)
    return RoutesSeen(route.wanted.positive, settled, routers, config_error)
