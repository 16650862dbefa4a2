"""The scaling policy: one look after another, and after each how many replicas there shall be and why.

Feed-forward: from arrivals, service times and what may come within a start-up time, the queue-tail model gives the fewest
replicas that keep the objective. Feedback is slow: latencies fit the model to the pods, and violations make it more cautious.
Up at once, down after a hold and gradually.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from slipway.core.latency import Histogram
from slipway.core.observation import Symptom
from slipway.core.pods import SLOW_START
from slipway.core.scaling.admission import concurrency_limit, correct
from slipway.core.scaling.arrivals import HISTORY_SECONDS, PEAK_SECONDS, deviation, measured_over, rate
from slipway.core.scaling.learning import learn
from slipway.core.scaling.limits import changed, hold_seconds, lowered, marked, paced, peaked
from slipway.core.scaling.memory import Look, Memory, Tick
from slipway.core.scaling.needs import Need, largest
from slipway.core.scaling.objective import Reason, Settings

# Over how long refusals are told of.
REFUSED_SECONDS = 60.0


# Routers tell of a latency so long after its request at most.
_WAITS_SECONDS = 5.0


@dataclass(frozen=True)
class Decision:
    """How many replicas, which rule bound, the numbers in words, and what to remember.

    `concurrency_limit` is how many requests a replica may have in flight while the objective is kept, as learned; routers refuse
    what is beyond where there are no more replicas to be had, and `refused_per_second` is how much that was of late.
    `wanted` is what the objectives ask for, before limits; `hindrance` says why pods that were ordered do not come.
    """

    replicas: int
    reason: Reason
    message: str
    memory: Memory
    wanted: int
    concurrency_limit: float | None = None
    refused_per_second: float = 0.0
    hindrance: Symptom | None = None

    @property
    def limited(self) -> bool:
        """Tell whether a limit keeps the objective from what it asks for."""
        return self.wanted > self.replicas


def decide(look: Look, settings: Settings, memory: Memory, now: datetime) -> Decision:
    """Answer how many replicas a revision shall have."""
    at = now.timestamp()
    memory = replace(memory, changes=changed(memory.changes, look.replicas, at))
    memory = replace(memory, active_at=_active_at(memory, look, at))
    if settings.idle_seconds is not None and not look.replicas:
        return _bounded(_asleep(look), 0, look, settings, replace(memory, ticks=(), window=None), now)
    if settings.idle_seconds is not None and not look.ready:
        memory = replace(memory, none_at=at)
    look = _without_waits(look, memory, at)
    if look.got is None or not look.reliable:
        # Arrivals of the time without figures are not known: the next ones count from then on.
        kept = Need(look.replicas, Reason.STALE_FIGURES, f"no figures of every router: {look.replicas} replicas kept")
        return _bounded(kept, kept.replicas, look, settings, memory, now)
    memory = _count(memory, look, at)
    memory = correct(learn(memory, look, settings.objective, at), look, settings.objective, at)
    need = largest(memory, look, settings)
    if need is None:
        need = Need(look.replicas, Reason.ARRIVALS, "no request was measured yet")
    if _idle(memory, settings, at):
        idle = Need(0, Reason.IDLE, f"no request for {settings.idle_seconds:g} s")
        return _bounded(idle, 0, look, settings, replace(memory, needs=()), now)
    need = replace(need, replicas=max(need.replicas, 1))
    hold = hold_seconds(look.start_seconds, memory.learned.caution)
    # What is there when one begins to look counts as needed: nothing is known of before.
    first = memory.needs or ((at, look.replicas),)
    memory = replace(memory, needs=marked(first, min(need.replicas, settings.maximum), at, hold))
    return _bounded(_held(need, look, memory, at), need.replicas, look, settings, memory, now)


def _count(memory: Memory, look: Look, at: float) -> Memory:
    """Count a look's arrivals: what ended, and what more is in flight than before."""
    assert look.got is not None  # noqa: S101 - the caller checked it
    ticks = tuple(tick for tick in memory.ticks if at - HISTORY_SECONDS < tick.at < at)
    before = ticks[-1] if ticks else None
    seconds = look.got.until - look.got.since
    if seconds <= 0:
        return replace(memory, ticks=ticks)
    in_flight = look.in_flight + look.in_flight_elsewhere
    grown = in_flight - before.in_flight if before is not None else 0
    own, refused = look.got.counts.requests, look.got.counts.refused
    arrivals = max(own + look.elsewhere + grown, 0)
    ticks = (*ticks, Tick(at, seconds, arrivals + refused, in_flight, own if look.rolling else arrivals, refused))
    over = measured_over(look.start_seconds)
    learned = replace(memory.learned, deviation=deviation(ticks, over, memory.learned.deviation))
    peaks = peaked(memory.peaks, rate(ticks, PEAK_SECONDS)[0], at)
    return replace(memory, ticks=ticks, learned=learned, peaks=peaks)


