"""Checks that ask somebody else: whom, what and how often, and what the answers at a step come to.

An answer is good, bad, or none: who cannot be reached, or says nothing that can be read, has neither praised nor blamed the
candidate. Only good answers pass a step, and only bad ones withdraw a candidate.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from slipway.api.base import duration_seconds
from slipway.api.checks import Check
from slipway.api.rollout import Rollout
from slipway.api.status import RolloutStatus
from slipway.core.symptoms import short

_PHRASE_MAX = 160


@dataclass(frozen=True)
class Query:
    """A question to a Prometheus, at `address` or the platform's own, and the numbers that are good."""

    query: str
    address: str | None = None
    min: float | None = None
    max: float | None = None

    kind = "Prometheus"

    @property
    def limit(self) -> str:
        """Say which numbers are good."""
        if self.min is None or self.max is None:
            return f"{self.max:g}" if self.max is not None else f"at least {self.min:g}"
        return f"{self.min:g} to {self.max:g}"

    def keeps(self, value: float) -> bool:
        """Tell whether a number, not NaN, is good."""
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)


@dataclass(frozen=True)
class MetricQuery:
    """A question to a Prometheus, at `address` or the platform's own, for the mean of each arm of an A/B test."""

    query: str
    address: str | None = None

    kind = "Prometheus"


@dataclass(frozen=True)
class Hook:
    """A question to a service of the user's."""

    url: str

    kind = "Webhook"


@dataclass(frozen=True)
class Task:
    """A Job of the user's: its pod template (as in the API, with defaults), and how long it may run."""

    template: Mapping[str, Any]
    seconds: float
    pods: int = 1

    kind = "Job"


@dataclass(frozen=True)
class Polled:
    """One check, by its place among all (from 1), and what it takes to pass and to fail it. A Job answers once.

    A MetricQuery is no check and has no place: it is asked like one.
    """

    name: str
    number: int
    ask: Query | MetricQuery | Hook | Task
    interval_seconds: float = 0.0
    timeout_seconds: float = 0.0
    min_samples: int = 1
    failure_limit: int = 1

    @property
    def stale_seconds(self) -> float:
        """Answer after how long without an answer the last one counts no more."""
        return 2 * self.interval_seconds + 2 * self.timeout_seconds + 5


def polled(rollout: Rollout) -> tuple[Polled, ...]:
    """Answer the checks of `spec.rollout` that ask somebody else. Of those without a name the second of a kind is `webhook 2`."""
    unnamed: Counter[str] = Counter()
    found: list[Polled] = []
    for number, check in enumerate(rollout.checks or (), 1):
        asked = _polled(check, number)
        if asked is None:
            continue
        if not asked.name:
            kind = asked.ask.kind.lower()
            unnamed[kind] += 1
            asked = replace(asked, name=kind if unnamed[kind] == 1 else f"{kind} {unnamed[kind]}")
        found.append(asked)
    return tuple(found)


# No check can be called so.
METRIC = "abTest.metric"
_METRIC_TIMEOUT_SECONDS = 5.0


def metric(rollout: Rollout) -> Polled | None:
    """Answer the question for the metric by which the A/B test of `spec.rollout` compares, None where there is none."""
    asked = rollout.ab_test.metric if rollout.ab_test is not None else None
    if asked is None:
        return None
    ask = MetricQuery(asked.query, asked.address)
    return Polled(METRIC, 0, ask, duration_seconds(asked.interval), _METRIC_TIMEOUT_SECONDS)


def _polled(check: Check, number: int) -> Polled | None:
    name = check.name or ""
    if check.job is not None:
        template = check.job.template.model_dump(by_alias=True, mode="json", exclude_none=True)
        return Polled(name, number, Task(template, duration_seconds(check.job.timeout), check.job.failure_limit))
    asked = check.prometheus or check.webhook
    if asked is None:
        return None
    ask: Query | Hook
    if check.prometheus is not None:
        query = check.prometheus
        ask = Query(query.query, query.address, query.min, query.max)
    else:
        assert check.webhook is not None  # noqa: S101 - one of the two is there
        ask = Hook(check.webhook.url)
    times = duration_seconds(asked.interval), duration_seconds(asked.timeout)
    return Polled(name, number, ask, *times, asked.min_samples, asked.failure_limit)


