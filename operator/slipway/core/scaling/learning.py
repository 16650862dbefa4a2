"""What latencies teach: how long a request takes that does not wait, how well pods share the load, and how cautious to be."""

import math
from dataclasses import replace

from slipway.core.latency import Histogram
from slipway.core.scaling.arrivals import rate
from slipway.core.scaling.memory import CAUTION, Evidence, Learned, Look, Memory, Tick, Trial, Window
from slipway.core.scaling.objective import Objective
from slipway.core.scaling.queueing import MIDDLES, Pod, Service, mean_wait, slow_share

# A window is over after so many seconds with so many requests, or is worth nothing.
_WINDOW_SECONDS, _WINDOW_REQUESTS, _WINDOW_MAX_SECONDS = 20.0, 100, 120.0
_FIRST_REQUESTS = 50
# Weights of a window's service times: falling ones are believed sooner, for waiting only ever lengthens them.
_SLOWER_WEIGHT, _FASTER_WEIGHT, _WAIT_MAX = 0.1, 0.5, 0.15
# Pooling: its step by window, the requests by which few are shrunk to no news, what is seen of slow ones at any load; and how
# fast it goes back to what routers usually do.
_POOLING_STEP, _POOLING_STEP_MAX, _SHRINK, _ALWAYS_SLOW = 0.03, 0.05, 2.0, 0.0005
_POOLING_RETURN = 0.005
# Parallelism: evidence fades by window, and suffices at so many requests or mean service times of waiting. Next to nobody waits
# where the best pooling foresees so little.
_EVIDENCE_KEPT, _EVIDENCE_REQUESTS, _EVIDENCE_WAITS = 0.95, 10.0, 0.15
_LIGHT, _LIGHT_WEIGHT = 0.02, 0.3
# Below this utilisation slow requests are not for want of servers.
_QUEUES = 0.3
# Caution grows while more than this share of what the objective allows is slow, over so many seconds.
_SLOW_GOAL, _CAUTION_SECONDS, _CAUTION_GAIN, _CAUTION_EXCESS = 0.25, 600.0, 0.1, 2.0
# A slow-down: so many times the latency that the load explains. More replicas must better it by so much, else they do not help.
_SLOWED, _SLOWED_UTILISATION, _RECOVERED, _HELPED = 1.4, 0.85, 1.2, 0.15
TRIAL_GROWTH, _TRIAL_SECONDS = 1.5, 1800.0
_CALM_BACKLOG, _CALM_REQUESTS = 3.0, 5.0


def learn(memory: Memory, look: Look, objective: Objective, now: float) -> Memory:
    """Answer the memory with what a look's latencies teach. The look's arrivals are in it already."""
    if look.got is None or objective.latency_ms is None:
        return memory
    memory = _weigh(memory, look.got.latency, objective, memory.ticks[-1].seconds if memory.ticks else 0.0)
    window = memory.window
    if window is None or window.since > now:
        return replace(memory, window=Window(now, look.ready, look.in_flight))
    latency = window.latency + look.got.latency
    window = replace(window, latency=latency, steady=window.steady and look.ready == window.ready)
    lasted, first = now - window.since, memory.learned.service is None and latency.sample >= _FIRST_REQUESTS
    early = lasted < _WINDOW_SECONDS - 1e-6 or (latency.sample < _WINDOW_REQUESTS and lasted < _WINDOW_MAX_SECONDS)
    if early and not first:
        return replace(memory, window=window)
    memory = replace(memory, window=Window(now, look.ready, look.in_flight))
    return _conclude(memory, window, look, objective, now) if latency.sample else memory


