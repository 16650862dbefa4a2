"""The check `agreement`: of the requests that both revisions answered, how many may they answer differently?

A sequential test on that share alone: both answered the same request, so stable has no trouble of its own to be allowed for.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from slipway.api.status import CheckStatus
from slipway.core.analysis import ALPHA
from slipway.core.figures import STALE_SECONDS
from slipway.core.live import percent_text
from slipway.core.plan import AgreementBound, Judgement, Verdict
from slipway.core.sequential import OneSample, Tally

NAME = "agreement"
# A test that begins anew each minute notices what begins late; the first one has most of the stake, the latest share the rest.
_ANEW_SECONDS, _ANEW_MAX, _FIRST_WEIGHT = 60.0, 4, 0.8
# 1 - 0.99 is a little more than 0.01.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Compared:
    """What was compared of a candidate since anyone looked: totals that only grow, `age_seconds` old.

    `pairs` are the requests that both answered, and those answered differently; `not_compared` and `dropped` say why others
    are not among them, by reason. `largest_difference` is that of all pairs that a tolerance could have made agree.
    """

    pairs: Tally = field(default_factory=Tally)
    age_seconds: float = math.inf
    largest_difference: float = 0.0
    not_compared: Mapping[str, int] = field(default_factory=dict[str, int])
    dropped: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True)
class Agreement:
    """The evidence on one candidate. Tallies count pairs, and those that disagree among them.

    `start`, `begun` and `seen` are the totals at the first step, at this one's begin and at the latest look; `tests` are the
    sequential tests with their weights.
    """

    bound: AgreementBound
    start: Tally
    begun: Tally
    seen: Tally
    step: int
    since: float
    at: float
    tests: tuple[tuple[float, OneSample], ...]

    @classmethod
    def begin(cls, bound: AgreementBound, step: int, total: Tally, at: float) -> "Agreement":
        """Answer the evidence at `at` (seconds), before anything was compared."""
        tests = ((_FIRST_WEIGHT, OneSample(bound.most_bad)),)
        return cls(bound, total, total, total, step, at, at, tests)

    def add(self, step: int, total: Tally, at: float, *, live: bool = True) -> "Agreement":
        """Answer the evidence once the total has grown. A step counts its own pairs, from when it is `live` in every router."""
        number = int((at - self.since) // _ANEW_SECONDS)
        tests = self.tests
        if number > int((self.at - self.since) // _ANEW_SECONDS):
            weight = (1 - _FIRST_WEIGHT) / (number * (number + 1))  # over all numbers they sum to 1 with the first
            tests = (tests[0], *tests[1:][1 - _ANEW_MAX :], (weight, OneSample(self.bound.most_bad)))
        new = since(total, self.seen)
        if new.requests and self.bound.most_bad > 0:
            tests = tuple((weight, test.add(new)) for weight, test in tests)
        begun = self.begun if live and step == self.step else total
        return replace(self, begun=begun, seen=total, step=step, at=at, tests=tests)

    @property
    def step_pairs(self) -> Tally:
        """Answer the pairs of the step under way."""
        return since(self.seen, self.begun)

    @property
    def log_evidence(self) -> float:
        """Answer the logarithm of the e-value against the bound. Where all must agree, one that does not is proof."""
        if self.bound.most_bad <= 0:
            return math.inf if since(self.seen, self.start).bad else -math.inf
        terms = [math.log(weight) + test.log_evidence for weight, test in self.tests]
        strongest = max(terms)
        return strongest + math.log(sum(math.exp(term - strongest) for term in terms))


def since(total: Tally, earlier: Tally) -> Tally:
    """Answer what came after an earlier state of a total; all of it where that is counted anew."""
    grown = Tally(total.requests - earlier.requests, total.bad - earlier.bad)
    return total if min(grown.requests, grown.bad) < 0 or grown.bad > grown.requests else grown


def judge_agreement(evidence: Agreement, *, age_seconds: float, tests: int = 1) -> Judgement:
    """Answer the verdict. `age_seconds` is the age of the total; `tests` how many bounds share the chance to be wrong."""
    bound = evidence.bound
    if evidence.log_evidence >= math.log(tests / ALPHA):
        pairs = since(evidence.seen, evidence.start)
        message = f"{NAME} {_told(pairs)} of {pairs.requests:.0f} requests, limit {percent_text(bound.least)}"
        return Judgement(Verdict.FAIL, "AgreementTooLow", message, (_shown(bound, pairs, "Failed"),))
    pairs = evidence.step_pairs
    judgement = _of_step(bound, pairs)
    if age_seconds > STALE_SECONDS:
        message = "the comparer has not told its counts for some seconds"
        return replace(judgement, verdict=Verdict.WAIT, reason="MetricsStale", message=message)
    return judgement


def _of_step(bound: AgreementBound, pairs: Tally) -> Judgement:
    if pairs.requests < bound.min_requests:
        message = f"{NAME} rests on fewer than {bound.min_requests} compared requests at this step yet"
        told = _shown(bound, pairs, "InsufficientRequests")
        return Judgement(Verdict.WAIT, "InsufficientRequests", message, (told,))
    if pairs.share > bound.most_bad + _ROUNDING:
        message = f"beyond its limit, but not clearly: {NAME}"
        return Judgement(Verdict.WAIT, "Unclear", message, (_shown(bound, pairs, "Unclear"),))
    return Judgement(Verdict.PASS, "Passed", "all checks pass", (_shown(bound, pairs, "Passed"),))


def together(first: Judgement, second: Judgement) -> Judgement:
    """Answer what both say: a failure before a wait, and that before a pass; of equals the first. All checks are shown."""
    order = (Verdict.FAIL, Verdict.WAIT, Verdict.PASS)
    told = first if order.index(first.verdict) <= order.index(second.verdict) else second
    return replace(told, checks=(*first.checks, *second.checks))


def _told(pairs: Tally) -> str:
    """Write the share that agrees, rounded down: it is not 100% where one did not."""
    return percent_text(math.floor((1 - pairs.share) * 1e6 + _ROUNDING) / 1e6)


def _shown(bound: AgreementBound, pairs: Tally, verdict: str) -> CheckStatus:
    return CheckStatus.model_validate(
        {
            "name": NAME,
            "candidate": _told(pairs) if pairs.requests else None,
            "limit": percent_text(bound.least),
            "sample": int(pairs.requests),
            "verdict": verdict,
        }
    )