@dataclass(frozen=True)
class Outward:
    """Whom the operator asks on somebody's behalf: the platform's Prometheus, and its list of hosts."""

    prometheus: str = ""
    hosts: tuple[str, ...] = ()
    domain: str = "cluster.local"

    def service(self, url: str, namespace: str) -> str | None:
        """Answer which Service of the namespace the URL names, None where it names something else."""
        name, _, rest = (urlsplit(url).hostname or "").partition(".")
        own = ("", namespace, f"{namespace}.svc", f"{namespace}.svc.{self.domain}")
        return name if rest in own else None

    def refusal(self, check: Polled, namespace: str) -> tuple[str, str] | None:
        """Answer why a check's address is not asked, as reason and message; None where it is."""
        if isinstance(check.ask, Task):
            return None
        where = f"spec.rollout.checks[{check.number - 1}].{check.ask.kind.lower()}"
        if isinstance(check.ask, MetricQuery):
            where = "spec.rollout.abTest.metric"
        url, field = (check.ask.url, "url") if isinstance(check.ask, Hook) else (check.ask.address, "address")
        if url is None:
            if self.prometheus:
                return None
            return "PrometheusNotConfigured", f"{where}.address is needed: the platform has named no Prometheus of its own"
        host, scheme = urlsplit(url).hostname or "", urlsplit(url).scheme
        if host in self.hosts:
            return None
        if self.service(url, namespace) is None:
            allowed = f", nor one of the hosts that may be asked in this cluster: {', '.join(self.hosts)}" if self.hosts else ""
            return "AddressNotAllowed", f"{where}.{field}: {host} is no Service of namespace {namespace}{allowed}"
        if scheme != "http":
            return "AddressNotAllowed", f"{where}.{field}: a Service of the namespace is asked by http, not {scheme}"
        return None


class Outcome(Enum):
    """What one answer says of the candidate; NONE where there was none that could be read."""

    GOOD = "good"
    BAD = "bad"
    NONE = "none"


@dataclass(frozen=True)
class Answer:
    """One answer: what it says, in a bounded phrase, and the number that it gave, if any.

    To a MetricQuery that is the candidate's mean, and `stable` is stable's.
    """

    outcome: Outcome
    phrase: str = ""
    value: float | None = None
    stable: float | None = None


@dataclass(frozen=True)
class Answers:
    """All answers at a step: how many were good and bad, the last one, the last that was bad, and the last number.

    `pairs` are the means of candidate and stable that came since the answers were looked at last.
    """

    good: int = 0
    bad: int = 0
    last: Answer | None = None
    worst: Answer | None = None
    value: float | None = None
    age_seconds: float = 0.0
    pairs: tuple[tuple[float, float], ...] = ()

    def add(self, answer: Answer) -> "Answers":
        """Answer them with one more."""
        bad = answer.outcome == Outcome.BAD
        return Answers(
            self.good + (answer.outcome == Outcome.GOOD),
            self.bad + bad,
            answer,
            answer if bad else self.worst,
            self.value if answer.value is None else answer.value,
            pairs=self.pairs if answer.value is None or answer.stable is None else (*self.pairs, (answer.value, answer.stable)),
        )


NO_ANSWERS = Answers()


@dataclass(frozen=True)
class Subject:
    """What an answer is about: the names that a query or a request carries."""

    namespace: str
    name: str
    revision: str
    version: str
    stable: str
    step: int
    weight: int

    def fill(self, query: str) -> str:
        """Answer a query with the names in it. They hold no character that PromQL would read otherwise."""
        names = {"namespace": self.namespace, "name": self.name, "revision": self.revision, "stable": self.stable}
        for word, name in names.items():
            query = query.replace("{{" + word + "}}", name)
        return query


def phrase(text: str) -> str:
    """Answer foreign text as a short line."""
    return short(text, _PHRASE_MAX)


def round_of(rollout: RolloutStatus) -> str:
    """Answer what tells the step under way from all others: a step that begins anew, or a retry, gets answers of its own."""
    told = [rollout.revision, rollout.since, rollout.step, rollout.judged_since]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:8]
