"""Blue/green, shadow, manual promotion, pauses, weights set by hand: what is seen, and what is decided."""

import json
import math
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.test_canary_table import FAIL, WAIT, seen
from tests.unit.test_rollout_table import NOW, A, B, router

from slipway.api.rollout import Rollout
from slipway.api.status import Draining, Request, RolloutStatus, Verb
from slipway.core import routing
from slipway.core.capacity import replicas
from slipway.core.clock import stamp
from slipway.core.observation import RoutesSeen
from slipway.core.plan import Plan, Step, plan
from slipway.core.rollout import decide, wake_after
from slipway.core.routing import RouterState, Wanted
from slipway.core.state import Candidate, State, World
from slipway.core.steering import UNSTEERED, Match, Steering, Sticky
from slipway.core.step import awaits_word
from slipway.manifests import envoy
from slipway.settings import Settings

CHECKS = [{"errorRate": {"max": "1%"}}]
MIRROR, PREVIEW = Steering("m-b", mirror=20), Steering("m-b", preview=True)
TESTERS = Match("x-tester", "yes")


def planned(**asked: Any) -> Plan:
    return plan(Rollout.model_validate(asked))


SHADOW = planned(strategy="Shadow", shadow={"mirror": 20, "hold": "1m"}, checks=CHECKS)
BLUE_GREEN = planned(strategy="BlueGreen", blueGreen={"hold": "1m", "scaleDownDelay": "5m"}, checks=CHECKS)
MANUAL = planned(strategy="Canary", steps=[{"weight": 10, "hold": "1m"}], checks=CHECKS, promotion="Manual")
PAUSING = planned(strategy="Canary", steps=[{"weight": 10, "hold": "1m"}], checks=CHECKS, onFailure="Pause")
PAUSED_STEP = planned(
    strategy="Canary",
    steps=[{"weight": 0, "pause": {}, "replicas": 2}, {"weight": 10, "pause": {"duration": "5m"}}],
    testers={"header": {"name": "x-tester", "value": "yes"}},
)


@pytest.mark.parametrize(
    ("asked", "steps"),
    [
        ({}, (Step(100),)),
        ({"promotion": "Manual"}, (Step(0, pause_seconds=math.inf, share=100), Step(100))),
        ({"strategy": "Shadow", "shadow": {}}, (Step(0, 600, judged=True, mirror=10), Step(100))),
        ({"strategy": "BlueGreen"}, (Step(0, share=100), Step(100))),
        (
            {"strategy": "Canary", "steps": [{"weight": 100, "hold": "1m"}], "promotion": "Manual"},
            (Step(100, 60, judged=True, pause_seconds=math.inf),),
        ),
        (
            {"strategy": "Canary", "steps": [{"weight": 0, "mirror": 50}, {"weight": 10, "pause": {"duration": "5m"}}]},
            (Step(0, judged=True, mirror=50), Step(10, judged=True, pause_seconds=300), Step(100)),
        ),
    ],
)
def test_every_strategy_is_a_row_of_steps(asked: dict[str, Any], steps: tuple[Step, ...]) -> None:
    assert planned(**asked).steps == steps


def test_a_step_needs_pods_for_what_it_gives() -> None:
    assert [Step(0).pods(10), Step(25).pods(10), Step(5, mirror=40).pods(10), Step(0, share=100).pods(10)] == [1, 3, 4, 10]
    assert [Step(10, replicas=4).pods(10), Step(100, replicas=4).pods(10)] == [4, 10]


def at(step: int, plan: Plan, live_for: float | None = None, **rollout: Any) -> State:
    """Answer a rollout of B at a step that has been live for so many seconds, or is not yet."""
    since = None if live_for is None else stamp(NOW - timedelta(seconds=live_for))
    told = {"revision": "m-b", "since": stamp(NOW), "step": step, "steps": len(plan.steps), "step_since": since, **rollout}
    weight = rollout.get("weight_set", plan.step(step).weight if step else 0)
    return State(stable=A, candidates=(Candidate(B, weight),), rollout=RolloutStatus(**told))


