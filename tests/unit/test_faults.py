"""The parts of tests/faults: faults read as they are written, and each invariant finds a history that breaks it."""

import asyncio
import importlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from tests.faults import backup, bugs, invariants, oracle
from tests.faults.campaign import Book, Campaign, Case, Result, cases, sample
from tests.faults.command import parse
from tests.faults.fault import Action, Call, Fault, Verb
from tests.faults.history import Capacity, Entry, Event, History, Look, Lost, Marked
from tests.faults.proxy import Done
from tests.faults.scenarios import ALONE, SCENARIOS
from tests.faults.single import Outcome
from tests.faults.zygote import QUICKER

from slipway.core.routing import Route, RouterState, Wanted
from slipway.manifests import labels, router

Object = dict[str, Any]
# What is found by comparing whole runs, not in a history.
OF_RUNS = {"liveness", "end_state", "counts", "second_reconcile_writes_nothing"}
OWNER = [{"uid": "u", "controller": True}]


@pytest.mark.parametrize("text", ["kill-after:APPLY:deployments:2", "late:APPLY:configmaps:1:2.5", "drop:WATCH:pods:3"])
def test_faults_read_as_they_are_written(text: str) -> None:
    assert str(Fault.parse(text)) == text


@pytest.mark.parametrize("text", ["kill-after:APPLY:deployments", "drop:APPLY:pods:1", "409:WATCH:pods:1", "dies:APPLY:pods:1"])
def test_faults_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"ACTION|happen|valid"):
        Fault.parse(text)


@pytest.mark.parametrize(
    ("method", "path", "query", "call"),
    [
        ("GET", "/api/v1/namespaces/ns/pods", {}, "LIST:pods"),
        ("GET", "/api/v1/namespaces/ns/pods", {"watch": "true"}, "WATCH:pods"),
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/ns/leases/x", {}, "GET:leases"),
        ("PATCH", "/apis/slipway.dev/v1alpha1/namespaces/ns/modeldeployments/m/status", {}, "APPLY:modeldeployments/status"),
        ("DELETE", "/apis/apps/v1/namespaces/ns/deployments/m", {}, "DELETE:deployments"),
        ("GET", "/apis/slipway.dev/v1alpha1", {}, "OTHER:discovery"),
    ],
)
def test_requests_are_told_by_verb_and_kind(method: str, path: str, query: dict[str, str], call: str) -> None:
    assert str(Call.of(method, path, query)) == call


def obj(kind: str, name: str = "m", owner: list[Object] | None = None, **more: Any) -> Object:
    found = {labels.MANAGED_BY: labels.MANAGER}
    return {
        "kind": kind,
        "metadata": {"name": name, "uid": "u", "labels": found, "ownerReferences": owner or [], "generation": 1},
        **more,
    }


def model(*, ready: bool = False, spec: Object | None = None, **status: Any) -> Object:
    conditions = [{"type": "Ready", "status": str(ready), "reason": "x"}]
    return obj("ModelDeployment", spec=spec or {}, status={"conditions": conditions, **status})


def config(version: int, **weights: int) -> Object:
    state = RouterState(version, {"m": Route(Wanted(weights, {}), version)})
    return obj("ConfigMap", router.NAME, data={router.STATE_KEY: state.dump()})


def deployment(name: str, replicas: int, image: str = "server") -> Object:
    found = obj("Deployment", name, OWNER, spec={"replicas": replicas, "template": {"image": image}})
    found["metadata"]["labels"][labels.REVISION_LABEL] = name
    return found


def look(at: float, weights: dict[str, int], name: str = "r", *, up: bool = True) -> Look:
    return Look(at, name, {"m": weights} if weights else {}, up=up)


def changed(at: float, of: Object) -> Event:
    return Event(at, "MODIFIED", of)


def done(verb: Verb, kind: str, status: int) -> Done:
    return Done(0.0, "a", Call(verb, kind), 1, "x", status)


