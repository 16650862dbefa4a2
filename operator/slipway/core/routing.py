"""The routes of a namespace: what its routers are told, and whether they do it.

The state is kept, as JSON, beside the router's files in one ConfigMap: Kubernetes is the database and the transport.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from slipway.core.observation import RouterSeen, RoutesSeen, Symptom
from slipway.core.steering import UNSTEERED, Match, Steering, Sticky


@dataclass(frozen=True)
class Wanted:
    """What one ModelDeployment asks of the routers: weights by revision (percent), each revision's port, and the rest.

    `limits` are the requests that each router lets a revision have under way; a revision without one has no limit but Envoy's.
    With `hold`, requests wait for a first pod where there is none.
    """

    weights: Mapping[str, int]
    ports: Mapping[str, int]
    hosts: tuple[str, ...] = ()
    timeout_seconds: float = 30.0
    steering: Steering = UNSTEERED
    limits: Mapping[str, int] = field(default_factory=dict[str, int])
    hold: bool = False

    @property
    def positive(self) -> dict[str, int]:
        """Answer the weights without zeros."""
        return {revision: weight for revision, weight in self.weights.items() if weight}


@dataclass(frozen=True)
class Route:
    """One ModelDeployment's route as written, and the version in which what it does for callers last changed.

    `known` is the version in which it last made the endpoints of a further revision known.
    """

    wanted: Wanted
    version: int
    known: int = 0


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
        routes = {
            name: {"wanted": _dump_wanted(route.wanted), "version": route.version, "known": route.known}
            for name, route in sorted(self.routes.items())
        }
        return json.dumps({"version": self.version, "routes": routes}, separators=(",", ":"))


def _dump_wanted(wanted: Wanted) -> dict[str, Any]:
    data = dict(vars(wanted))
    steering = data.pop("steering")
    if not wanted.limits:
        del data["limits"]  # most have none
    if not wanted.hold:
        del data["hold"]
    return data if steering == UNSTEERED else {**data, "steering": asdict(steering)}


def _load_wanted(data: dict[str, Any]) -> Wanted:
    steering = UNSTEERED
    if "steering" in data:
        testers, sticky = data["steering"].pop("testers"), data["steering"].pop("sticky")
        steering = Steering(**data["steering"], testers=testers and Match(**testers), sticky=sticky and _load_sticky(sticky))
    limits, hold = data.get("limits", {}), data.get("hold", False)
    return Wanted(data["weights"], data["ports"], tuple(data["hosts"]), data["timeout_seconds"], steering, limits, hold)


def _load_sticky(data: dict[str, Any]) -> Sticky:
    arms = tuple((revision, percent) for revision, percent in data.pop("arms", ()))
    return Sticky(**data, arms=arms)


def load(text: str) -> RouterState:
    """Read what `RouterState.dump` wrote. Unreadable text is an empty state: it is then written anew."""
    try:
        data = json.loads(text)
        routes = {
            name: Route(_load_wanted(route["wanted"]), int(route["version"]), int(route.get("known", 0)))
            for name, route in data["routes"].items()
        }
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
        if was is None:
            routes[name] = Route(want, version, version)
            continue
        more = want.ports.keys() - was.wanted.ports.keys()
        routes[name] = Route(want, was.version if _same(was.wanted, want) else version, version if more else was.known)
    return written if routes == written.routes else RouterState(version, routes)


def _same(was: Wanted, want: Wanted) -> bool:
    """Tell whether callers are routed alike. Ports only make endpoints known: a revision without weight is not routed to.

    Limits do not say where a request goes: no rollout waits for routers to take one over.
    """
    alike = {"ports": {}, "limits": {}}
    return replace(was, weights=was.positive, **alike) == replace(want, weights=want.positive, **alike)


def affected(state: RouterState, before: Iterable[RouterSeen], after: Iterable[RouterSeen]) -> set[str]:
    """Answer the ModelDeployments for which a router was seen doing something else than before.

    That is: routers came, went or changed their readiness, one took the route over, or one sees other endpoints of it.
    """
    was, is_ = tuple(before), tuple(after)

    def picture(route: Route, routers: tuple[RouterSeen, ...]) -> list[object]:
        return [
            (
                one.pod,
                one.ready,
                one.answered,
                one.route_version >= route.version,
                one.route_version >= route.known,
                *map(one.healthy.get, route.wanted.ports),
            )
            for one in routers
        ]

    return {name for name, route in state.routes.items() if picture(route, was) != picture(route, is_)}


def service_names(name: str, namespace: str, domain: str) -> tuple[str, ...]:
    """Answer the names by which callers in the cluster reach the Service of a ModelDeployment."""
    return name, f"{name}.{namespace}", f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.{domain}"


def preview_name(name: str) -> str:
    """Answer the name of the Service behind which a candidate answers alone."""
    return f"{name}-preview"


# Copies of requests go to a revision by clusters of their own: what they do does not touch those of callers.
_MIRRORS = ("-mirror", "-mirror-grpc")


def mirror_names(revision: str) -> tuple[str, ...]:
    """Answer the clusters by which copies of requests go to a revision: by HTTP/1.1, and of gRPC."""
    return tuple(revision + each for each in _MIRRORS)


def mirrored(cluster: str) -> str:
    """Answer the revision of a cluster, which may be one for copies."""
    return cluster.removesuffix("-grpc").removesuffix("-mirror") if cluster.endswith(_MIRRORS) else cluster


def share_hosts(
    asked: Mapping[str, Iterable[str]], namespace: str, domain: str
) -> tuple[dict[str, tuple[str, ...]], dict[str, Symptom]]:
    """Answer the host names that each ModelDeployment gets, and who was refused some: the first that asks has a host.

    A router takes no configuration in which two routes answer to one host, so one such pair would stop all changes of the
    namespace: the names of previews are kept free, for they come and go. `asked` is in the order of precedence.
    """
    taken = {host: name for name in asked for host in service_names(name, namespace, domain)}
    previews = {host: name for name in asked for host in service_names(preview_name(name), namespace, domain)}
    got: dict[str, tuple[str, ...]] = {}
    refused: dict[str, Symptom] = {}
    for name, hosts in asked.items():
        mine: list[str] = []
        for host in hosts:
            if host in previews and host not in taken:
                message = f"spec.routing.hosts: {host} is the preview of ModelDeployment {previews[host]}: remove it"
                refused[name] = Symptom("HostTaken", message)
            elif host not in taken:
                taken[host] = name
                mine.append(host)
            elif taken[host] != name:
                message = (
                    f"spec.routing.hosts: {host} already belongs to ModelDeployment {taken[host]}: remove it from one of them"
                )
                refused[name] = Symptom("HostTaken", message)
        got[name] = tuple(mine)
    return got, refused


def seen(state: RouterState, name: str, routers: tuple[RouterSeen, ...], config_error: Symptom | None) -> RoutesSeen:
    """Answer what the routers do for the ModelDeployment `name`.

    A router that neither answers nor is ready gets no traffic and does not count.
    """
    route = state.routes.get(name)
    if route is None:
        return RoutesSeen(routers=routers, config_error=config_error)
    settled = all(router.answered and router.route_version >= route.version for router in routers if router.counts)
    wanted = route.wanted
    return RoutesSeen(
        wanted.positive, settled, routers, config_error, steering=wanted.steering, hold=wanted.hold, known=route.known
    )
