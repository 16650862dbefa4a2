"""What the decisions see: one frozen picture of the world, gathered before anything is decided."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from slipway.core.figures import Figures
from slipway.core.steering import UNSTEERED, Steering


@dataclass(frozen=True)
class Symptom:
    """Why a pod is not well, in plain words."""

    reason: str
    message: str


@dataclass(frozen=True)
class RevisionSeen:
    """One revision's pods."""

    replicas: int = 0
    ready: int = 0
    symptom: Symptom | None = None
    stage: Symptom | None = None
    """What its first pod that is not ready does to become so: it fetches or loads its model."""
    figures: Figures | None = None
    """What its callers got over the last LIVE_SECONDS."""
    leaving: int = 0
    """Ready pods that an earlier Deployment of that name left behind: the garbage collector is about to delete them."""

    @property
    def staying(self) -> int:
        """Answer how many ready pods a step may begin with."""
        return self.ready - self.leaving


@dataclass(frozen=True)
class RouterSeen:
    """One router pod at its latest scrape.

    `late`: it missed its latest scrape, and this is what it said before. `healthy` and `active` give, by revision, the
    endpoints that this router would use and its requests in flight; `rejected` how often it refused a configuration.
    """

    pod: str
    ready: bool = False
    answered: bool = False
    route_version: int = 0
    healthy: Mapping[str, int] = field(default_factory=dict[str, int])
    active: Mapping[str, int] = field(default_factory=dict[str, int])
    late: bool = False
    rejected: int = 0

    @property
    def counts(self) -> bool:
        """Tell whether callers may still reach this router: it is in the Service, or it answers (as one that drains does)."""
        return self.ready or self.answered


@dataclass(frozen=True)
class RoutesSeen:
    """What all routers of the namespace do for one ModelDeployment.

    `written` are the weights asked of the routers (by revision, without zeros), `steering` is the rest. `settled` says that
    every router that a caller may still reach has taken them over; `symptom` why no router is well, where none is ready. With
    `hold`, requests wait for a first pod where there is none. `known` is the version in which a revision was last made known.
    """

    written: Mapping[str, int] = field(default_factory=dict[str, int])
    settled: bool = False
    routers: tuple[RouterSeen, ...] = ()
    config_error: Symptom | None = None
    symptom: Symptom | None = None
    steering: Steering = UNSTEERED
    hold: bool = False
    known: int = 0

    def does(self, weights: Mapping[str, int], steering: Steering) -> bool:
        """Tell whether every router is seen doing just that; `weights` may have zeros."""
        return self.live == {revision: weight for revision, weight in weights.items() if weight} and self.steering == steering

    def names(self, revision: str) -> bool:
        """Tell whether the routes as written may lead a request to the revision."""
        return revision in self.written or revision == self.steering.revision

    def healthy(self, revision: str) -> int:
        """Answer how many endpoints of the revision every router sees: the least over all routers, 0 without routers.

        What a router sees of one that gets no requests may be left of an earlier configuration, and about to go: it counts once
        the router has the one in which revisions were last made known.
        """
        sees = [
            router.healthy.get(revision, 0) if revision in self.written or router.route_version >= self.known else 0
            for router in self._counting
        ]
        return min(sees, default=0)

    def reached(self, revision: str) -> bool:
        """Tell whether every ready router has an endpoint of the revision; what a silent one has is not known."""
        return all(router.healthy.get(revision, 0) for router in self.routers if router.ready and router.answered)

    def idle(self, revision: str) -> bool:
        """Tell whether no router has a request in flight to the revision."""
        return all(router.answered and not router.late and not router.active.get(revision, 0) for router in self._counting)

    @property
    def live(self) -> Mapping[str, int] | None:
        """Answer the weights that every router gives, None while one differs or none is ready."""
        return self.written if self.settled and self.ready else None

    @property
    def ready(self) -> int:
        """Answer the number of ready routers."""
        return sum(router.ready for router in self.routers)

    @property
    def _counting(self) -> list[RouterSeen]:
        return [router for router in self.routers if router.counts]