CANARY = {"rollout": {"steps": [{"weight": 20, "hold": "5s"}, {"weight": 60, "hold": "0s"}]}}
DRAINED = {"draining": [{"revision": "m-a", "since": "2026-01-01T00:00:00Z"}]}
STABLE = {"stable": {"revision": "m-a"}, "observedGeneration": 1}
# the invariant, what breaks it, and the same but for what is right
BROKEN: list[tuple[str, list[Entry], list[Entry]]] = [
    ("weights_sum_to_100", [look(1, {"m-a": 80})], [look(1, {"m-a": 80, "m-b": 20})]),
    ("weight_only_to_ready_capacity", [look(1, {"m-a": 100})], [Capacity(0, "m-a", 1), look(1, {"m-a": 100})]),
    ("no_request_is_lost", [Lost(1, "r", "m-a", "x")], [Marked(0, "deleted"), Lost(1, "r", "m-a", "x")]),
    (
        "no_request_is_lost",
        [Marked(0, "deleted"), Marked(1, "restored"), Lost(2, "r", "m-a", "x")],
        [Marked(0, "deleted"), Lost(1, "r", "m-a", "x"), Marked(2, "restored")],
    ),
    (
        "stable_keeps_capacity",
        [look(1, {"m-a": 20}), Event(2, "DELETED", deployment("m-a", 1))],
        [look(1, {"m-a": 20}), look(2, {"m-b": 100}), Event(2, "DELETED", deployment("m-a", 1))],
    ),
    (
        "stable_keeps_capacity",
        [changed(0, model(spec={"scaling": {"min": 3}})), look(1, {"m-a": 100}), changed(2, deployment("m-a", 2))],
        [changed(0, model(spec={"scaling": {"min": 3}})), look(1, {"m-a": 100}), changed(2, deployment("m-a", 3))],
    ),
    (
        "revision_goes_drained",
        [changed(0, model(draining=[{"revision": "m-a"}])), Event(1, "DELETED", deployment("m-a", 1))],
        [changed(0, model(**DRAINED)), Event(1, "DELETED", deployment("m-a", 1))],
    ),
    (
        "owner_is_right",
        [changed(0, model()), changed(1, obj("Service", owner=[{"uid": "other", "controller": True}]))],
        [changed(0, model()), changed(1, obj("Service", owner=OWNER))],
    ),
    (
        "owner_is_right",
        [changed(0, model()), Event(1, "ADDED", obj("Service"))],
        [changed(0, model()), Marked(0, "deleted"), Event(1, "ADDED", obj("Service")), Marked(2, "restored")],
    ),
    ("no_orphan", [changed(0, obj("Service", owner=OWNER))], [changed(0, model()), changed(1, obj("Service", owner=OWNER))]),
    (
        "no_orphan",
        [changed(0, model()), changed(1, obj("Service"))],
        [changed(0, model()), changed(1, obj("Service", router.NAME))],
    ),
    (
        "revision_stays_as_made",
        [changed(0, deployment("m-a", 1)), changed(1, deployment("m-a", 1, image="other"))],
        [changed(0, deployment("m-a", 1)), changed(1, deployment("m-a", 2))],
    ),
    (
        "revision_is_asked_for",
        [Event(0, "ADDED", obj("ControllerRevision", "m-x"))],
        [Event(0, "ADDED", obj("ControllerRevision", "m-a"))],
    ),
    (
        "observed_generation_is_monotone",
        [changed(0, model(observedGeneration=1)), changed(1, model(observedGeneration=0))],
        [changed(0, model(observedGeneration=0)), changed(1, model(observedGeneration=1))],
    ),
    ("observed_generation_is_monotone", [changed(0, model(observedGeneration=2))], [changed(0, model(observedGeneration=1))]),
    (
        "ready_means_serving",
        [Capacity(0, "m-a", 1), look(1, {"m-a": 80, "m-b": 20}), changed(2, model(ready=True, **STABLE))],
        [Capacity(0, "m-a", 1), look(1, {"m-a": 100}), changed(2, model(ready=True, **STABLE))],
    ),
    (
        "ready_means_serving",
        [Capacity(0, "m-a", 0), look(1, {"m-a": 100}), changed(2, model(ready=True, **STABLE))],
        [Capacity(0, "m-a", 1), look(1, {"m-a": 100}), look(2, {}, "old", up=False), changed(2, model(ready=True, **STABLE))],
    ),
    (
        "step_is_monotone",
        [changed(n, model(rollout={"revision": "m-b", "since": "x", "step": step})) for n, step in enumerate((2, 1))],
        [changed(n, model(rollout={"revision": "m-b", "since": str(n), "step": step})) for n, step in enumerate((2, 1))],
    ),
    (
        "no_step_ends_early",
        [changed(0, model(spec=CANARY)), look(1, {"m-b": 20}), look(4, {"m-b": 60})],
        [changed(0, model(spec=CANARY)), look(1, {"m-b": 20}), look(6, {"m-b": 60})],
    ),
    (
        "no_step_ends_early",  # live is when it is in every router
        [
            changed(0, model(spec=CANARY)),
            look(1, {"m-a": 100}, "s"),
            look(1, {"m-b": 20}),
            look(4, {"m-b": 20}, "s"),
            look(7, {"m-b": 60}),
        ],
        [
            changed(0, model(spec=CANARY)),
            look(1, {"m-a": 100}, "s"),
            look(1, {"m-b": 20}),
            look(4, {"m-b": 20}, "s"),
            look(9, {"m-b": 60}),
        ],
    ),
    ("broken_model_gets_no_request", [look(1, {"m-bad": 20})], [look(1, {"m-a": 100})]),
    ("written_routes_are_whole", [changed(0, config(7, a=80))], [changed(0, config(7, a=80, b=20))]),
    ("written_routes_are_whole", [changed(0, config(7, a=100)), changed(1, config(6, a=100))], [changed(0, config(7, a=100))]),
    (
        "no_secret_is_told",
        [changed(0, model(phase="opensesame"))],
        [changed(0, model(spec={"model": {"uri": "opensesame"}}))],  # what the user wrote there is the user's
    ),
]