def given(written: dict[str, int], steering: Steering = UNSTEERED) -> RoutesSeen:
    return RoutesSeen(written, True, (router({"m-a": 9, "m-b": 9}),), steering=steering)


ONLY_A, TENTH = {"m-a": 100}, {"m-a": 90, "m-b": 10}


# name, state before, world -> (stable, candidate, weight, step, paused)
TABLE: list[tuple[str, State, World, tuple[Any, Any, int, int, bool]]] = [
    ("shadow: copies first", at(0, SHADOW), seen(given(ONLY_A), plan=SHADOW), (A, B, 0, 1, False)),
    ("shadow: copies not live: not begun", at(1, SHADOW), seen(given(ONLY_A), plan=SHADOW), (A, B, 0, 1, False)),
    ("shadow: bad answers to copies", at(1, SHADOW, 5), seen(given(ONLY_A, MIRROR), FAIL, plan=SHADOW), (A, None, 0, 0, False)),
    ("shadow: held", at(1, SHADOW, 59), seen(given(ONLY_A, MIRROR), plan=SHADOW), (A, B, 0, 1, False)),
    ("shadow: not measured", at(1, SHADOW, 90), seen(given(ONLY_A, MIRROR), WAIT, plan=SHADOW), (A, B, 0, 1, False)),
    ("shadow: passed: all at once", at(1, SHADOW, 60), seen(given(ONLY_A, MIRROR), plan=SHADOW), (A, B, 100, 2, False)),
    ("blue/green: preview first", at(0, BLUE_GREEN), seen(given(ONLY_A), plan=BLUE_GREEN), (A, B, 0, 1, False)),
    (
        "blue/green: passed: the switch",
        at(1, BLUE_GREEN, 60),
        seen(given(ONLY_A, PREVIEW), plan=BLUE_GREEN),
        (A, B, 100, 2, False),
    ),
    (
        "blue/green: the preview has no pod: nobody is hurt, it waits",
        at(1, BLUE_GREEN, 5),
        seen(given(ONLY_A, PREVIEW), plan=BLUE_GREEN, b=0),
        (A, B, 0, 1, False),
    ),
    ("manual: passed, and waits for ever", at(1, MANUAL, 99999), seen(given(TENTH), plan=MANUAL), (A, B, 10, 1, False)),
    ("manual: promoted", at(1, MANUAL, 99, forced=1), seen(given(TENTH), plan=MANUAL), (A, B, 100, 2, False)),
    ("manual: resumed is a word too", at(1, MANUAL, 99, released=1), seen(given(TENTH), plan=MANUAL), (A, B, 100, 2, False)),
    (
        "manual: a word passes no checks",
        at(1, MANUAL, 99, released=1),
        seen(given(TENTH), WAIT, plan=MANUAL),
        (A, B, 10, 1, False),
    ),
    ("manual: fails: withdrawn", at(1, MANUAL, 99), seen(given(TENTH), FAIL, plan=MANUAL), (A, None, 0, 0, False)),
    ("onFailure Pause: stays as it is", at(1, PAUSING, 5), seen(given(TENTH), FAIL, plan=PAUSING), (A, B, 10, 1, True)),
    (
        "onFailure Pause: no clear result by the deadline",
        at(1, PAUSING, 9999),
        seen(given(TENTH), WAIT, plan=PAUSING),
        (A, B, 10, 1, True),
    ),
    (
        "onFailure Pause: without any pod it is withdrawn all the same",
        at(1, PAUSING, 5),
        seen(given(TENTH), plan=PAUSING, b=0),
        (A, None, 0, 0, False),
    ),
    (
        "onFailure Pause: what failed once is not asked again before it is resumed",
        at(1, PAUSING, 99, paused=True, paused_reason="X"),
        seen(given(TENTH), plan=PAUSING),
        (A, B, 10, 1, True),
    ),
    (
        "a step of testers: they have the candidate, nobody else",
        at(0, PAUSED_STEP),
        replace(seen(given(ONLY_A), plan=PAUSED_STEP, b=2)),
        (A, B, 0, 1, False),
    ),
    ("its pods are asked for by number", at(0, PAUSED_STEP), seen(given(ONLY_A), plan=PAUSED_STEP, b=1), (A, B, 0, 0, False)),
    (
        "a pause that ends",
        at(2, PAUSED_STEP, 300),
        seen(given(TENTH, Steering("m-b", testers=TESTERS)), plan=PAUSED_STEP),
        (A, B, 100, 3, False),
    ),
    (
        "set by hand: as soon as there are pods",
        at(1, MANUAL, 5, paused=True, weight_set=40),
        seen(given(TENTH), plan=MANUAL),
        (A, B, 40, 1, True),
    ),
    (
        "set by hand: it stays",
        at(1, MANUAL, 999, paused=True, weight_set=40),
        seen(given({"m-a": 60, "m-b": 40}), plan=MANUAL),
        (A, B, 40, 1, True),
    ),
    (
        "set by hand to nothing",
        at(1, MANUAL, 999, paused=True, weight_set=0),
        seen(given(ONLY_A), plan=MANUAL),
        (A, B, 0, 1, True),
    ),
]


