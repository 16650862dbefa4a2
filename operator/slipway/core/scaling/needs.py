"""How many replicas each objective asks for, before limits."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from slipway.core.scaling.arrivals import Forecast, draining, forecast
from slipway.core.scaling.learning import TRIAL_GROWTH
from slipway.core.scaling.memory import Cpu, Look, Memory
from slipway.core.scaling.objective import Objective, Reason, Settings
from slipway.core.scaling.queueing import replicas_for

# The share of what the objective allows that queueing may use up: at the present rate, and at the rate to be ready for.
_ALLOWED_NOW, _ALLOWED_THEN = 0.15, 0.4
_CPU_TOLERANCE = 0.1


@dataclass(frozen=True)
class Need:
    """So many replicas, which rule bound, and the numbers in words."""

    replicas: int
    reason: Reason
    message: str


def largest(memory: Memory, look: Look, settings: Settings) -> Need | None:
    """Answer what the objectives ask for together; None where nothing is known yet.

    Where an objective is on the CPU and that is not known, replicas do not go down.
    """
    need = max(needs(memory, look, settings), key=lambda each: each.replicas, default=None)
    if settings.objective.cpu is None or look.cpu is None or not look.cpu.missing:
        return need
    least = max(look.replicas, need.replicas if need is not None else 0)
    others = f"; {need.message}" if need is not None else ""
    return Need(least, Reason.NO_CPU_FIGURES, f"{look.cpu.missing}; no replica goes until then{others}")


def needs(memory: Memory, look: Look, settings: Settings) -> Iterator[Need]:
    """Yield what each objective that is set asks for; nothing where nothing is known yet."""
    if not memory.ticks:
        return
    objective, learned = settings.objective, memory.learned
    peak = max((rate for _, rate in memory.peaks), default=0.0)
    coming = forecast(memory.ticks, look.start_seconds, learned.deviation, learned.caution, peak)
    latency = _latency(memory, look, settings, coming)
    if latency is not None:
        yield latency
    if objective.requests_per_second is not None:
        replicas = math.ceil(coming.most / objective.requests_per_second)
        told = f"{coming.now:.1f} requests/s, up to {coming.most:.1f}, at {objective.requests_per_second:g} a replica"
        yield Need(replicas, Reason.REQUESTS_PER_SECOND, told)
    if objective.concurrency is not None:
        lately = memory.ticks[-15:]
        grows = coming.most / coming.now if coming.now > 0 else 1.0
        in_flight = max(sum(tick.in_flight for tick in lately[-part:]) / len(lately[-part:]) for part in (15, 5))
        told = f"{in_flight:.1f} requests in flight, to grow {grows:.2f} times, at {objective.concurrency:g} a replica"
        yield Need(math.ceil(in_flight * grows / objective.concurrency), Reason.CONCURRENCY, told)
    if objective.cpu is not None and look.cpu is not None and not look.cpu.missing:
        yield _cpu(look.cpu, objective.cpu, look.replicas)


def _cpu(cpu: Cpu, objective: float, replicas: int) -> Need:
    """Answer what CPU asks for, as a HorizontalPodAutoscaler would.

    A pod that was not measured yet counts as idle where more are needed, and as loaded to the objective where fewer are.
    """
    busy = cpu.used / objective
    told = f"pods use {cpu.used:.2f} of one's cpu request, to keep {objective:.0%} of each one's"
    if abs(busy - replicas) <= _CPU_TOLERANCE * replicas:
        return Need(replicas, Reason.CPU, told)
    return Need(max(math.ceil(busy), min(replicas, math.ceil(busy) + cpu.unknown)), Reason.CPU, told)


def _latency(memory: Memory, look: Look, settings: Settings, coming: Forecast) -> Need | None:
    objective, service, pod = settings.objective, memory.learned.service, memory.learned.pod
    if objective.latency_ms is None or service is None:
        return None
    seconds = service.mean_ms / 1000
    alone = service.slower_than(objective.latency_ms)

    def fewest(rate: float, part: float) -> int:
        # Where requests are too slow that do not even wait, replicas keep the waiting short and can do no more.
        allowed = max(objective.allowed - alone, objective.allowed / 2) * part + alone
        return replicas_for(rate * seconds, pod, service, objective.latency_ms or 0.0, allowed, settings.maximum + 1)

    in_flight = memory.ticks[-1].in_flight
    backlog = 0.0 if memory.trial is not None else draining(in_flight, coming.now * seconds, look.start_seconds)
    arrivals = fewest(coming.now, _ALLOWED_NOW)
    replicas = max(arrivals, fewest(coming.most + backlog, _ALLOWED_THEN))
    reason = Reason.ARRIVALS
    if replicas > arrivals:
        parts = {Reason.VARIABILITY: coming.variability, Reason.TREND: coming.trend, Reason.BACKLOG: backlog}
        reason = max(parts, key=lambda each: parts[each])
    told = f"{coming.now:.1f} requests/s, up to {coming.most + backlog:.1f}, of {service.mean_ms:.0f} ms each"
    return _slowed(memory, objective, Need(replicas, reason, told), alone)


def _slowed(memory: Memory, objective: Objective, need: Need, alone: float) -> Need:
    """Answer the need under a slow-down that arrivals do not explain: a trial of more, and no more if that did not help."""
    trial = memory.trial
    if trial is not None and trial.helped is False:
        told = (
            f"latency rose to {trial.latency_ms:.0f} ms at {trial.per_second:.1f} requests/s, and more replicas did not lower it"
        )
        return Need(need.replicas, Reason.MORE_REPLICAS_DO_NOT_HELP, told)
    if trial is not None:
        tried = math.ceil(trial.replicas * TRIAL_GROWTH)
        told = f"latency rose to {trial.latency_ms:.0f} ms at {trial.per_second:.1f} requests/s: trying {tried} replicas"
        return need if tried <= need.replicas else Need(tried, Reason.TRYING_MORE, told)
    if alone > objective.allowed:
        told = f"{alone:.0%} of requests take longer than {objective.latency_ms:g} ms without waiting"
        return Need(need.replicas, Reason.MORE_REPLICAS_DO_NOT_HELP, told)
    return need