@pytest.mark.parametrize(("invariant", "wrong", "right"), BROKEN, ids=[name for name, _, _ in BROKEN])
def test_each_invariant_finds_what_breaks_it(invariant: str, wrong: list[Entry], right: list[Entry]) -> None:
    check = getattr(invariants, invariant)
    known: dict[str, Any] = {"broken": frozenset({"m-bad"}), "secret": "opensesame", "asked": frozenset({"m-a"})}
    assert list(check(History("ns", wrong, **known)))
    assert not list(check(History("ns", right, **known)))


def test_one_writer() -> None:
    lost, write = done(Verb.APPLY, "leases", 409), done(Verb.APPLY, "deployments", 200)
    begun = History("ns", requests=[lost, *[write] * 8])
    assert not list(invariants.one_writer_at_a_time(begun))
    assert list(invariants.one_writer_at_a_time(History("ns", requests=[lost, *[write] * 9])))
    held = done(Verb.APPLY, "leases", 200)
    assert not list(invariants.one_writer_at_a_time(History("ns", requests=[lost, held, *[write] * 9])))


def test_a_reconcile_that_raises() -> None:
    line = '{"time": "x", "level": "%s", "logger": "slipway.app", "message": "reconcile failed"}\n'
    assert list(invariants.no_reconcile_raises(History("ns", logs=line % "error")))
    assert not list(invariants.no_reconcile_raises(History("ns", logs=line % "warning")))


def test_foreign_objects_and_fields() -> None:
    foreign = {"kind": "Service", "metadata": {"name": "theirs", "labels": {"a": "b"}}, "spec": {"x": 1}}
    kept = {**foreign, "metadata": {**foreign["metadata"], "uid": "u"}, "status": {}}
    known = {"Service/theirs": foreign}
    assert not list(invariants.foreign_is_untouched(History("ns", [changed(0, kept)], foreign=known)))
    assert list(invariants.foreign_is_untouched(History("ns", [changed(0, {**kept, "spec": {"x": 2}})], foreign=known)))
    assert list(invariants.foreign_is_untouched(History("ns", [Event(0, "DELETED", kept)], foreign=known)))
    label = {"metadata": {"labels": {"theirs": "kept"}}}
    ours = obj("Deployment", "m-a")
    came = [Event(0, "DELETED", ours), Event(1, "ADDED", ours)]
    known = {"Deployment/m-a": label}
    assert list(invariants.foreign_is_untouched(History("ns", [changed(0, ours)], foreign=known)))
    assert not list(invariants.foreign_is_untouched(History("ns", came, foreign=known))), "made anew, it has no labels of before"


def test_a_router_counts_once_the_operator_can_know_of_it() -> None:
    lost = Lost(3.0, "slipway-router-x", "m-a", "it sees no endpoint")
    told = replace(done(Verb.APPLY, "pods", 200), name=lost.router, at=0.5)
    pods = frozenset({"pods"})
    assert list(invariants.no_request_is_lost(History("ns", [lost])))
    assert not list(invariants.no_request_is_lost(History("ns", [lost], misled=pods)))
    assert list(invariants.no_request_is_lost(History("ns", [lost], [told], misled=pods)))
    assert not list(invariants.no_request_is_lost(History("ns", [lost], [replace(told, at=1.5)], misled=pods)))


def test_every_invariant_has_a_history_that_breaks_it() -> None:
    tested = {name for name, _, _ in BROKEN} | {"one_writer_at_a_time", "no_reconcile_raises", "foreign_is_untouched"}
    assert {each.__name__ for each in invariants.INVARIANTS} == tested


def test_the_oracle_tells_other_ends_and_counts() -> None:
    end, made = {"Service/m": {"spec": {"x": 1}}}, Counter({"made Service/m": 1, "event Promoted": 1})
    assert oracle.compare((end, made), (end, made)) == []
    assert oracle.compare((end, made), (end, Counter({"made Service/m": 1}))) == [], "an event may be lost with who dies"
    (said,) = oracle.compare((end, made), ({"Service/m": {"spec": {"x": 2}}}, made))
    assert said == "end_state: Service/m is .spec.x: 2, not 1"
    (said,) = oracle.compare((end, made), (end, made + Counter({"made Service/m": 1})))
    assert said == "counts: made Service/m 2 times, 1 without faults"


