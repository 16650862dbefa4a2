"""The activator's own metrics."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.1, 0.5, 1, 2, 5, 10, 20, 40, 80, 160, 320)


class Metrics:
    """What waits, went and was refused. `waiting` answers how many wait, `woken` how often a ModelDeployment was woken."""

    def __init__(self, waiting: Callable[[], int], woken: Callable[[], int]) -> None:
        registry = self.registry = CollectorRegistry()
        gauge = Gauge("slipway_activator_waiting", "Requests that wait for a pod.", registry=registry)
        gauge.set_function(waiting)
        count = Gauge("slipway_activator_woken", "ModelDeployments woken since the start.", registry=registry)
        count.set_function(woken)
        self.seconds = Histogram(
            "slipway_activator_held_seconds", "Time until a request could go to a pod.", buckets=_SECONDS, registry=registry
        )
        self.refused = Counter(
            "slipway_activator_refused", "Requests refused, by what was at its limit.", ["limit"], registry=registry
        )
        self.left = Counter("slipway_activator_handed_over", "Requests left to another activator.", registry=registry)
