"""Other autoscalers, as their sources define them: HPA on cpu, KEDA on requests per second, Knative's KPA on concurrency.

Sources: kubernetes `pkg/controller/podautoscaler` (`replica_calculator.go`, `horizontal.go`) and `pkg/apis/autoscaling/v2/
defaults.go`; kedacore/keda, whose scalers are external metrics of an HPA; knative/serving `pkg/autoscaler/scaling/autoscaler.go`,
`pkg/autoscaler/aggregation` and `config/core/configmaps/autoscaler.yaml`.
"""

import math
from collections import deque
from collections.abc import Sequence

from slipway.simulate.queueing import PodKind
from slipway.simulate.replay import Meters

_HPA_SYNC_SECONDS = 15
_HPA_TOLERANCE = 0.1
_HPA_DOWN_SECONDS = 300
# metrics-server asks the kubelets every 15 s, and these their containers every 10: what the HPA sees is of a while ago.
_METRICS_LAG_SECONDS = 5


class _Hpa:
    """What every HPA does with a recommendation: default behavior of autoscaling/v2."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._recommended: deque[tuple[int, int]] = deque()
        self._ordered: deque[tuple[int, int]] = deque()

    def settle(self, now: int, wanted: int, ordered: int) -> int:
        """Answer the replicas: down to the largest recommendation of 5 minutes; up by 4 pods or 100% in 15 s at most."""
        self._recommended.append((now, wanted))
        while self._recommended[0][0] <= now - _HPA_DOWN_SECONDS:
            self._recommended.popleft()
        if wanted < ordered:
            wanted = min(max(each for _, each in self._recommended), ordered)
        while self._ordered and self._ordered[0][0] <= now - _HPA_SYNC_SECONDS:
            self._ordered.popleft()
        before = ordered - sum(added for _, added in self._ordered)
        wanted = min(wanted, max(before + 4, before * 2), self._maximum)
        if wanted > ordered:
            self._ordered.append((now, wanted - ordered))
        return max(wanted, 1)


class HpaCpu:
    """HPA on the average cpu utilisation of ready pods: 70% of the request, which is a core for each worker."""

    name = "HPA cpu 70%"

    def __init__(self, kind: PodKind, maximum: int, target: float = 0.7) -> None:
        self._hpa, self._workers, self._target = _Hpa(maximum), kind.workers, target

    def decide(self, meters: Meters, ready: int, ordered: int) -> int:
        """Answer the replicas."""
        now = len(meters.arrived)
        if now % _HPA_SYNC_SECONDS or now < 2 * _HPA_SYNC_SECONDS or not ready:
            return ordered
        window = slice(now - _METRICS_LAG_SECONDS - _HPA_SYNC_SECONDS, now - _METRICS_LAG_SECONDS)
        busy = _mean(meters.busy[window])
        pods = _mean(meters.ready[window])
        ratio = busy / (pods * self._workers) / self._target
        starting = ordered - ready
        if ratio > 1 and starting:
            # Unready pods count as idle on the way up, and the direction must not turn by that.
            ratio = ratio * ready / ordered
            wanted = ordered if ratio <= 1 + _HPA_TOLERANCE else math.ceil(ratio * ordered)
        elif abs(1 - ratio) <= _HPA_TOLERANCE:
            wanted = ordered
        else:
            wanted = math.ceil(ratio * ready)
        return self._hpa.settle(now, wanted, ordered)


class KedaRps:
    """KEDA: an HPA on requests per second a pod, from Prometheus: 70% of what a pod can serve, rate over a minute."""

    name = "KEDA rps 70%"

    def __init__(self, kind: PodKind, maximum: int, target: float = 0.7) -> None:
        self._hpa, self._target = _Hpa(maximum), target * kind.requests_per_second

    def decide(self, meters: Meters, ready: int, ordered: int) -> int:
        """Answer the replicas: the metric's total by the target of a pod (GetExternalPerPodMetricReplicas)."""
        now = len(meters.arrived)
        if now % _HPA_SYNC_SECONDS or now < 60 or not ordered:
            return ordered
        total = _mean(meters.ended[now - 60 : now])
        wanted = ordered
        if abs(1 - total / (self._target * ordered)) > _HPA_TOLERANCE:
            wanted = math.ceil(total / self._target)
        return self._hpa.settle(now, wanted, ordered)


class Kpa:
    """Knative's autoscaler with its default configuration: concurrency, 70% of the pod's limit, 60 s and 6 s windows."""

    name = "KPA 0.7"

    def __init__(self, kind: PodKind, maximum: int, target: float = 0.7) -> None:
        self._target, self._maximum = target * kind.workers, maximum
        self._panic_since: int | None = None
        self._panic_pods = 0

    def decide(self, meters: Meters, ready: int, ordered: int) -> int:
        """Answer the replicas (autoscaler.Scale, every 2 s)."""
        now = len(meters.arrived)
        if now % 2:
            return ordered
        pods = max(ready, 1)
        lowest, highest = math.floor(pods / 2.0), math.ceil(pods * 1000.0)
        stable_needs = math.ceil(_mean(meters.concurrency[max(now - 60, 0) :]) / self._target)
        panic_needs = math.ceil(_mean(meters.concurrency[max(now - 6, 0) :]) / self._target)
        stable = min(max(stable_needs, lowest), highest)
        panic = min(max(panic_needs, lowest), highest)
        if panic_needs / pods >= 2:
            self._panic_since = now
        elif self._panic_since is not None and self._panic_since + 60 < now:
            self._panic_since, self._panic_pods = None, 0
        wanted = stable
        if self._panic_since is not None:
            self._panic_pods = max(self._panic_pods, stable, panic)
            wanted = self._panic_pods
        return min(max(wanted, 1), self._maximum)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
