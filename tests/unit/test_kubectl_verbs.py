"""What `kubectl slipway` says of a verb, before and after: it agrees with what the policy does."""

from dataclasses import replace

import pytest
from tests.unit.test_canary_table import BEFORE, FIVE, at, seen
from tests.unit.test_rollout_table import A, B, C
from tests.unit.test_verbs import (
    ALL,
    FAILED,
    PAUSED,
    ROLLED_BACK,
    ROLLING_BACK,
    SERVES_B,
    TABLE,
    asking,
    served,
    with_rollout,
)

from slipway.api.status import Request, Status, Verb
from slipway.core.observation import Symptom
from slipway.core.report import Subject, report
from slipway.core.rollout import decide
from slipway.core.state import Candidate, State, World
from slipway.kubectl.verbs import Wanted, outcome, refusal, request

SUBJECT = Subject("m", "ns", 1)


def told(state: State, world: World) -> Status:
    return report(Status(), SUBJECT, state, world)


ASKED = [row for row in TABLE if row[1].request is not None]


@pytest.mark.parametrize(("before", "view"), [row[1:3] for row in ASKED], ids=[row[0] for row in ASKED])
def test_what_the_policy_passes_over_is_not_sent_and_what_it_does_is_told(before: State, view: World) -> None:
    """The policy is asked what it does: the same without the request."""
    assert before.request is not None
    unasked = decide(replace(before, request=None), view)
    after = decide(before, view)
    does = (after.pinned, after.rollout, after.history) != (unasked.pinned, unasked.rollout, unasked.history)
    why = refusal(told(before, view), before.request, set(view.known))
    assert (why is None) == does, why
    done, says = outcome(told(before, view), told(after, view), before.request)
    assert done == does, says


def asked(verb: Verb, revision: str | None = None) -> Request:
    return request(verb, "ops-1", revision=revision)


KEPT = {"m-a", "m-b", "m-c"}


@pytest.mark.parametrize(
    ("before", "view", "verb", "revision", "says"),
    [
        (State(stable=A), seen(BEFORE, target=A), Verb.PROMOTE, None, "no rollout is under way"),
        (
            FAILED,
            seen(BEFORE),
            Verb.PROMOTE,
            None,
            "no rollout is under way; m-b was withdrawn (y): `retry` tries it again",
        ),
        (at(0, None, stable=None), seen({}), Verb.ABORT, None, "nothing served before m-b (version b), which serves as soon"),
        (PAUSED, seen(FIVE), Verb.PAUSE, None, "the rollout of m-b (version b) is paused already"),
        (at(1, 5), seen(FIVE), Verb.RESUME, None, "the rollout of m-b (version b) is not paused"),
        (State(stable=A), seen(BEFORE, target=A), Verb.RETRY, None, "there is nothing to retry"),
        (SERVES_B, seen(ALL), Verb.ROLLBACK, "m-z", "m-z is not kept; kept are m-a, m-c"),
        (SERVES_B, seen(ALL), Verb.ROLLBACK, "m-b", "m-b is what the spec asks for"),
        (FAILED, seen(BEFORE), Verb.ROLLBACK, "m-b", "m-b is what the spec asks for: `retry` tries it"),
        (ROLLED_BACK, seen(BEFORE), Verb.ROLLBACK, "m-b", "m-b is what the spec asks for: `retry` tries it"),
        (ROLLED_BACK, seen(BEFORE), Verb.ROLLBACK, "m-a", "m-a serves already"),
        (
            State(stable=B, history=served(B)),
            seen(ALL),
            Verb.ROLLBACK,
            None,
            "no revision that served before m-b (version b) is kept",
        ),
        (State(), seen({}), Verb.ROLLBACK, None, "nothing serves yet"),
    ],
)
def test_why_not(before: State, view: World, verb: Verb, revision: str | None, says: str) -> None:
    why = refusal(told(before, view), asked(verb, revision), KEPT)
    assert why is not None
    assert why.startswith(says)


def test_without_the_right_to_list_revisions_the_operator_alone_looks() -> None:
    status = told(SERVES_B, seen(ALL))
    assert refusal(status, asked(Verb.ROLLBACK, "m-z"), None) is None
    assert refusal(status, asked(Verb.ROLLBACK), None) is None
    passed_over = told(decide(asking(SERVES_B, Verb.ROLLBACK, revision="m-z"), seen(ALL)), seen(ALL))
    assert outcome(status, passed_over, asked(Verb.ROLLBACK, "m-z"))[0] is False