def _weigh(memory: Memory, latency: Histogram, objective: Objective, seconds: float) -> Memory:
    """Count slow requests, and let caution follow them: a slow, multiplicative correction."""
    assert objective.latency_ms is not None  # noqa: S101 - the caller checked it
    service, sample = memory.learned.service, latency.sample
    alone = 0.0 if service is None else service.slower_than(objective.latency_ms) * sample  # no replica helps against these
    kept = math.exp(-seconds / _CAUTION_SECONDS)
    slow = memory.slow * kept + max(latency.slower_than(objective.latency_ms) - alone, 0.0)
    requests = memory.requests * kept + sample
    if memory.trial is not None or not requests or alone > objective.allowed * sample:
        return memory
    memory = replace(memory, slow=slow, requests=requests)
    excess = min(slow / requests / (_SLOW_GOAL * objective.allowed), _CAUTION_EXCESS) - 1
    caution = memory.learned.caution * math.exp(_CAUTION_GAIN * excess * seconds / 60)
    return _with(memory, caution=min(max(caution, CAUTION[0]), CAUTION[1]))


def _conclude(memory: Memory, window: Window, look: Look, objective: Objective, now: float) -> Memory:
    """Take what a window teaches."""
    seen = measure(window.latency)
    service, pod = memory.learned.service, memory.learned.pod
    if service is None:
        return _with(memory, service=_unqueued(seen, look))
    lasted = now - window.since
    ticks = _own(memory)
    arrivals, _ = rate(ticks, lasted)
    late, _ = rate(ticks, lasted / 2)
    even = abs(late - arrivals) < 1.5 * math.sqrt(2 * arrivals / lasted) + 0.05 * arrivals
    if not (window.steady and window.ready and even):
        return memory
    load = arrivals * service.mean_ms / 1000
    utilisation = load / (window.ready * pod.parallelism)
    waits = mean_wait(utilisation, pod.pool(window.ready), service.variability)
    memory = _judge(memory, look, objective, now, seen, waits, arrivals, utilisation)
    if memory.trial is not None or memory.learned.service is not service:
        return memory
    if utilisation >= 0.95 or window.in_flight > _CALM_BACKLOG * load + _CALM_REQUESTS:
        return memory
    memory = _share(_light(memory, seen, utilisation, window.ready), window, load, service, objective)
    weight = _SLOWER_WEIGHT if seen.mean_ms > service.mean_ms * (1 + waits) else _FASTER_WEIGHT
    if waits > _WAIT_MAX and weight == _SLOWER_WEIGHT:
        return memory  # what is longer may be waiting
    parts = (
        was + weight * (part / (1 + min(waits, _WAIT_MAX)) - was)
        for was, part in zip(service.parts_ms, seen.parts_ms, strict=False)
    )
    return _with(memory, service=Service(tuple(parts)))


def _light(memory: Memory, seen: Service, utilisation: float, ready: int) -> Memory:
    """Compare how long requests wait with how long they would at the best pooling: less means more servers than believed."""
    service, light, pod = memory.learned.service, memory.learned.light_ms, memory.learned.pod
    assert service is not None  # noqa: S101 - the caller checked it
    best = mean_wait(utilisation, pod.parallelism * ready, service.variability)
    if best < _LIGHT:
        mean = seen.mean_ms if light is None else light + _LIGHT_WEIGHT * (seen.mean_ms - light)
        return _with(memory, light_ms=mean)
    if light is None:
        return memory
    was = memory.evidence
    waits = was.waits * _EVIDENCE_KEPT + max(seen.mean_ms / light - 1, 0.0)
    return replace(memory, evidence=replace(was, waits=waits, waits_best=was.waits_best * _EVIDENCE_KEPT + min(best, 1.0)))


def _unqueued(seen: Service, look: Look) -> Service:
    """Answer how long requests take by the first that are seen; where those queue, what is left of it without the queue.

    Then pods are busy, and by Little's law the requests in flight of each are latency over service time.
    """
    queued = look.in_flight / max(look.ready, 1)
    if queued <= _CALM_BACKLOG:
        return seen
    return Service(tuple(part / queued for part in seen.parts_ms))


def measure(latency: Histogram) -> Service:
    """Answer the latencies of a sample as service times."""
    found = (latency.quantile(share) for share in MIDDLES)
    return Service(tuple(max(each.estimate_ms, 0.5) for each in found if each is not None))


