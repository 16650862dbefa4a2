"""A model without pods: what routers are told, what status says, how many replicas it has, and who has asked."""

import json
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.test_report import NOW, SERVING, SUBJECT, A, B, world

from slipway.api.spec import Scaling
from slipway.api.status import Activation, Phase, RolloutStatus, ScalingStatus, Status
from slipway.core import capacity, rollout, routing
from slipway.core.clock import stamp
from slipway.core.observation import RevisionSeen, Symptom
from slipway.core.report import report
from slipway.core.routing import Route, RouterState, Wanted
from slipway.core.sizing import settings
from slipway.core.state import Candidate, State, World
from slipway.core.transitions import event
from slipway.manifests import envoy
from slipway.model import read
from slipway.settings import Settings

SETTINGS = Settings(server_image="server:1", router_image="router:1", activator="slipway-activator.slipway-system.svc.x.:8080")
WANTED = Wanted({"m-a": 100}, {"m-a": 8080}, timeout_seconds=30)
NONE, STARTING = RevisionSeen(0, 0), RevisionSeen(1, 0)


def zero(*, replicas: int = 0, settled: bool = True, hold: bool = True, **pods: RevisionSeen) -> World:
    seen = world(SERVING, settled=settled)
    found = {f"m-{letter}": each for letter, each in pods.items()}
    return replace(seen, replicas=replicas, minimum=0, revisions=found, routes=replace(seen.routes, hold=hold))


def test_the_last_endpoint_is_where_requests_wait() -> None:
    def built(wanted: Wanted) -> tuple[dict[str, Any], dict[str, Any]]:
        state = RouterState(7, {"m": Route(wanted, 7)})
        (cluster,) = json.loads(envoy.build_clusters(state, "ns", SETTINGS))["resources"]
        (config,) = json.loads(envoy.build_routes(state, "ns", SETTINGS))["resources"]
        return cluster, config["virtual_hosts"][0]

    cluster, host = built(WANTED)
    assert len(cluster["load_assignment"]["endpoints"]) == 1
    assert "x-slipway-held" not in json.dumps(host)
    cluster, host = built(replace(WANTED, hold=True))
    pods, last = cluster["load_assignment"]["endpoints"]
    assert ("priority" not in pods, last["priority"]) == (True, 1)
    (hold,) = last["lb_endpoints"]
    assert hold["endpoint"]["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": envoy.HOLD_PORT}
    assert hold["health_status"] == "DEGRADED", "no pod of the revision"
    assert cluster["load_assignment"]["policy"]["overprovisioning_factor"] >= 100 * 100, "one pod of a hundred takes all"
    (split,) = host["routes"][0]["route"]["weighted_clusters"]["clusters"]
    (held,) = split["request_headers_to_add"]
    assert held["header"] == {"key": "x-slipway-held", "value": "ns/m/m-a/8080/29/%REQ(content-length)%"}
    assert held["append_action"] == "OVERWRITE_IF_EXISTS_OR_ADD"


def test_only_the_router_itself_reaches_where_requests_wait() -> None:
    def listeners(activator: str) -> dict[str, Any]:
        bootstrap = json.loads(envoy.build_bootstrap(None, activator))
        return {each["name"]: each for each in bootstrap["static_resources"]["listeners"]}

    assert listeners("").keys() == {"models", "stats"}
    found = listeners(SETTINGS.activator)
    assert found["hold"]["address"]["socket_address"]["address"] == "127.0.0.1"
    manager = found["models"]["filter_chains"][0]["filters"][0]["typed_config"]
    (forgets,) = [each for each in manager["http_filters"] if each["name"] == "envoy.filters.http.header_mutation"]
    removed = {each["remove"] for each in forgets["typed_config"]["mutations"]["request_mutations"]}
    assert removed == {"x-slipway-held", "x-slipway-endpoint"}, "callers do not say where a request goes"


@pytest.mark.parametrize("hold", [True, False])
def test_what_was_asked_is_kept_beside_the_files(hold: bool) -> None:
    state = routing.plan(RouterState(), {"m": replace(WANTED, hold=hold)}, [], 0, 7)
    assert routing.load(state.dump()) == state
    other = routing.plan(state, {"m": replace(WANTED, hold=not hold)}, [], 0, 8)
    assert other.routes["m"].version > state.version, "a router that does not hold requests yet is told from one that does"