def test_no_way_back_while_the_spec_cannot_be_read() -> None:
    invalid = replace(SUBJECT, spec_error=Symptom("SpecInvalid", "spec.model: no"))
    status = report(Status(), invalid, SERVES_B, seen(ALL, target=None))
    why = refusal(status, asked(Verb.ROLLBACK), KEPT)
    assert why == "Slipway cannot read the spec (spec.model: no): correct it first"


@pytest.mark.parametrize(
    ("before", "view", "verb", "full", "says"),
    [
        (at(1, 5), seen(FIVE), Verb.PROMOTE, False, "m-b (version b) goes on to step 2 of 3 with 50%"),
        (at(1, 5), replace(seen(FIVE), replicas=4), Verb.PROMOTE, False, "m-b (version b) leaves step 1 as soon as"),
        (at(1, 5), seen(FIVE), Verb.PROMOTE, True, "m-b (version b) skips all steps that are left"),
        (
            with_rollout(replace(at(3, 5), candidates=(Candidate(B, 100),)), paused=True),
            seen(ALL),
            Verb.PROMOTE,
            False,
            "m-b (version b) serves all requests",
        ),
        (at(1, 5), seen(FIVE), Verb.ABORT, False, "m-b (version b) is withdrawn; m-a (version a) serves all requests"),
        (at(1, 5), seen(FIVE), Verb.PAUSE, False, "m-b (version b) stays at 5% until `resume` or `promote`"),
        (PAUSED, seen(FIVE), Verb.RESUME, False, "m-b (version b) goes on"),
        (FAILED, seen(BEFORE, b=0), Verb.RETRY, False, "m-b (version b) is tried again"),
        (ROLLING_BACK, seen(ALL, target=B), Verb.RETRY, False, "m-b (version b) serves all requests, as the spec asks for"),
        (SERVES_B, seen(ALL, a=0), Verb.ROLLBACK, False, "m-a (version a) takes over as soon as it is ready; m-b is refused"),
        (FAILED, seen(BEFORE, c=0), Verb.ROLLBACK, False, "m-c (version c) takes over as soon as it is ready; m-b is refused"),
        (at(1, 5), seen(FIVE), Verb.ROLLBACK, False, "m-b (version b) is withdrawn"),
    ],
)
def test_what_came_of_it(before: State, view: World, verb: Verb, full: bool, says: str) -> None:
    after = decide(asking(before, verb, full=full), view)
    done, message = outcome(told(before, view), told(after, view), request(verb, "ops-1", full=full))
    assert done
    assert message.startswith(says)


def test_a_request_is_told_from_any_other_by_its_microseconds() -> None:
    first, second = asked(Verb.PAUSE), asked(Verb.PAUSE)
    assert first.at < second.at
    assert first.at.endswith("Z")
    assert len(first.at) == len("2026-01-01T00:00:00.000001Z")


# name, states as they come -> whether it was promoted, and why; None while it is awaited
WAITS: list[tuple[str, list[tuple[State, World]], tuple[bool, str] | None]] = [
    ("under way", [(at(1, 5), seen(FIVE))], None),
    ("serves already", [(State(stable=A), seen(BEFORE, target=A))], (True, "m-a (version a) serves")),
    ("promoted", [(at(1, 5), seen(FIVE)), (State(stable=B, history=served(B, A)), seen(ALL))], (True, "m-b (version b) serves")),
    ("withdrawn", [(at(1, 5), seen(FIVE)), (FAILED, seen(BEFORE))], (False, "m-b was withdrawn: y")),
    ("rolled back", [(ROLLED_BACK, seen(BEFORE))], (False, "m-b was rolled back by ops-1")),
    ("a rollback under way", [(ROLLING_BACK, seen(ALL))], (False, "m-b was rolled back by ops-1")),
    (
        "another spec meanwhile",
        [(at(1, 5), seen(FIVE)), (decide(at(1, 5), seen(FIVE, target=C, c=0)), seen(FIVE, target=C, c=0))],
        (False, "m-b (version b) was withdrawn: the spec asks for another version"),
    ),
    (
        "promoted, and another one since",
        [(at(1, 5), seen(FIVE)), (State(stable=C, history=served(C, B)), seen({"m-c": 100}))],
        (True, "m-b (version b) served, and another version has taken its place since"),
    ),
]


@pytest.mark.parametrize(("states", "ended"), [row[1:] for row in WAITS], ids=[row[0] for row in WAITS])
def test_waiting(states: list[tuple[State, World]], ended: tuple[bool, str] | None) -> None:
    wanted = Wanted()
    *before, last = (told(state, view) for state, view in states)
    assert [wanted.ended(status) for status in before] == [None] * len(before)
    assert wanted.ended(last) == ended