@pytest.mark.parametrize("bug", bugs.every(), ids=lambda bug: bug.name)
def test_seeded_bugs_fit_the_source(bug: bugs.Bug) -> None:
    """One that does not is made anew, of the source as it is: tests/faults/bugs.py says how."""
    bug.check()
    assert set(parse(list(bug.case)).scenario) < SCENARIOS.keys()
    assert bug.breaks <= {each.__name__ for each in invariants.INVARIANTS} | OF_RUNS, "it breaks what nobody looks at"


def test_the_plan_has_every_write_by_three_kills_and_the_same_sample_each_time() -> None:
    calls = Counter({Call(Verb.APPLY, "services"): 2, Call(Verb.LIST, "pods"): 1, Call(Verb.APPLY, "leases"): 9})
    known = {"canary": Outcome(calls=calls, events=Counter({Call(Verb.WATCH, "pods"): 7}))}
    every = list(cases(known, 1))
    kills = {str(case.faults[0]) for case in every if case.family == "kill"}
    assert kills == {f"{kill}:APPLY:services:{n}" for kill in ("kill-before", "kill-sent", "kill-after") for n in (1, 2)}
    assert Counter(case.family for case in every)["random"] == 500
    assert Counter(case.family for case in every)["hand-over"] == 50
    assert {fault.action for case in every for fault in case.faults} == set(Action)
    assert sample(every, 20, 1) == sample(list(cases(known, 1)), 20, 1)
    assert {case.family for case in sample(every, 6, 1)} == {case.family for case in every}


def test_a_run_that_was_cut_short_goes_on_with_its_plan(tmp_path: Path) -> None:
    first, second = (Case("kill", "canary", (Fault(Action.KILL_SENT, Call(Verb.APPLY, "services"), n),)) for n in (1, 2))
    done = Result(first, 1, ("one_writer: two",), 1.5)
    begun = Book(tmp_path / "results")
    begun.keep([first, second])
    begun.add(done)
    book = Book(tmp_path / "results")
    assert book.keep([second]) == [first, second]
    assert book.results == {str(first): done}


@pytest.mark.parametrize(("module", "name"), [each[:2] for each in QUICKER], ids=str)
def test_the_waits_that_are_made_shorter_are_there(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name), "name where it is now, in tests/faults/zygote.py"


async def test_what_must_be_alone_has_nothing_beside_it() -> None:
    campaign = Campaign(cast(Any, None), cast(Any, None), 4)
    running, most = Counter[str](), Counter[str]()

    async def work(name: str) -> None:
        running[name] += 1
        most[name] = max(most[name], running.total())
        await asyncio.sleep(0)
        running[name] -= 1

    names = [*ALONE, "canary", "canary", *ALONE, "scale"]
    await campaign.side_by_side([(name, work(name)) for name in names])
    assert {most[name] for name in ALONE} == {1}
    assert most["canary"] > 1


def test_a_backup_keeps_no_status_no_uid_and_an_owner_only_where_that_is_asked_for() -> None:
    found = [model(phase="Ready"), deployment("m-a", 1), obj("ConfigMap", router.NAME), obj("Event")]
    theirs = obj("Service", "theirs")
    theirs["metadata"]["labels"] = {}
    kept = backup.take([*found, theirs], owners=False)
    assert [each["kind"] for each in kept] == ["ConfigMap", "Deployment", "ModelDeployment"]
    assert not any({"status"} & each.keys() or {"uid", "ownerReferences"} & each["metadata"].keys() for each in kept)
    assert backup.take(found, owners=True)[1]["metadata"]["ownerReferences"] == OWNER


@pytest.mark.parametrize(
    ("after", "only"),
    [
        ({"stable": {"weight": 100, "p95": "6ms", "measuredAt": "y"}}, True),
        ({"stable": {"weight": 100, "p95": "5ms"}}, False),
        ({"stable": {"weight": 90, "p95": "6ms"}}, False),
        ({"stable": {"weight": 100, "p95": "6ms"}, "phase": "Ready"}, False),
    ],
    ids=["measured anew", "nothing", "another weight", "another phase"],
)
def test_figures_alone_may_be_told_in_a_world_at_rest(after: dict[str, Any], only: bool) -> None:
    assert oracle.only_figures({"stable": {"weight": 100, "p95": "5ms"}}, after) == only
