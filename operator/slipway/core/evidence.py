"""The evidence against a candidate: each bound's sequential tests, on what callers got of it and of stable at the same time.

Tests begin anew every minute beside the first ones, so that trouble which once met candidate and stable alike does not hide for
ever what the candidate alone does. Their evidence is put together by weights that sum to 1 at most, which makes it one e-value
again. What stable has is that of the last minute, for the same reason.
"""

import math
from dataclasses import dataclass, field, replace

from slipway.core.figures import Slice
from slipway.core.hanging import Flight, Foreseen, Look
from slipway.core.latency import Histogram
from slipway.core.plan import Bound, Plan
from slipway.core.sequential import OneSample, Tally, TwoSample

# A candidate's first answers may be slow because its caches are cold: the latencies of so many are left out.
COLD_REQUESTS = 5
_LIMIT_MAX = 0.99
# Tests that begin anew: how often, how many of the latest go on, and the weight of the first ones among all.
_ANEW_SECONDS, _ANEW_MAX, _FIRST_WEIGHT = 60.0, 4, 0.8
# What stable has lately: over how long, where that is so many requests.
_LATELY_SECONDS, _LATELY_REQUESTS = 60.0, 100
_MARK_SECONDS = 5.0


@dataclass(frozen=True)
class Got:
    """What callers got of the candidate and of stable, as of `at` (seconds).

    `in_flight` are the requests of both that have not ended; None where not every router told.
    """

    candidate: Slice
    stable: Slice
    in_flight: tuple[int, int] | None = None
    at: float = 0.0

    def since(self, earlier: "Got") -> "Got":
        """Answer what came after an earlier state of the same totals."""
        candidate, stable = since(self.candidate, earlier.candidate), since(self.stable, earlier.stable)
        return replace(self, candidate=candidate, stable=stable)


def since(total: Slice, earlier: Slice) -> Slice:
    """Answer what came after an earlier state of a total; all of it where that is counted anew."""
    try:
        return Slice(earlier.until, total.until, total.counts.since(earlier.counts), total.latency - earlier.latency)
    except ValueError:
        return total


def failed(got: Slice) -> Tally:
    """Answer the requests that were answered or failed, and those that failed; whoever gave up got neither."""
    asked = got.counts.requests - got.counts.abandoned
    return Tally(asked, min(got.counts.errors, asked))


@dataclass(frozen=True)
class Pair:
    """Both tests of a bound from some time on: the candidate is `beyond` it (None: stable sets it), and `worse` than stable."""

    weight: float
    beyond: OneSample | None
    worse: TwoSample = field(default_factory=TwoSample)

    @classmethod
    def begin(cls, bound: Bound, number: int) -> "Pair":
        """Answer the pair that begins as the number-th after the first (0)."""
        weight = _FIRST_WEIGHT if number == 0 else (1 - _FIRST_WEIGHT) / (number * (number + 1))
        return cls(weight, None if bound.ratio is not None else OneSample(bound.share))

    def add(self, mine: Tally, theirs: Tally) -> "Pair":
        """Answer the tests after more answers of candidate and stable."""
        beyond = self.beyond.add(mine) if self.beyond is not None else None
        return replace(self, beyond=beyond, worse=self.worse.add(mine, theirs))

    @property
    def log_evidence(self) -> float:
        """Answer the logarithm of the weaker test's evidence, weighted."""
        weaker = self.worse.log_evidence if self.beyond is None else min(self.beyond.log_evidence, self.worse.log_evidence)
        return math.log(self.weight) + weaker


@dataclass(frozen=True)
class BoundTest:
    """One bound and the evidence against it.

    `alone` takes the place of all pairs once stable gets no requests any more: then the bound alone decides, or what stable
    had before where that was beyond it. `slow` are requests in flight of candidate and stable that are counted already.
    """

    bound: Bound
    pairs: tuple[Pair, ...]
    alone: OneSample | None = None
    slow: tuple[Foreseen, Foreseen] = (Foreseen(), Foreseen())

    def anew(self, number: int) -> "BoundTest":
        """Answer the test with another pair that begins now."""
        return replace(self, pairs=(self.pairs[0], *self.pairs[1:][1 - _ANEW_MAX :], Pair.begin(self.bound, number)))

    def add(self, got: Got, stable_before: Histogram, flights: tuple[Flight, Flight], *, alone: bool) -> "BoundTest":
        """Answer the test after more answers; `stable_before` holds stable's latencies until then.

        A relative bound compares the candidate's answers that are slower than the multiple of stable's quantile with stable's
        that are slower than the quantile itself. The quantile is of the answers before, so that it favours neither.
        """
        slow = self.slow
        if not self.bound.is_latency:
            mine, theirs = failed(got.candidate), failed(got.stable)
        else:
            limits = self._limits_ms(stable_before)
            if limits is None:
                return self
            mine, mine_slow = _slower(got.candidate, limits[0], flights[0], slow[0])
            theirs, theirs_slow = _slower(got.stable, limits[1], flights[1], slow[1])
            slow = mine_slow, theirs_slow
        if alone:
            return replace(self, alone=(self.alone or OneSample(self._limit_alone)).add(mine), slow=slow)
        return replace(self, pairs=tuple(pair.add(mine, theirs) for pair in self.pairs), slow=slow)

    @property
    def broken_at(self) -> float:
        """Answer the logarithm of the evidence that the bound is broken: of all pairs together."""
        if self.alone is not None:
            return self.alone.log_evidence
        strongest = max(pair.log_evidence for pair in self.pairs)
        return strongest + math.log(sum(math.exp(pair.log_evidence - strongest) for pair in self.pairs))

    @property
    def _limit_alone(self) -> float:
        if self.bound.ratio is not None:
            return self.bound.share
        worse = self.pairs[0].worse
        return min(max(self.bound.share, (worse.stable + worse.waiting[1]).share), _LIMIT_MAX)

    def _limits_ms(self, stable_before: Histogram) -> tuple[float, float] | None:
        """Answer from which latency on an answer of the candidate, and one of stable, is slow."""
        if self.bound.seconds is not None:
            return self.bound.seconds * 1000, self.bound.seconds * 1000
        quantile = stable_before.quantile(1 - self.bound.share)
        if quantile is None or self.bound.ratio is None:
            return None
        return self.bound.ratio * quantile.high_ms, quantile.high_ms


