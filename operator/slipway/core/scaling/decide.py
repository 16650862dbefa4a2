"""The scaling policy: one look after another, and after each how many replicas there shall be and why.

Feed-forward: from arrivals, service times and what may come within a start-up time, the queue-tail model gives the fewest
replicas that keep the objective. Feedback is slow: latencies fit the model to the pods, and violations make it more cautious.
Up at once, down after a hold and gradually.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from slipway.core.scaling.arrivals import HISTORY_SECONDS, PEAK_SECONDS, deviation, measured_over, rate
from slipway.core.scaling.learning import learn
from slipway.core.scaling.limits import changed, hold_seconds, lowered, marked, paced, peaked
from slipway.core.scaling.memory import Look, Memory, Tick
from slipway.core.scaling.needs import Need, needs
from slipway.core.scaling.objective import Reason, Settings
from slipway.core.scaling.queueing import concurrency_limit


@dataclass(frozen=True)
class Decision:
    """How many replicas, which rule bound, the numbers in words, and what to remember.

    `concurrency_limit` is how many requests a replica may have in flight while the latency objective is kept, as learned.
    `wanted` is what the objectives ask for, before limits.
    """

    replicas: int
    reason: Reason
    message: str
    memory: Memory
    wanted: int
    concurrency_limit: float | None = None

    @property
    def limited(self) -> bool:
        """Tell whether a limit keeps the objective from what it asks for."""
        return self.wanted > self.replicas


def decide(look: Look, settings: Settings, memory: Memory, now: datetime) -> Decision:
    """Answer how many replicas a revision shall have."""
    at = now.timestamp()
    memory = replace(memory, changes=changed(memory.changes, look.replicas, at))
    if look.got is None or not look.reliable:
        # Arrivals of the time without figures are not known: the next ones count from then on.
        kept = Need(look.replicas, Reason.STALE_FIGURES, f"no figures of every router: {look.replicas} replicas kept")
        return _bounded(kept, kept.replicas, look, settings, memory, now)
    memory = learn(_count(memory, look, at), look, settings.objective, at)
    need = max(needs(memory, look, settings), key=lambda each: each.replicas, default=None)
    if need is None:
        need = Need(look.replicas, Reason.ARRIVALS, "no request was measured yet")
    if _idle(memory, look, settings, at):
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
    grown = look.in_flight - before.in_flight if before is not None else 0
    arrivals = max(look.got.counts.requests + grown, 0) + look.held
    ticks = (*ticks, Tick(at, seconds, arrivals, look.in_flight))
    over = measured_over(look.start_seconds)
    learned = replace(memory.learned, deviation=deviation(ticks, over, memory.learned.deviation))
    active = at if arrivals or look.in_flight or memory.active_at is None else memory.active_at
    peaks = peaked(memory.peaks, rate(ticks, PEAK_SECONDS)[0], at)
    return replace(memory, ticks=ticks, learned=learned, active_at=active, peaks=peaks)


def _idle(memory: Memory, look: Look, settings: Settings, at: float) -> bool:
    """Tell whether nobody has asked for long, and nobody waits."""
    if settings.minimum > 0 or settings.idle_seconds is None or look.held or look.in_flight or look.rolling:
        return False
    return memory.active_at is not None and at - memory.active_at >= settings.idle_seconds and not look.expected_per_second


def _held(need: Need, look: Look, memory: Memory, at: float) -> Need:
    """Answer the need, kept up for its hold, through a rollout, and lowered step by step."""
    most = max(replicas for _, replicas in memory.needs)
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
    return Decision(need.replicas, need.reason, need.message, memory, wanted, _limit(memory, settings, need.replicas))


def _limit(memory: Memory, settings: Settings, replicas: int) -> float | None:
    service, limit = memory.learned.service, settings.objective.latency_ms
    if service is None or limit is None or not replicas:
        return None
    return concurrency_limit(replicas, memory.learned.pod, service, limit, settings.objective.allowed)