def _share(memory: Memory, window: Window, load: float, service: Service, objective: Objective) -> Memory:
    """Fit the pods to the slow requests of a calm window: pooling first, and beyond either of its ends parallelism."""
    assert objective.latency_ms is not None  # noqa: S101 - the caller checked it
    pod, limit, sample = memory.learned.pod, objective.latency_ms, window.latency.sample
    alone = sample * service.slower_than(limit)

    def foreseen(pooling: float) -> float:
        return sample * slow_share(load, window.ready, replace(pod, pooling=pooling), service, limit) - alone

    slow = max(window.latency.slower_than(limit) - alone - sample * _ALWAYS_SLOW, 0.0)
    step = _POOLING_STEP * math.log((foreseen(pod.pooling) + _SHRINK) / (slow + _SHRINK))
    pooling = pod.pooling + min(max(step, -_POOLING_STEP_MAX), _POOLING_STEP_MAX)
    pooling = min(max(pooling + _POOLING_RETURN * (Pod().pooling - pooling), 0.0), 1.0)
    evidence = replace(
        memory.evidence,
        slow=memory.evidence.slow * _EVIDENCE_KEPT + slow,
        slow_worst=memory.evidence.slow_worst * _EVIDENCE_KEPT + foreseen(0.0),
    )
    parallelism = pod.parallelism
    queues = load > _QUEUES * window.ready * parallelism
    if evidence.waits_best >= _EVIDENCE_WAITS and evidence.waits < 0.3 * evidence.waits_best:
        parallelism, evidence = parallelism * 1.15, Evidence()
    elif queues and pooling < 0.02 and evidence.slow >= _EVIDENCE_REQUESTS and evidence.slow > 2 * evidence.slow_worst:
        parallelism, evidence = parallelism * 0.9, Evidence()
    return replace(_with(memory, pod=Pod(parallelism, pooling)), evidence=evidence)


def _judge(
    memory: Memory, look: Look, objective: Objective, now: float, seen: Service, waits: float, arrivals: float, utilisation: float
) -> Memory:
    """Recognise a slow-down that the load does not explain, and whether more replicas help against it."""
    service, trial = memory.learned.service, memory.trial
    assert service is not None  # noqa: S101 - the caller checked it
    assert objective.latency_ms is not None  # noqa: S101 - the caller checked it
    usual = service.mean_ms * (1 + min(waits, 1.0))
    if trial is None:
        minute, _ = rate(_own(memory), 60.0)
        lately = minute * service.mean_ms / 1000 / (look.ready * memory.learned.pod.parallelism)
        slowed = seen.mean_ms > _SLOWED * usual and max(utilisation, lately) < _SLOWED_UTILISATION
        if not slowed or seen.slower_than(objective.latency_ms) <= objective.allowed:
            return memory
        return replace(memory, trial=Trial(now, look.ready, seen.mean_ms, arrivals))
    if seen.mean_ms < _RECOVERED * usual or now - trial.since > _TRIAL_SECONDS:
        return replace(memory, trial=None)
    if trial.ready_at is None:
        trial = replace(trial, latency_ms=max(trial.latency_ms, seen.mean_ms))
        there = look.ready >= math.ceil(trial.replicas * TRIAL_GROWTH)
        return replace(memory, trial=replace(trial, ready_at=now) if there else trial)
    if trial.helped is None:
        if seen.mean_ms > (1 - _HELPED) * trial.latency_ms:
            return replace(memory, trial=replace(trial, helped=False))
        # It was capacity: what a request takes is what is seen now.
        return replace(_with(memory, service=seen), trial=None)
    # Fewer again, and slower still: then they did help.
    return replace(memory, trial=None) if seen.mean_ms > _SLOWED * trial.latency_ms else memory


def _own(memory: Memory) -> tuple[Tick, ...]:
    """Answer the arrivals that the revision itself got: what it is to learn from."""
    return tuple(replace(tick, arrivals=tick.own) for tick in memory.ticks)


def _with(memory: Memory, **learned: object) -> Memory:
    kept: Learned = replace(memory.learned, **learned)  # pyright: ignore[reportArgumentType] - fields of it
    return replace(memory, learned=kept)
