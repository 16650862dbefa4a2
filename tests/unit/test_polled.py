"""Checks that ask somebody else: what the spec asks for, whom it may, and what answers come to."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from slipway.api.rollout import Rollout
from slipway.api.status import RolloutStatus
from slipway.core.analysis import check_answers, judge
from slipway.core.evidence import Evidence, Got
from slipway.core.figures import Slice
from slipway.core.jobs import is_finished, job_answers, job_name
from slipway.core.plan import Bound, Plan, Step, Verdict, plan
from slipway.core.polled import (
    METRIC,
    NO_ANSWERS,
    Answer,
    Answers,
    Hook,
    MetricQuery,
    Outcome,
    Outward,
    Polled,
    Query,
    Subject,
    Task,
    phrase,
)

GOOD, BAD, NONE = (Answer(outcome, f"it says {outcome.value}") for outcome in Outcome)
QUERY = Polled("errors", 1, Query("up", max=1.0), 15, 5, min_samples=2, failure_limit=3)
HOOK = Polled("gate", 2, Hook("http://gate/"), 10, 5, min_samples=2, failure_limit=3)
JOB = Polled("smoke", 3, Task({"spec": {}}, 600))
NOTHING = Got(Slice(0, 0), Slice(0, 0))


def rollout(*checks: dict[str, Any]) -> Rollout:
    return Rollout.model_validate({"strategy": "Canary", "steps": [{"weight": 10}], "checks": list(checks)})


def heard(*answers: Answer) -> Answers:
    told = NO_ANSWERS
    for answer in answers:
        told = told.add(answer)
    return told


def prometheus(**more: Any) -> dict[str, Any]:
    return {"prometheus": {"query": "up", "max": 1, **more}}


def test_the_plan_has_the_checks_that_ask_and_the_bounds_of_the_others() -> None:
    job = {"template": {"spec": {"containers": [{"image": "tests:1"}]}}, "timeout": "1m", "failureLimit": 2}
    asked = rollout(
        {"errorRate": {"max": "1%", "minRequests": 7}},
        prometheus(interval="1m", minSamples=4, failureLimit=2),
        {"name": "gate", "webhook": {"url": "http://gate/ask"}},
        {"name": "fast", "latency": {"max": "100ms", "relativeToStable": 2}},
        prometheus(),
        {"job": job},
    )
    found = plan(asked)
    assert [(bound.name, bound.min_requests) for bound in found.bounds] == [
        ("errorRate", 7),
        ("fast", None),
        ("fast to stable's", None),
    ]
    told = [(each.name, each.number, each.interval_seconds, each.min_samples, each.failure_limit) for each in found.polled]
    assert told == [
        ("prometheus", 2, 60, 4, 2),
        ("gate", 3, 10, 1, 3),
        ("prometheus 2", 5, 15, 1, 3),
        ("job", 6, 0, 1, 1),
    ]
    task = found.polled[-1].ask
    assert isinstance(task, Task)
    assert (task.seconds, task.pods) == (60, 2)
    assert task.template["spec"]["containers"] == [{"name": "check", "image": "tests:1"}]


OUTWARD = Outward("http://prometheus.monitoring.svc:9090", ("hooks.example.com",), "cluster.local")


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://gate/ask", True),
        ("http://gate:8080/ask", True),
        ("http://gate.shop", True),
        ("http://gate.shop.svc", True),
        ("http://gate.shop.svc.cluster.local/ask", True),
        ("https://hooks.example.com/churn", True),
        ("http://hooks.example.com:8080/churn", True),
        ("https://gate/ask", False),
        ("http://gate.other.svc", False),
        ("http://gate.shop.svc.example.com", False),
        ("http://gate.shop.example.com", False),
        ("http://sub.hooks.example.com", False),
        ("http://hooks.example.com.evil.example.com", False),
        ("http://169.254.169.254/latest", False),
        ("http://10.96.0.1", False),
        ("http://prometheus.monitoring.svc:9090", False),
        ("http://kubernetes.default.svc", False),
    ],
)
def test_only_services_of_the_namespace_and_allowed_hosts_are_asked(url: str, allowed: bool) -> None:
    asked = Polled("gate", 1, Hook(url)), Polled("errors", 1, Query("up", url, max=1)), Polled(METRIC, 0, MetricQuery("up", url))
    for check in asked:
        refusal = OUTWARD.refusal(check, "shop")
        assert (refusal is None) is allowed, refusal
        if refusal:
            assert refusal[0] == "AddressNotAllowed"
            where = "spec.rollout.abTest.metric.address" if check.name == METRIC else "spec.rollout.checks[0]."
            assert refusal[1].startswith(where)


def test_a_query_without_an_address_needs_the_platforms_prometheus() -> None:
    check = Polled("errors", 3, Query("up", max=1))
    assert OUTWARD.refusal(check, "shop") is None
    refusal = Outward().refusal(check, "shop")
    assert refusal is not None
    assert refusal[0] == "PrometheusNotConfigured"
    assert "checks[2].prometheus.address" in refusal[1]


@pytest.mark.parametrize(
    ("low", "high", "limit", "good", "bad"),
    [
        (None, 0.05, "0.05", [-1, 0, 0.05], [0.051, float("inf")]),
        (0.9, None, "at least 0.9", [0.9, 5], [0.89, float("-inf")]),
        (1, 2, "1 to 2", [1, 1.5, 2], [0.99, 2.01]),
    ],
)
def test_bounds(low: float | None, high: float | None, limit: str, good: list[float], bad: list[float]) -> None:
    query = Query("up", min=low, max=high)
    assert query.limit == limit
    assert all(query.keeps(value) for value in good)
    assert not any(query.keeps(value) for value in bad)


def test_a_query_is_filled_with_names() -> None:
    subject = Subject("shop", "churn", "churn-b", "2", "churn-a", 1, 10)
    query = 'rate(errors{ns="{{namespace}}",name="{{name}}",revision="{{revision}}"}[1m]) - x{revision="{{stable}}"} + {{other}}'
    assert subject.fill(query) == (
        'rate(errors{ns="shop",name="churn",revision="churn-b"}[1m]) - x{revision="churn-a"} + {{other}}'
    )


TABLE = [
    (QUERY, [], Verdict.WAIT, "InsufficientAnswers", "InsufficientAnswers"),
    (QUERY, [GOOD], Verdict.WAIT, "InsufficientAnswers", "InsufficientAnswers"),
    (QUERY, [GOOD, GOOD], Verdict.PASS, "Passed", "Passed"),
    (QUERY, [GOOD, GOOD, NONE], Verdict.WAIT, "CheckUnanswered", "Unanswered"),
    (QUERY, [GOOD, NONE, GOOD], Verdict.PASS, "Passed", "Passed"),
    (QUERY, [GOOD, GOOD, BAD], Verdict.WAIT, "Unclear", "Unclear"),
    (QUERY, [BAD, BAD, GOOD, GOOD], Verdict.PASS, "Passed", "Passed"),
    (QUERY, [BAD, GOOD, BAD, GOOD, BAD], Verdict.FAIL, "PrometheusCheckFailed", "Failed"),
    (QUERY, [BAD, BAD, BAD, NONE], Verdict.FAIL, "PrometheusCheckFailed", "Failed"),
    (QUERY, [NONE] * 50, Verdict.WAIT, "CheckUnanswered", "Unanswered"),
    (HOOK, [BAD] * 3, Verdict.FAIL, "WebhookCheckFailed", "Failed"),
    (JOB, [], Verdict.WAIT, "CheckRunning", "Running"),
    (JOB, [NONE], Verdict.WAIT, "CheckUnanswered", "Unanswered"),
    (JOB, [BAD], Verdict.FAIL, "JobCheckFailed", "Failed"),
    (JOB, [GOOD], Verdict.PASS, "Passed", "Passed"),
]


@pytest.mark.parametrize(("check", "answers", "verdict", "reason", "shown"), TABLE)
def test_verdicts(check: Polled, answers: list[Answer], verdict: Verdict, reason: str, shown: str) -> None:
    told = check_answers(check, heard(*answers))
    assert (told.verdict, told.reason, told.shown.verdict) == (verdict, reason, shown)
    assert (told.shown.name, told.shown.kind) == (check.name, check.ask.kind)
    assert verdict == Verdict.PASS or told.message.startswith(check.name)


def test_a_check_that_nobody_asks_any_more_passes_nothing() -> None:
    answers = Answers(good=9, last=GOOD, age_seconds=QUERY.stale_seconds + 1)
    assert check_answers(QUERY, answers).reason == "CheckUnanswered"


@given(
    st.lists(st.sampled_from([GOOD, BAD, NONE])),
    st.integers(1, 5),
    st.integers(1, 5),
    st.floats(0, 100),
)
def test_laws(answers: list[Answer], least: int, limit: int, age: float) -> None:
    """So many bad answers always withdraw it, fewer never; only good ones pass it, and the last is one of them."""
    check = Polled("errors", 1, Query("up", max=1.0), 15, 5, least, limit)
    told = heard(*answers)
    told = Answers(told.good, told.bad, told.last, told.worst, told.value, age)
    verdict = check_answers(check, told).verdict
    assert (verdict == Verdict.FAIL) is (answers.count(BAD) >= limit)
    if verdict == Verdict.PASS:
        assert answers.count(GOOD) >= least
        assert answers[-1] is GOOD
        assert age <= check.stale_seconds


ERRORS = Bound("errorRate", 0.01)


@pytest.mark.parametrize(
    ("checks", "answers", "verdict", "reason"),
    [
        ((QUERY, HOOK), {"errors": [GOOD] * 2, "gate": [GOOD] * 2}, Verdict.PASS, "Passed"),
        ((QUERY, HOOK), {"errors": [GOOD] * 2}, Verdict.WAIT, "InsufficientAnswers"),
        ((QUERY, HOOK), {"errors": [NONE], "gate": [BAD] * 3}, Verdict.FAIL, "WebhookCheckFailed"),
        ((QUERY, JOB), {"errors": [GOOD] * 2}, Verdict.WAIT, "CheckRunning"),
    ],
)
@pytest.mark.parametrize("reliable", [True, False])
def test_without_bounds_the_answers_decide(
    checks: tuple[Polled, ...], answers: dict[str, list[Answer]], verdict: Verdict, reason: str, reliable: bool
) -> None:
    asked = Plan((Step(10, judged=True), Step(100)), polled=checks)
    told = judge(
        Evidence.begin(asked, 1, NOTHING),
        asked,
        reliable=reliable,
        answers={name: heard(*all_) for name, all_ in answers.items()},
    )
    assert (told.verdict, told.reason) == (verdict, reason)
    assert [check.name for check in told.checks] == [check.name for check in checks]


def test_a_bound_and_answers_must_both_pass() -> None:
    asked = Plan((Step(10, judged=True), Step(100)), (ERRORS,), (HOOK,))
    evidence = Evidence.begin(asked, 1, NOTHING)
    good, bad = {"gate": heard(GOOD, GOOD)}, {"gate": heard(BAD, BAD, BAD)}
    assert judge(evidence, asked, reliable=True, answers=good).reason == "InsufficientRequests"
    assert judge(evidence, asked, reliable=False, answers=good).reason == "MetricsStale"
    assert judge(evidence, asked, reliable=False, answers=bad).reason == "WebhookCheckFailed"


ROLLOUT = RolloutStatus(revision="churn-b41d0000", since="2026-01-01T00:00:00Z", step=2, steps=3)


def test_a_job_is_named_by_what_it_is_about() -> None:
    name = job_name(ROLLOUT, JOB)
    assert name.startswith("churn-b41d0000-check-3-2-")
    assert name == job_name(ROLLOUT.model_copy(update={"live_weight": 10, "step_since": "2026-01-01T00:01:00Z"}), JOB)
    others = [
        job_name(ROLLOUT.model_copy(update={"since": "2026-01-01T00:00:01Z"}), JOB),
        job_name(ROLLOUT.model_copy(update={"step": 3}), JOB),
        job_name(ROLLOUT.model_copy(update={"judged_since": "2026-01-01T00:00:05Z"}), JOB),
        job_name(ROLLOUT, Polled("smoke", 3, Task({"spec": {"image": "tests:2"}}, 600))),
    ]
    assert len({name, *others}) == 5
    long = job_name(ROLLOUT.model_copy(update={"revision": "c" * 52 + "-b41d0000"}), JOB)
    assert len(long) <= 63
    assert long != job_name(ROLLOUT.model_copy(update={"revision": "c" * 52 + "-b41d0001"}), JOB)


def job(kind: str = "", reason: str = "") -> dict[str, Any]:
    return {"status": {"conditions": [{"type": kind, "status": "True", "reason": reason, "message": "words"}] if kind else []}}


def pod(phase: str, **state: Any) -> dict[str, Any]:
    return {"metadata": {}, "status": {"phase": phase, "containerStatuses": [{"name": "check", "state": state}]}}


@pytest.mark.parametrize(
    ("found", "pods", "outcome", "says"),
    [
        (None, [], None, ""),
        ({}, [], None, ""),
        (job("Suspended"), [], None, ""),
        (job("SuccessCriteriaMet"), [], None, ""),
        (job(), [pod("Running", running={})], None, ""),
        (job(), [pod("Failed", terminated={"exitCode": 1})], None, ""),
        (job(), [pod("Pending", waiting={"reason": "ErrImagePull", "message": "no such image"})], Outcome.NONE, "no such image"),
        (job("Complete"), [], Outcome.GOOD, ""),
        (job("Failed", "DeadlineExceeded"), [], Outcome.NONE, "timeout"),
        (job("Failed", "BackoffLimitExceeded"), [], Outcome.BAD, "words"),
        (job("Failed", "BackoffLimitExceeded"), [pod("Failed", terminated={"exitCode": 3, "message": "too few\n rows"})],
         Outcome.BAD, "code 3: too few rows"),
    ],
)  # fmt: skip
def test_what_a_job_says(found: dict[str, Any] | None, pods: list[dict[str, Any]], outcome: Outcome | None, says: str) -> None:
    answers = job_answers(found, pods)
    assert (answers.last and answers.last.outcome) == outcome
    assert answers.last is None or says in answers.last.phrase
    assert found is None or is_finished(found) is ("Complete" in str(found) or "Failed" in str(found))


def test_foreign_words_are_short_and_plain() -> None:
    assert phrase("a\x1b[31m b\n\nc\x00") == "a [31m b c"
    assert len(phrase("x" * 10_000)) == 160