@pytest.mark.parametrize(("before", "view", "after"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_table(before: State, view: World, after: tuple[Any, Any, int, int, bool]) -> None:
    if before.rollout is not None and before.rollout.weight_set not in (None, before.weight):
        before = replace(before, candidates=(Candidate(B, view.plan.step(before.step).weight),))
    state = decide(before, view)
    paused = state.rollout is not None and state.rollout.paused
    assert (state.stable, state.candidate, state.weight, state.step, paused) == after


def test_a_weight_set_by_hand_waits_for_its_pods_and_ends_with_resume() -> None:
    asked = Request(verb=Verb.SET_WEIGHT, at="1", by="ops-1", weight=60)
    view = replace(seen(given(TENTH), plan=MANUAL, b=1), replicas=5)
    waiting = decide(replace(at(1, MANUAL, 5), request=asked), view)
    assert (waiting.weight, replicas(waiting, view, "m-b")) == (10, 3)
    view = replace(view, revisions=seen(given(TENTH), b=3).revisions)
    set_to = decide(waiting, view)
    assert (set_to.weight, set_to.step) == (60, 1)
    back = decide(replace(set_to, request=Request(verb=Verb.RESUME, at="2")), view)
    assert back.rollout is not None
    assert (back.weight, back.rollout.paused, back.rollout.weight_set) == (60, False, None)


def test_what_failed_and_was_resumed_is_judged_anew() -> None:
    failed = decide(at(1, PAUSING, 5), seen(given(TENTH), FAIL, plan=PAUSING))
    assert failed.rollout is not None
    assert (failed.rollout.paused_reason, failed.rollout.paused_message) == (FAIL.reason, FAIL.message)
    # At that moment the verdict is still the one on what it failed by.
    resumed = decide(replace(failed, request=Request(verb=Verb.RESUME, at="2")), seen(given(TENTH), FAIL, plan=PAUSING))
    assert resumed.rollout is not None
    assert (resumed.rollout.paused, resumed.rollout.paused_reason, resumed.rollout.judged_since) == (False, None, stamp(NOW))


def test_a_word_is_waited_for_only_once_the_step_has_passed() -> None:
    assert not awaits_word(at(1, MANUAL, 59), seen(given(TENTH), plan=MANUAL))
    assert not awaits_word(at(1, MANUAL, 60), seen(given(TENTH), WAIT, plan=MANUAL))
    assert awaits_word(at(1, MANUAL, 60), seen(given(TENTH), plan=MANUAL))
    assert not awaits_word(at(1, MANUAL, 60, released=1), seen(given(TENTH), plan=MANUAL))


def test_what_served_before_a_switch_is_there_for_a_way_back() -> None:
    switched = decide(at(2, BLUE_GREEN, 0), seen(given({"m-b": 100}), plan=BLUE_GREEN))
    assert switched.stable == B
    assert switched.draining == (Draining(revision="m-a", since=stamp(NOW), until=stamp(NOW + timedelta(seconds=300))),)
    view = replace(seen(given({"m-b": 100}), plan=BLUE_GREEN), now=NOW + timedelta(seconds=100))
    kept = decide(switched, view)
    assert [entry.revision for entry in kept.draining] == ["m-a"]
    assert wake_after(kept, view) == pytest.approx(200)
    gone = decide(kept, replace(view, now=NOW + timedelta(seconds=301)))
    assert not gone.draining


def test_stable_keeps_pods_for_its_share_and_only_once_that_is_live() -> None:
    proportional = replace(MANUAL, steps=(Step(40, judged=True), Step(100)), proportional=True)
    moving = replace(seen(given(ONLY_A), plan=proportional, a=10), replicas=10)
    moving = replace(moving, revisions={**moving.revisions, "m-a": replace(moving.seen("m-a"), replicas=10)})
    assert replicas(at(1, proportional), moving, "m-a") == 10, "the routers still give it all"
    live = replace(moving, routes=given({"m-a": 60, "m-b": 40}))
    assert replicas(at(1, proportional, 1), live, "m-a") == 6
    assert replicas(State(stable=A), live, "m-a") == 10, "all are asked for again as soon as the candidate is withdrawn"
    assert replicas(at(1, proportional, 1), replace(live, plan=replace(proportional, proportional=False)), "m-a") == 10


def test_a_step_that_nothing_but_a_word_ends_is_not_looked_at_every_second() -> None:
    idle = planned(promotion="Manual")
    assert wake_after(at(1, idle, 5), seen(given(ONLY_A), plan=idle)) is None
    assert wake_after(at(2, PAUSED_STEP, 100), seen(given(TENTH), plan=PAUSED_STEP)) == 1.0
    held = planned(strategy="Canary", steps=[{"weight": 0, "hold": "1m", "pause": {}}])
    assert wake_after(at(1, held, 20), seen(given(ONLY_A), plan=held)) == pytest.approx(40)


def test_what_is_steered_is_kept_with_the_routes() -> None:
    wanted = Wanted({"m-a": 100}, {"m-a": 1, "m-b": 2}, steering=Steering("m-b", 20, preview=True, testers=TESTERS))
    state = routing.plan(RouterState(), {"m": wanted}, [], 0, 1)
    assert routing.load(state.dump()) == state
    without = routing.plan(state, {"m": replace(wanted, steering=UNSTEERED)}, [], 0, 1)
    assert without.version > state.version
    route = json.loads(without.dump())["routes"]["m"]["wanted"]
    assert "steering" not in route, "most models have none: it would fill the ConfigMap"


def configured(**asked: Wanted) -> tuple[dict[str, Any], dict[str, Any]]:
    """Answer Envoy's virtual hosts and clusters by name."""
    state = routing.plan(RouterState(), asked, [], 0, 1)
    settings = Settings(server_image="s", router_image="r")
    (configuration,) = json.loads(envoy.build_routes(state, "ns", settings))["resources"]
    hosts, clusters = configuration["virtual_hosts"], json.loads(envoy.build_clusters(state, "ns", settings))["resources"]
    assert len({host["name"] for host in hosts}) == len(hosts), "two hosts of one name, and Envoy would refuse them all"
    assert len({cluster["name"] for cluster in clusters}) == len(clusters)
    return {host["name"]: host for host in hosts}, {cluster["name"]: cluster for cluster in clusters}


def given_to(steering: Steering) -> Wanted:
    return Wanted({"m-a": 100}, {"m-a": 1, "m-b": 2}, steering=steering)


@pytest.mark.parametrize(
    ("testers", "match"),
    [
        (TESTERS, {"headers": [{"name": "x-tester", "string_match": {"exact": "yes"}}]}),
        (Match("try", "b.c", cookie=True), {"cookies": [{"name": "try", "string_match": {"exact": "b.c"}}]}),
    ],
)
def test_testers_come_first(testers: Match, match: dict[str, Any]) -> None:
    hosts, _ = configured(m=given_to(Steering("m-b", testers=testers)))
    theirs, everybody = hosts["m"]["routes"]
    assert theirs["match"] == {"prefix": "/"} | match
    assert theirs["route"]["cluster"] == "m-b"
    assert everybody["match"] == {"prefix": "/"}


def test_the_preview_leads_to_the_candidate_unless_somebody_has_its_name() -> None:
    hosts, _ = configured(
        m=given_to(Steering("m-b", preview=True)),
        n=given_to(Steering("n-b", preview=True)),
        **{"n-preview": Wanted({"o-a": 100}, {"o-a": 1})},
    )
    assert hosts.keys() == {"m", "m-preview", "n", "n-preview"}
    assert hosts["m-preview"]["domains"][:2] == ["m-preview", "m-preview.ns"]
    assert hosts["m-preview"]["routes"][0]["route"]["cluster"] == "m-b"
    assert hosts["n-preview"]["routes"][0]["route"]["weighted_clusters"]["clusters"][0]["name"] == "o-a"


def test_copies_hold_nobody_up() -> None:
    hosts, clusters = configured(m=given_to(Steering("m-b", 20, compare=5)))
    grpc, short, rest = hosts["m"]["routes"]

    def copies(route: dict[str, Any]) -> dict[str, int]:
        policies = route["route"].get("request_mirror_policies", [])
        return {each["cluster"]: each["runtime_fraction"]["default_value"]["numerator"] for each in policies}

    assert ("grpc" in grpc["match"], copies(grpc)) == (True, {"m-b-mirror-grpc": 20})
    assert (short["match"]["headers"][0]["name"], copies(short)) == ("content-length", {"m-b-mirror": 20, "m-compare": 5})
    assert copies(rest) == {}, "a long body, or one of unknown length, waits for whoever reads it slowest"
    assert all(route["route"]["weighted_clusters"]["clusters"][0]["name"] == "m-a" for route in (grpc, short, rest))
    for name in ("m-b-mirror", "m-b-mirror-grpc", "m-compare"):
        (limits,) = clusters[name]["circuit_breakers"]["thresholds"]
        assert limits["max_requests"] < limits["max_connections"], "a copy that waits for a connection holds its caller up"
    (options,) = clusters["m-b-mirror-grpc"]["typed_extension_protocol_options"].values()
    assert "http2_protocol_options" in options["explicit_http_config"]
    (endpoint,) = clusters["m-b-mirror"]["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"]["socket_address"]["address"].startswith("m-b.ns.svc")
    assert routing.mirrored("m-b-mirror") == routing.mirrored("m-b-mirror-grpc") == routing.mirrored("m-b") == "m-b"


def test_callers_stay_by_a_salted_hash() -> None:
    split = {"m-a": 50, "m-b": 50}
    by_header = Wanted(split, {}, steering=Steering("m-b", sticky=Sticky("x-user", salt="m-b")))
    by_cookie = Wanted(split, {}, steering=Steering("m-b", sticky=Sticky("arm", cookie=True, ttl_seconds=60, salt="m-b")))
    hosts, _ = configured(m=by_header, n=by_cookie)
    (route,) = hosts["m"]["routes"]
    assert route["route"]["weighted_clusters"]["use_hash_policy"] is True
    (policy,) = route["route"]["hash_policy"]
    assert policy["header"]["header_name"] == "x-user"
    assert policy["header"]["regex_rewrite"]["substitution"] == "m-b/\\0"
    known, new = hosts["n"]["routes"]
    assert known["match"]["cookies"][0]["name"] == "arm-m-b"
    assert known["route"]["hash_policy"] == [{"cookie": {"name": "arm-m-b"}}]
    assert new["route"]["hash_policy"] == [{"header": {"header_name": "x-request-id"}}]
    (cookie,) = new["response_headers_to_add"]
    assert cookie["header"]["value"].startswith("arm-m-b=%REQ(x-request-id)%; Path=/; Max-Age=60;")
    assert "response_headers_to_add" not in known, "who has a cookie is given no other"