def _asked(look: Look) -> bool:
    """Tell whether anybody asked since the look before, or waits; a rollout asks, too."""
    return bool(look.woken or look.in_flight or look.rolling or (look.got is not None and look.got.counts.requests))


def _active_at(memory: Memory, look: Look, at: float) -> float:
    """Answer when there was last a reason for a pod. Until one is ready, or while it is not known who asks, there is one."""
    quiet = look.reliable and look.got is not None and look.ready and not _asked(look)
    return memory.active_at if quiet and memory.active_at is not None else at


def _asleep(look: Look) -> Need:
    """Answer the need of a revision without replicas: one for whoever asks, from which on it is as any other."""
    if _asked(look):
        return Need(1, Reason.WOKEN, "a rollout needs pods" if look.rolling else "somebody asks for the model")
    return Need(0, Reason.IDLE, "nobody asks: the next request waits for a first pod")


def _without_waits(look: Look, memory: Memory, at: float) -> Look:
    """Leave out the latencies of those who waited for a first pod: they say nothing of how long a request takes."""
    if look.got is None or memory.none_at is None or at - memory.none_at > _WAITS_SECONDS:
        return look
    return replace(look, got=replace(look.got, latency=Histogram()))


def _idle(memory: Memory, settings: Settings, at: float) -> bool:
    """Tell whether there has been no reason for a pod for long."""
    return settings.idle_seconds is not None and memory.active_at is not None and at - memory.active_at >= settings.idle_seconds


def _held(need: Need, look: Look, memory: Memory, at: float) -> Need:
    """Answer the need, kept up for its hold, through a rollout, and lowered step by step."""
    most = max(replicas for _, replicas in memory.needs)
    if need.replicas > look.replicas and look.hindrance is not None and look.hindrance.reason != SLOW_START:
        told = f"{need.replicas} would do; no more are ordered while those that were do not come: {look.hindrance.reason}"
        return Need(look.replicas, Reason.HINDERED, told)
    if need.replicas >= look.replicas:
        return need
    if look.rolling:
        return Need(look.replicas, Reason.ROLLOUT, f"{need.replicas} would do; nothing is scaled down during a rollout")
    if most >= look.replicas:
        return Need(look.replicas, Reason.HOLDING, f"{need.replicas} would do now, and {most} were needed lately; {need.message}")
    following = lowered(look.replicas, most, at, memory.lowered_at)
    if following > need.replicas:
        return Need(following, Reason.HOLDING, f"going down to {most} step by step; {need.message}")
    return replace(need, replicas=following)


def _bounded(need: Need, wanted: int, look: Look, settings: Settings, memory: Memory, now: datetime) -> Decision:
    """Answer the decision, within the user's limits: the schedule's floor, the pace, and min and max above all."""
    floor = max((each.replicas for each in settings.floors if each.holds(now)), default=0)
    if need.replicas < floor:
        need = Need(floor, Reason.SCHEDULE, f"{floor} by the schedule; {need.message}")
    allowed = paced(need.replicas, memory.changes, settings.up_per_minute, settings.down_per_minute)
    if allowed != need.replicas:
        need = Need(allowed, Reason.PACE, f"on the way to {need.replicas}; {need.message}")
    lowest = 0 if need.reason == Reason.IDLE else max(settings.minimum, 1)
    if need.replicas < lowest:
        need = Need(lowest, Reason.AT_MINIMUM, f"min; {need.message}")
    elif need.replicas > settings.maximum:
        need = Need(settings.maximum, Reason.AT_MAXIMUM, f"max; {need.message}")
    at = now.timestamp()
    memory = replace(
        memory,
        changes=changed(memory.changes, need.replicas, at),
        lowered_at=at if need.replicas < look.replicas else memory.lowered_at,
    )
    return Decision(
        need.replicas,
        need.reason,
        need.message,
        memory,
        wanted,
        concurrency_limit(settings.objective, memory.learned),
        _refused(memory, at),
        look.hindrance,
    )


def _refused(memory: Memory, at: float) -> float:
    """Answer the requests a second that were refused in the last minute."""
    lately = [tick for tick in memory.ticks if tick.at > at - REFUSED_SECONDS]
    seconds = sum(tick.seconds for tick in lately)
    return sum(tick.refused for tick in lately) / seconds if seconds else 0.0
