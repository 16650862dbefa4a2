"""How many requests a replica may have in flight at max: what is beyond is refused, for it would make all others late.

By Little's law a pod that is always busy, with K requests in flight and as many servers as `parallelism`, keeps each for
K / parallelism mean service times. So K follows from the objective; and where requests are refused, so that K holds, what
latency is seen beside the objective corrects it: in the same proportion.
"""

from dataclasses import replace
from itertools import pairwise

from slipway.core.scaling.memory import ADMISSION, Learned, Look, Memory, Refusing
from slipway.core.scaling.objective import Objective
from slipway.core.scaling.queueing import EDGES, Service

# A window in which requests were refused: so long, with so many answers, and so large a share refused.
_SECONDS, _REQUESTS, _REFUSED = 10.0, 50, 0.02
# It begins with no more than so many times the limit in flight: what waited before there was one says nothing of it.
_CALM = 1.5
# The percentile is to lie at this share of the objective. So near to it nothing is changed, and nothing by more than this.
_GOAL, _NEAR, _STEP = 0.8, 0.15, 1.5
# A target for requests in flight is 70% of what a replica is to bear, as Knative has it.
_CONCURRENCY = 1 / 0.7


def concurrency_limit(objective: Objective, learned: Learned) -> float | None:
    """Answer how many requests a replica may have in flight, always, while the objective is kept; None where nothing says so.

    Never fewer than it answers at a time.
    """
    limits: list[float] = []
    if objective.concurrency is not None:
        limits.append(objective.concurrency * _CONCURRENCY)
    if objective.latency_ms is not None and learned.service is not None:
        own = _slow(learned.service, 1 - objective.allowed)
        waits = max(objective.latency_ms - own, 0.0) / learned.service.mean_ms
        limits.append(max(learned.pod.parallelism * (1 + waits) * learned.admission, learned.pod.parallelism, 1.0))
    return min(limits, default=None)


def correct(memory: Memory, look: Look, objective: Objective, now: float) -> Memory:
    """Answer the memory with what latencies teach of the limit, while it is what bounds them."""
    if look.got is None or objective.latency_ms is None or memory.learned.service is None:
        return memory
    seen = memory.refusing
    if seen is None or seen.ready != look.ready or not 0 <= now - seen.since < 6 * _SECONDS:
        limit = concurrency_limit(objective, memory.learned) or 0.0
        calm = look.in_flight <= _CALM * limit * look.ready + 1
        return replace(memory, refusing=Refusing(now, look.ready) if look.got.counts.refused and calm else None)
    latency, refused = seen.latency + look.got.latency, seen.refused + look.got.counts.refused
    if now - seen.since < _SECONDS or latency.sample < _REQUESTS:
        return replace(memory, refusing=replace(seen, latency=latency, refused=refused))
    memory = replace(memory, refusing=None)
    found = latency.quantile(1 - objective.allowed)
    if found is None or refused < _REFUSED * (refused + latency.sample):
        return memory
    ratio = _GOAL * objective.latency_ms / found.estimate_ms
    if abs(ratio - 1) <= _NEAR:
        return memory
    admission = memory.learned.admission * min(max(ratio, 1 / _STEP), _STEP)
    learned = replace(memory.learned, admission=min(max(admission, ADMISSION[0]), ADMISSION[1]))
    return replace(memory, learned=learned)


def _slow(service: Service, share: float) -> float:
    """Answer how long (ms) that share of requests takes at the most that does not wait."""
    return next(part for part, (_, high) in zip(service.parts_ms, pairwise(EDGES), strict=True) if high >= share - 1e-9)
