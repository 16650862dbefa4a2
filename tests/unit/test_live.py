"""The live figures of status: true when told, and told seldom: a steady or idle model is written of by nobody."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from slipway.api.status import CheckStatus, RevisionStatus, RolloutStatus, Status
from slipway.core.clock import stamp
from slipway.core.figures import Counts, Figures
from slipway.core.latency import Histogram, bucket_of
from slipway.core.live import latency_text, overdue, percent_text, with_figures

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SOON, LATER = NOW + timedelta(seconds=59), NOW + timedelta(seconds=60)


def figures(requests: int, errors: int = 0, latency_ms: float = 20.5, seconds: float = 60.0) -> Figures:
    latency = Histogram({bucket_of(latency_ms): requests} if requests else {})
    return Figures(seconds, 1.0, 2, 0, 0, requests / seconds, Counts(requests, errors), latency)


def status(role: RevisionStatus | None = None, **fields: object) -> Status:
    return Status(stable=role or RevisionStatus(revision="m-a", weight=100, ready=1)).model_copy(update=fields)


def shown(before: Status, after: Status, seen: Figures | None, now: datetime = NOW) -> tuple[object, ...]:
    role = with_figures(before, after, {"m-a": seen} if seen is not None else {}, now).stable
    assert role is not None
    return role.requests_per_second, role.p95, role.error_rate, role.measured_at


BUSY = with_figures(Status(), status(), {"m-a": figures(6000, 60)}, NOW)
WAS = (100.0, "21ms", "1%", stamp(NOW))

# name, the next figures -> whether they are worth a write
MOVES = [
    ("nothing", figures(6000, 60), False),
    ("a little more", figures(6500, 65), False),
    ("more", figures(6700, 67), True),
    ("less", figures(5300, 53), True),
    ("as slow, within the buckets", figures(6000, 60, 21.9), False),
    ("slower", figures(6000, 60, 25), True),
    ("faster", figures(6000, 60, 12), True),
    ("errors, within the noise", figures(6000, 80), False),
    ("errors", figures(6000, 120), True),
    ("no more errors", figures(6000, 0), True),
    ("nothing any more", figures(0), True),
    ("a router is missing", replace(figures(3000), missing=1), False),
    ("stale", replace(figures(3000), age_seconds=11.0), False),
    ("an operator that has just begun to look", figures(600, seconds=6), False),
]


def test_figures_are_told_in_few_words() -> None:
    assert shown(Status(), status(), figures(6000, 60)) == WAS
    assert [latency_text(ms) for ms in (0.4, 4.5, 999, 999.5, 1250, 59_500)] == ["1ms", "5ms", "999ms", "1s", "1.25s", "59.5s"]
    assert [percent_text(share) for share in (0, 1e-9, 0.00123, 0.5, 1)] == ["0%", "0.0001%", "0.123%", "50%", "100%"]


@pytest.mark.parametrize(("seen", "moved"), [row[1:] for row in MOVES], ids=[row[0] for row in MOVES])
def test_only_what_moved_is_written_and_once_a_minute_at_most(seen: Figures, moved: bool) -> None:
    assert shown(BUSY, status(), seen, SOON) == WAS
    assert (shown(BUSY, status(), seen, LATER) != WAS) is moved
    role = BUSY.stable
    assert role is not None
    assert (overdue(role, seen, SOON), overdue(role, seen, LATER)) == (False, moved)


def test_a_write_for_another_reason_carries_fresh_figures() -> None:
    more = RevisionStatus(revision="m-a", weight=100, ready=2)
    assert shown(BUSY, status(more), figures(6100, 61), SOON) == (102.0, "21ms", "1%", stamp(SOON))
    assert shown(BUSY, status(more), figures(6000, 60), SOON) == WAS, "nothing was measured anew"
    assert shown(BUSY, status(more), replace(figures(3000), missing=1), SOON) == WAS
    assert shown(BUSY, status(more), None, SOON) == WAS
    assert shown(BUSY, status(more), figures(0), SOON) == (0.0, None, None, stamp(SOON))


def test_figures_are_a_revisions_and_follow_it_from_role_to_role() -> None:
    candidate = RevisionStatus(revision="m-a")
    promoted = with_figures(Status(candidate=BUSY.stable), status(), {}, NOW)
    assert promoted.stable is not None
    assert promoted.stable.p95 == "21ms"
    other = with_figures(BUSY, status(RevisionStatus(revision="m-b"), candidate=candidate), {}, NOW)
    assert other.stable is not None
    assert other.candidate is not None
    assert (other.stable.p95, other.candidate.p95) == (None, "21ms")


def test_of_a_model_that_nobody_asked_nothing_is_told() -> None:
    assert with_figures(status(), status(), {"m-a": figures(0)}, NOW) == status()
    assert shown(status(), status(), figures(1), NOW)[0] == pytest.approx(0.0167)


def test_figures_that_someone_else_wrote_are_written_over() -> None:
    role = RevisionStatus(revision="m-a", requests_per_second=100, p95="soon", error_rate="1%", measured_at=stamp(NOW))
    assert shown(status(role), status(), figures(6000, 60), LATER) == (100.0, "21ms", "1%", stamp(LATER))


@pytest.mark.parametrize("per_second", [0.5, 5, 50])
def test_a_steady_load_is_written_of_once(per_second: float) -> None:
    random.seed(1)
    current, writes = status(), 0
    for minute in range(240):
        requests = round(random.gauss(60 * per_second, (60 * per_second) ** 0.5))
        latency: dict[int, int] = {}
        for _ in range(requests):
            bucket = bucket_of(random.lognormvariate(3, 0.5))
            latency[bucket] = latency.get(bucket, 0) + 1
        seen = Figures(60.0, 1.0, 2, 0, 0, requests / 60, Counts(requests), Histogram(latency))
        after = with_figures(current, status(), {"m-a": seen}, NOW + timedelta(minutes=minute))
        writes += after != current
        current = after
    assert writes <= 8, "in four hours"


def checked(candidate: str, measured: datetime | None = None, **rollout: object) -> Status:
    """Answer a status whose rollout shows that figure of a check."""
    checks = [CheckStatus(name="errorRate", candidate=candidate, sample=100)]
    rolling = RolloutStatus(revision="m-b", since=stamp(NOW), checks=checks, measured_at=stamp(measured) if measured else None)
    return status(rollout=rolling.model_copy(update=rollout))


def told(before: Status, after: Status, seconds: float) -> tuple[str | None, str | None, bool]:
    """Answer the check's figure and time, and whether there is anything to write, so many seconds after NOW."""
    written = with_figures(before, after, {}, NOW + timedelta(seconds=seconds))
    assert written.rollout is not None
    return written.rollout.checks[0].candidate, written.rollout.measured_at, written != before


def test_figures_of_checks_alone_are_written_every_ten_seconds_at_most() -> None:
    was = checked("1%", NOW)
    assert told(was, checked("2%"), 9) == ("1%", stamp(NOW), False)
    assert told(was, checked("2%"), 10) == ("2%", stamp(NOW + timedelta(seconds=10)), True)
    assert told(was, checked("1%"), 100) == ("1%", stamp(NOW), False), "nothing moved"


def test_figures_of_checks_go_with_whatever_is_written_and_end_with_the_rollout() -> None:
    was = checked("1%", NOW)
    assert told(was, checked("2%", step=2), 1) == ("2%", stamp(NOW + timedelta(seconds=1)), True)
    assert told(was, checked("99%", outcome="Failed"), 1)[0] == "99%", "the last ones"
    assert told(status(), checked("2%"), 1) == ("2%", stamp(NOW + timedelta(seconds=1)), True)
    assert with_figures(was, status(), {}, NOW).rollout is None
