"""A revision's pods as scaling sees them: which serve, how long they took to, and why others do not come."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from slipway.core.clock import to_datetime
from slipway.core.observation import Symptom
from slipway.core.symptoms import Pod, not_coming, pod_ready

SLOW_START = "SlowStart"
# A start is slow from so many times the slowest one seen, and from so many seconds on.
_SLOW_TIMES, _SLOW_SECONDS = 3.0, 30.0


@dataclass(frozen=True)
class Pods:
    """A revision's pods.

    `starts` are the seconds from a node's taking a pod to its first being ready, by uid; `starting` those that pods have been at
    it which are not ready yet. `hindrance` says why a pod that was ordered does not come, or is slow to.
    """

    ready: int = 0
    starts: Mapping[str, float] = field(default_factory=dict[str, float])
    starting: float | None = None
    hindrance: Symptom | None = None

    @classmethod
    def of(cls, pods: Iterable[Pod], deployment: Mapping[str, Any], before: Mapping[str, float], now: datetime) -> "Pods":
        """Read pods. `before` are the starts known: a pod that is ready again has not started again."""
        staying = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
        ready = [pod for pod in staying if pod_ready(pod)]
        coming = {
            pod["metadata"]["name"]: taken for pod in staying if pod not in ready and (taken := _since(pod, "PodScheduled"))
        }
        starts: dict[str, float] = {}
        for pod in ready:
            uid, taken, served = pod["metadata"]["uid"], _since(pod, "PodScheduled"), _since(pod, "Ready")
            if uid in before:
                starts[uid] = before[uid]
            elif taken is not None and served is not None:
                starts[uid] = (served - taken).total_seconds()
        name, first = min(coming.items(), key=lambda each: each[1], default=("", now))
        starting = (now - first).total_seconds() if coming else None
        hindrance = not_coming(staying, deployment) or _slow(name, first, starting, max(starts.values(), default=None))
        return cls(len(ready), starts, starting, hindrance)

    @property
    def start_seconds(self) -> float | None:
        """Answer how long a pod takes to be ready once it has a node: the slowest, one under way among them."""
        slowest = max(self.starts.values(), default=None)
        if slowest is None or self.starting is None:
            return slowest
        return max(slowest, self.starting)


def _since(pod: Pod, condition: str) -> datetime | None:
    for each in pod.get("status", {}).get("conditions", ()):
        if each["type"] == condition and each["status"] == "True" and each.get("lastTransitionTime"):
            return to_datetime(each["lastTransitionTime"])
    return None


def _slow(name: str, since: datetime, seconds: float | None, usual: float | None) -> Symptom | None:
    if seconds is None or usual is None or seconds < max(_SLOW_TIMES * usual, _SLOW_SECONDS):
        return None
    told = f"pod {name} has been starting since {since:%H:%M:%S} UTC, and others took {usual:.0f} s at most"
    return Symptom(SLOW_START, f"{told}: see kubectl describe pod {name}, and its log")