def _slower(got: Slice, latency_ms: float, flight: Flight, foreseen: Foreseen) -> tuple[Tally, Foreseen]:
    ended = Tally(got.latency.sample, got.latency.slower_than(latency_ms))
    return foreseen.add(ended, got.counts.abandoned + got.counts.resets, flight.longer_than(latency_ms / 1000))


@dataclass(frozen=True)
class Evidence:
    """What was measured since the candidate's first request.

    `seen` are the totals so far, `begun` those when the step began, `start` those at the first, `marks` some of the latest
    minutes; `known` is what stable had before; of so many more answers (`cold`) the candidate's latency is left out.
    """

    start: Got
    seen: Got
    begun: Got
    step: int
    tests: tuple[BoundTest, ...]
    known: Slice
    flights: tuple[Flight, Flight] = (Flight(), Flight())
    cold: int = COLD_REQUESTS
    marks: tuple[Got, ...] = ()

    @classmethod
    def begin(cls, plan: Plan, step: int, totals: Got, known: Slice | None = None) -> "Evidence":
        """Answer the evidence before anything was measured."""
        tests = (BoundTest(each, (Pair.begin(each, 0),)) for each in plan.bounds)
        return cls(totals, totals, totals, step, tuple(tests), known or Slice(0.0, 0.0))

    def add(self, step: int, totals: Got, *, live: bool = True, alone: bool = False) -> "Evidence":
        """Answer the evidence once totals have grown.

        A step counts its own requests, from when it is `live` in every router; `alone` says that the candidate has all.
        """
        new, before = totals.since(self.seen), self._stable_before()
        start, begun, cold = self.start, self.begun if live and step == self.step else totals, self.cold
        if cold:
            told = totals.candidate.latency
            cold = max(cold - new.candidate.latency.sample, 0)
            new, start, begun = _latency(new, Histogram()), _latency(start, told), _latency(begun, told)
        flights = self._flights(totals)
        tests, number = self.tests, int((totals.at - self.start.at) // _ANEW_SECONDS)
        if number > int((self.seen.at - self.start.at) // _ANEW_SECONDS):
            tests = tuple(test.anew(number) for test in tests)
        tests = tuple(test.add(new, before, flights, alone=alone) for test in tests)
        after = replace(self, start=start, seen=totals, begun=begun, step=step, tests=tests, flights=flights, cold=cold)
        return replace(after, marks=self._marks(totals))

    def _marks(self, totals: Got) -> tuple[Got, ...]:
        """Answer the marks, some seconds apart, and one that is older than what is asked for lately."""
        if self.marks and totals.at - self.marks[-1].at < _MARK_SECONDS:
            return self.marks
        marks = (*self.marks, totals)
        old = sum(totals.at - mark.at >= _LATELY_SECONDS for mark in marks)
        return marks[max(old - 1, 0) :]

    def _stable_before(self) -> Histogram:
        """Answer stable's latencies lately; where those are few, all that are known."""
        lately = self.lately.stable.latency
        if lately.sample >= _LATELY_REQUESTS:
            return lately
        return self.known.latency + since(self.seen.stable, self.start.stable).latency

    @property
    def lately(self) -> Got:
        """Answer what callers got in the last minute of the step; of stable, where it got nothing then, what they had before."""
        got = self.seen.since(next((mark for mark in self.marks if mark.at > self.begun.at), self.begun))
        return got if got.stable.counts.requests else replace(got, stable=self.got.stable)

    def _flights(self, totals: Got) -> tuple[Flight, Flight]:
        if totals.in_flight is None:
            return Flight(), Flight()
        mine, theirs = totals.in_flight
        return (
            self.flights[0].add(Look(totals.at, mine, totals.candidate.counts.requests)),
            self.flights[1].add(Look(totals.at, theirs, totals.stable.counts.requests)),
        )

    @property
    def got(self) -> Got:
        """Answer what callers got since the step began; of stable, where it got nothing then, what they did before."""
        got = self.seen.since(self.begun)
        return got if got.stable.counts.requests else replace(got, stable=self.all.stable)

    @property
    def all(self) -> Got:
        """Answer what callers got since the first step began, of stable also what was known before."""
        got = self.seen.since(self.start)
        return got if got.stable.counts.requests else replace(got, stable=self.known)


def _latency(got: Got, latency: Histogram) -> Got:
    return replace(got, candidate=replace(got.candidate, latency=latency))
