"""What the policy sees at a look, and what it remembers from one look to the next."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from slipway.core.figures import Slice
from slipway.core.latency import Histogram
from slipway.core.observation import Symptom
from slipway.core.scaling.queueing import WEIGHTS, Pod, Service


@dataclass(frozen=True)
class Cpu:
    """What ready pods use of the CPU, in requests of one pod: 1.5 are two pods at 75% of theirs, or one at 150%.

    `unknown` is how many of them have not been measured since they were ready. `missing` says why nothing is known at all.
    """

    used: float = 0.0
    unknown: int = 0
    missing: str = ""


@dataclass(frozen=True)
class Look:
    """What is seen of one revision, every few seconds.

    `got` is what the routers counted since the look before, None where that is not known; `reliable` says that every router has
    part in it. `in_flight` are requests that routers have open, those that wait for a first pod among them; `woken` says that
    somebody has just asked for one. `replicas` is what was ordered, `ready` those of them that serve. `start_seconds` is the
    measured time from order to ready, None before the first; `cpu` is what the pods use. While `rolling`, nothing is scaled
    down; then `elsewhere` and `in_flight_elsewhere` are what is to be added to this revision's requests to have those of all
    callers: what the other one got, less the copies that this one got. `hindrance` says why pods that were ordered do not come.
    """

    got: Slice | None
    in_flight: int
    ready: int
    replicas: int
    reliable: bool = True
    woken: bool = False
    start_seconds: float | None = None
    cpu: Cpu | None = None
    rolling: bool = False
    elsewhere: int = 0
    in_flight_elsewhere: int = 0
    hindrance: Symptom | None = None


@dataclass(frozen=True)
class Learned:
    """What is worth keeping over a restart: a few numbers that took minutes of traffic to learn.

    `service` is how long requests take that do not wait, `light_ms` their mean latency when next to none did; `pod` what one pod
    contributes; `caution` multiplies head-room and hold; `deviation` is the standard deviation of the arrivals' growth over a
    start-up time, as a share of the rate; `admission` is the part of what a pod could have in flight by the model that it may.
    """

    service: Service | None = None
    light_ms: float | None = None
    pod: Pod = field(default_factory=Pod)
    caution: float = 1.0
    deviation: float | None = None
    admission: float = 0.7

    def store(self) -> dict[str, object]:
        """Answer this as JSON values, for a status."""
        kept: dict[str, object] = {
            "parallelism": round(self.pod.parallelism, 2),
            "pooling": round(self.pod.pooling, 2),
            "caution": round(self.caution, 2),
            "admission": round(self.admission, 2),
        }
        if self.service is not None:
            kept["serviceMs"] = [round(part, 1) for part in self.service.parts_ms]
        if self.light_ms is not None:
            kept["lightMs"] = round(self.light_ms, 1)
        if self.deviation is not None:
            kept["deviation"] = round(self.deviation, 3)
        return kept

    @classmethod
    def restore(cls, kept: Mapping[str, object]) -> "Learned":
        """Read what `store` answered; what is missing or wrong is not known, and learned anew."""

        def number(name: str, low: float, high: float) -> float | None:
            value = kept.get(name)
            return min(max(float(value), low), high) if isinstance(value, int | float) else None

        parts = kept.get("serviceMs")
        known = (
            isinstance(parts, list)
            and len(parts) == len(WEIGHTS)
            and all(isinstance(part, int | float) and part > 0 for part in parts)
        )
        default = Pod()
        return cls(
            Service(tuple(sorted(float(part) for part in parts))) if known and isinstance(parts, list) else None,
            number("lightMs", 0.5, 1e6),
            Pod(number("parallelism", 0.1, 1000) or default.parallelism, _or(number("pooling", 0, 1), default.pooling)),
            number("caution", *CAUTION) or 1.0,
            number("deviation", 0, 10),
            _or(number("admission", *ADMISSION), cls.admission),
        )


CAUTION = (1.0, 3.0)
ADMISSION = (0.1, 20.0)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


@dataclass(frozen=True)
class Tick:
    """What came between two looks: arrivals in so many seconds until `at`, and requests in flight then.

    `own` are those of the arrivals that the revision itself got; `refused` are those that the routers turned away.
    """

    at: float
    seconds: float
    arrivals: float
    in_flight: int
    own: float
    refused: int = 0


@dataclass(frozen=True)
class Window:
    """Some seconds over which a look at latencies is worth something: what came in it, and whether its pods stayed the same."""

    since: float
    ready: int
    in_flight: int
    latency: Histogram = field(default_factory=Histogram)
    steady: bool = True


@dataclass(frozen=True)
class Trial:
    """More replicas were tried against a slow-down that the arrivals do not explain.

    `latency_ms` is the worst mean before they were there, at `ready_at`.
    """

    since: float
    replicas: int
    latency_ms: float
    per_second: float
    ready_at: float | None = None
    helped: bool | None = None


@dataclass(frozen=True)
class Refusing:
    """Some seconds in which requests were refused, and what those took that were not."""

    since: float
    ready: int
    latency: Histogram = field(default_factory=Histogram)
    refused: int = 0


@dataclass(frozen=True)
class Evidence:
    """Against the pods' parallelism, decayed over windows.

    Waits, in mean service times: seen, and foreseen for the best pooling; slow requests: seen, and foreseen for the worst.
    """

    waits: float = 0.0
    waits_best: float = 0.0
    slow: float = 0.0
    slow_worst: float = 0.0


@dataclass(frozen=True)
class Memory:
    """Everything remembered. But for `learned` it is of the latest minutes, and rebuilt within them after a restart.

    Until then nothing is scaled down: that is all that its loss costs. `needs` are the largest needs of stretches of time, oldest
    first; `peaks` the largest rates; `changes` what was ordered in the last minute. `active_at` is when there was last a reason
    for a pod, `none_at` when there was last none ready.
    """

    learned: Learned = field(default_factory=Learned)
    ticks: tuple[Tick, ...] = ()
    needs: tuple[tuple[float, int], ...] = ()
    peaks: tuple[tuple[float, float], ...] = ()
    changes: tuple[tuple[float, int], ...] = ()
    window: Window | None = None
    evidence: Evidence = field(default_factory=Evidence)
    slow: float = 0.0
    requests: float = 0.0
    trial: Trial | None = None
    refusing: Refusing | None = None
    lowered_at: float | None = None
    active_at: float | None = None
    none_at: float | None = None

    @property
    def for_candidate(self) -> "Memory":
        """Answer what a candidate begins with beside this stable: the arrivals are the same, how long it takes is not known."""
        learned = replace(self.learned, service=None, light_ms=None)
        ticks = tuple(replace(tick, own=0.0) for tick in self.ticks)
        return Memory(learned, ticks, self.needs, self.peaks, active_at=self.active_at)