NO_ROUTER = replace(zero(a=NONE), routes=replace(zero().routes, routers=()))
# name, world -> phase, Ready's and Available's status and reason
TABLE = [
    ("asleep", zero(a=NONE), Phase.SCALED_TO_ZERO, ("True", "ScaledToZero"), ("True", "ScaledToZero")),
    ("waking", zero(replicas=1, a=STARTING), Phase.PROGRESSING, ("False", "Waking"), ("False", "Waking")),
    (
        "cannot wake",
        zero(replicas=1, a=RevisionSeen(1, 0, Symptom("ImagePull", "no such image"))),
        Phase.DEGRADED,
        ("False", "ImagePull"),
        ("False", "ImagePull"),
    ),
    ("awake", zero(replicas=1, a=RevisionSeen(1, 1)), Phase.READY, ("True", "Serving"), ("True", "Serving")),
    ("no router", NO_ROUTER, Phase.PROGRESSING, ("False", "WaitingForRouters"), ("False", "WaitingForRouters")),
    ("not held yet", zero(hold=False, a=RevisionSeen(1, 1)), Phase.READY, ("True", "Serving"), ("True", "Serving")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "seen", "phase", "ready", "available"), TABLE, ids=[row[0] for row in TABLE])
def test_status_tells_it(name: str, seen: World, phase: Phase, ready: tuple[str, str], available: tuple[str, str]) -> None:
    status = report(Status(), SUBJECT, State(stable=A), seen)
    found = {each.type: (each.status, each.reason) for each in status.conditions}
    assert (status.phase, found["Ready"], found["Available"]) == (phase, ready, available)


def test_it_loses_its_pods_once_every_router_holds_requests() -> None:
    stable, up = State(stable=A), RevisionSeen(1, 1)
    assert capacity.replicas(stable, zero(a=up), "m-a") == 0
    assert capacity.replicas(stable, zero(settled=False, a=up), "m-a") == 1
    assert capacity.replicas(stable, zero(hold=False, a=up), "m-a") == 1
    assert capacity.replicas(stable, zero(settled=False, a=NONE), "m-a") == 0, "a router that restarts wakes nobody"


def test_a_rollout_has_pods() -> None:
    rolling = State(stable=A, candidates=(Candidate(B),), rollout=RolloutStatus(revision="m-b", since=stamp(NOW)))
    seen = zero(a=NONE, b=NONE)
    assert [capacity.replicas(rolling, seen, name) for name in ("m-a", "m-b")] == [1, 1]
    first = State(candidates=(Candidate(A),), rollout=RolloutStatus(revision="m-a", since=stamp(NOW)))
    assert capacity.replicas(first, zero(a=NONE), "m-a") == 1
    assert rollout.decide(rolling, replace(seen, target=B)).weight == 0, "a candidate without pods gets no request"


@pytest.mark.parametrize(("before", "after", "reason"), [(1, 0, "ScaledToZero"), (0, 1, "ScaledFromZero"), (1, 2, "Scaled")])
def test_it_is_an_event(before: int, after: int, reason: str) -> None:
    was, is_ = (Status(scaling=ScalingStatus(replicas=replicas)) for replicas in (before, after))
    told = event(was, is_)
    assert told is not None
    assert told.reason == reason


def test_what_the_activator_wrote_stays_in_status() -> None:
    before = Status(activation=Activation(at="2026-01-01T00:00:00.000001Z"))
    assert report(before, SUBJECT, State(stable=A), zero(a=NONE)).activation == before.activation


@pytest.mark.parametrize(
    ("asked", "idle_seconds", "maximum"),
    [
        ({"min": 0}, 300, 1),
        ({"min": 0, "idleAfter": "10s"}, 10, 1),
        ({"min": 0, "max": 7, "objective": {"concurrency": 4}}, 300, 7),
        ({"min": 1, "max": 7, "objective": {"concurrency": 4}}, None, 7),
    ],
)
def test_settings(asked: dict[str, Any], idle_seconds: float | None, maximum: int) -> None:
    found = settings(Scaling.model_validate(asked))
    assert found is not None
    assert (found.idle_seconds, found.maximum) == (idle_seconds, maximum)


def test_without_an_activator_min_0_is_refused_and_what_was_asleep_wakes() -> None:
    obj: dict[str, Any] = {
        "metadata": {"name": "m", "namespace": "ns", "uid": "u", "generation": 1, "resourceVersion": "1"},
        "spec": {"model": {"uri": "configmap://a/b", "format": "ONNX"}, "scaling": {"min": 0}},
        "status": {"stable": {"revision": "m-a", "weight": 100}, "scaling": {"replicas": 0}},
    }
    asleep = read(obj, SETTINGS)
    assert replace(asleep, scaling=asleep.status.scaling).replicas == 0
    refused = read(obj, replace(SETTINGS, activator=""))
    assert refused.spec_error is not None
    assert (refused.spec_error.reason, refused.replicas) == ("ActivatorOff", 1)
    assert "activator.replicas" in refused.spec_error.message
