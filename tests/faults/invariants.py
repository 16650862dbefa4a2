"""What must hold at every moment of every run, whatever fails: each a small function over the history."""

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from tests.faults.fault import Call, Verb
from tests.faults.history import Capacity, Event, History, Look, Lost
from tests.faults.oracle import OWNED, last_objects, owned

from slipway.core import routing
from slipway.core.plan import replicas_for
from slipway.manifests import labels, router

Found = Iterator[str]


def weights_sum_to_100(history: History) -> Found:
    """Of a ModelDeployment that serves, in every router."""
    for look in _looks(history):
        for model, weights in look.weights.items():
            if sum(weights.values()) != 100:
                yield f"{look.router} gives {model} {weights}"


def weight_only_to_ready_capacity(history: History) -> Found:
    """A router that begins to send requests to a revision sends them to pods that can answer."""
    pods: dict[str, int] = {}
    before: dict[str, set[str]] = {}
    for entry in history.entries:
        if isinstance(entry, Capacity):
            pods[entry.revision] = entry.pods
        elif isinstance(entry, Look):
            now = {revision for weights in entry.weights.values() for revision in weights}
            for revision in sorted(now - before.get(entry.router, set())):
                if not pods.get(revision) and not _excused(history, entry.at):
                    yield f"{entry.router} begins to send requests to {revision}, which has no pod that answers"
            before[entry.router] = now


def no_request_is_lost(history: History) -> Found:
    """Whatever happens to the operator, callers get answers."""
    said: set[tuple[str, str]] = set()
    for entry in history.entries:
        if not isinstance(entry, Lost) or (entry.revision, entry.why) in said or _excused(history, entry.at):
            continue
        if _known(history, entry.router, entry.at):
            said.add((entry.revision, entry.why))
            yield f"{entry.router} had no answer of {entry.revision} for a caller: {entry.why}"


def stable_keeps_capacity(history: History) -> Found:
    """A revision that any router sends requests to is asked pods enough for its share, and never fewer than the least."""
    least = _least_replicas(history)
    given: dict[str, dict[str, int]] = {}
    for entry in history.entries:
        if isinstance(entry, Look):
            given[entry.router] = {revision: weight for weights in entry.weights.values() for revision, weight in weights.items()}
        elif isinstance(entry, Event) and entry.kind == "Deployment" and owned(entry.obj) and not _excused(history, entry.at):
            weight = max((weights.get(entry.name, 0) for weights in given.values()), default=0)
            replicas = 0 if entry.type == "DELETED" else entry.obj["spec"]["replicas"]
            if weight and least and replicas < replicas_for(weight, least):
                word = "goes" if entry.type == "DELETED" else f"has {replicas} replicas"
                yield f"Deployment {entry.name} {word} while a router gives it {weight}%"


def revision_goes_drained(history: History) -> Found:
    """A revision's Deployment goes only once status has told that weight 0 is live everywhere, since when it drains."""
    drained: set[str] = set()
    for event in history.events("ModelDeployment", "Deployment"):
        if event.kind == "ModelDeployment":
            drained |= {each["revision"] for each in (event.obj.get("status") or {}).get("draining", ()) if each.get("since")}
        elif event.type == "DELETED" and _of_revision(event) and not _excused(history, event.at) and event.name not in drained:
            yield f"Deployment {event.name} went, and was not drained before"


def revision_stays_as_made(history: History) -> Found:
    """The pods of a revision are as they were made: no upgrade, no restore, no default restarts a model."""
    made: dict[str, Any] = {}
    for event in history.events("Deployment"):
        if event.type != "DELETED" and _of_revision(event):
            template = event.obj["spec"]["template"]
            if made.setdefault(event.name, template) != template:
                yield f"Deployment {event.name} has another pod template than it was made with"


def revision_is_asked_for(history: History) -> Found:
    """There is no revision but those that a spec asked for."""
    for event in history.events("ControllerRevision"):
        if event.type == "ADDED" and owned(event.obj) and event.name not in history.asked:
            yield f"revision {event.name} was made, and no spec asks for it"


def owner_is_right(history: History) -> Found:
    """Every child has the uid of a ModelDeployment of that name that there was, as its controller: no orphan, no stranger.

    What was restored without an owner gets one: at the end there is `no_orphan`.
    """
    uids = {event.uid for event in history.events("ModelDeployment")}
    restored: set[str] = set()
    for event in history.events(*OWNED):
        if event.type == "DELETED" or not owned(event.obj) or event.name == router.NAME:
            continue
        if event.type == "ADDED" and _excused(history, event.at):
            restored.add(event.uid)
        if event.uid in restored and not event.obj["metadata"].get("ownerReferences"):
            continue
        controllers = [ref["uid"] for ref in event.obj["metadata"].get("ownerReferences", ()) if ref.get("controller")]
        if len(controllers) != 1 or controllers[0] not in uids:
            yield f"{event.kind} {event.name} has the controllers {controllers}"


def no_orphan(history: History) -> Found:
    """At the end every child belongs to the ModelDeployment that there is; without one there is none."""
    found = last_objects(history)
    alive = {obj["metadata"]["uid"] for obj in found.values() if obj["kind"] == "ModelDeployment"}
    for name, obj in found.items():
        if obj["kind"] in OWNED and owned(obj):
            controllers = {ref["uid"] for ref in obj["metadata"].get("ownerReferences", ())}
            if not alive or (obj["metadata"]["name"] != router.NAME and not controllers & alive):
                yield f"{name} is left behind"


def foreign_is_untouched(history: History) -> Found:
    """Objects that are not Slipway's, and fields of others on objects that are, stay as they were."""
    found = last_objects(history)
    gone = {f"{event.kind}/{event.name}" for event in history.events() if event.type == "DELETED"}
    for name, made in history.foreign.items():
        have = found.get(name)
        theirs = made.keys() & {"spec", "data"}
        if history.marked("namespace deleted") < math.inf or (name in gone and not theirs):
            continue
        for path, wanted in _leaves(made):
            value: Any = have
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            if value != wanted:
                yield f"{name}: {'.'.join(path)} was {wanted!r}, and is {value!r}"


def observed_generation_is_monotone(history: History) -> Found:
    """Status never speaks of an older spec than before, nor of one that does not exist yet."""
    before: dict[str, int] = {}
    for event in history.events("ModelDeployment"):
        now = (event.obj.get("status") or {}).get("observedGeneration", 0)
        if now < before.get(event.uid, 0) and event.at < history.marked("status wiped"):
            yield f"observedGeneration went from {before[event.uid]} to {now}"
        if now > event.obj["metadata"]["generation"]:
            yield f"observedGeneration is {now}, of {event.obj['metadata']['generation']}"
        before[event.uid] = now


def ready_means_serving(history: History) -> Found:
    """Ready of the current generation: every router gives all requests to stable, and its pods answer."""
    pods: dict[str, int] = {}
    given: dict[str, dict[str, dict[str, int]]] = {}
    for entry in history.entries:
        if isinstance(entry, Capacity):
            pods[entry.revision] = entry.pods
        elif isinstance(entry, Look):
            given[entry.router] = entry.weights
            if not entry.up:
                del given[entry.router]
        elif isinstance(entry, Event) and entry.kind == "ModelDeployment" and entry.type == "MODIFIED":
            status = entry.obj.get("status") or {}
            held = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", ()))
            if not held or status["observedGeneration"] != entry.obj["metadata"]["generation"] or _excused(history, entry.at):
                continue
            stable = (status.get("stable") or {}).get("revision")
            known = [weights.get(entry.name) for name, weights in given.items() if _known(history, name, entry.at)]
            others = [weights for weights in known if weights != {stable: 100}]
            if others or not given:
                yield f"Ready of generation {status['observedGeneration']} with {stable}, and a router gives {others}"
            elif not pods.get(stable) and status.get("phase") != "ScaledToZero":
                yield f"Ready with {stable}, of which no pod answers"


def step_is_monotone(history: History) -> Found:
    """The steps of one rollout only rise; withdrawn, or begun anew, it is another one."""
    before: tuple[Any, int] = None, 0
    for event in history.events("ModelDeployment"):
        rollout = (event.obj.get("status") or {}).get("rollout") or {}
        now = (rollout.get("revision"), rollout.get("since")), rollout.get("step", 0)
        if now[0] == before[0] and now[1] < before[1] and not rollout.get("outcome"):
            yield f"step went from {before[1]} to {now[1]} of {now[0][0]}"
        before = now


def no_step_ends_early(history: History) -> Found:
    """A weight is live in every router for its step's hold before any router gives more, whoever was restarted meanwhile."""
    given: dict[str, dict[str, int]] = {}
    live: dict[str, tuple[int, float]] = {}
    holds: dict[int, float] = {}
    for entry in history.entries:
        if isinstance(entry, Event) and entry.kind == "ModelDeployment":
            steps = entry.obj["spec"].get("rollout", {}).get("steps", ())
            holds = {step["weight"]: float(step.get("hold", "0s").rstrip("s")) for step in steps}
        if not isinstance(entry, Look) or not _known(history, entry.router, entry.at):
            continue
        before = {revision: weights for weights in given.values() for revision in weights}
        given[entry.router] = {revision: weight for weights in entry.weights.values() for revision, weight in weights.items()}
        if not entry.up:
            del given[entry.router]
        for revision, weight in given.get(entry.router, {}).items():
            at, since = live.get(revision, (0, entry.at))
            hold = holds.get(at, 0.0)
            if revision in before and weight > at and hold and entry.at - since < hold and not _excused(history, entry.at):
                after = f"{entry.at - since:.2f} s after {at}% was live, whose hold is {hold:g} s"
                yield f"{revision} got {weight}% of {entry.router} {after}"
        for revision in {each for weights in given.values() for each in weights}:
            weights = {each.get(revision, 0) for each in given.values()}
            if len(weights) == 1 and live.get(revision, (None, 0))[0] != next(iter(weights)):
                live[revision] = next(iter(weights)), entry.at


def broken_model_gets_no_request(history: History) -> Found:
    """A model that failed to load is in no route."""
    for look in _looks(history):
        for weights in look.weights.values():
            for revision in history.broken & weights.keys():
                yield f"{look.router} gives {weights[revision]}% to {revision}, whose model failed to load"


def written_routes_are_whole(history: History) -> Found:
    """The configuration as written: versions only grow, and weights sum to 100."""
    before = 0
    for event in history.events("ConfigMap"):
        if event.name != router.NAME or event.type == "DELETED" or not owned(event.obj):
            before = 0 if event.name == router.NAME else before
            continue
        state = routing.load(event.obj["data"].get(router.STATE_KEY, ""))
        if state.version < before:
            yield f"version {before} of the routes was followed by {state.version}"
        before = state.version
        for name, route in state.routes.items():
            if route.wanted.positive and sum(route.wanted.positive.values()) != 100:
                yield f"written for {name}: {route.wanted.positive}"


def one_writer_at_a_time(history: History) -> Found:
    """A replica that was told that it lost the Lease writes no more, but for what its workers had begun."""
    lost: dict[str, int] = {}
    for done in history.requests:
        if done.call.kind == "leases":
            if done.call.verb == "APPLY" and done.status == 409:
                lost.setdefault(done.replica, 0)
            elif done.call.verb == "APPLY" and done.status == 200:
                lost.pop(done.replica, None)
        elif done.call.verb in ("APPLY", "DELETE") and done.replica in lost:
            lost[done.replica] += 1
            if lost[done.replica] == _WORKERS + 1:
                yield f"replica {done.replica} goes on writing after it lost the Lease: {done.call} {done.name}"


def no_secret_is_told(history: History) -> Found:
    """What is secret is in no log line, no event and no status."""
    if not history.secret:
        return
    if history.secret in history.logs:
        yield "the log tells a secret"
    for event in history.events("Event", "ModelDeployment"):
        told = event.obj.get("status") if event.kind == "ModelDeployment" else event.obj
        if history.secret in json.dumps(told):
            yield f"{event.kind} {event.name} tells a secret"


def no_reconcile_raises(history: History) -> Found:
    """Whatever the API server answers is something that the operator knows what to do about."""
    for line in history.logs.splitlines():
        if re.search(r'"level": "(error|critical)"', line) and not re.search(r"lost the Lease|will retry", line):
            yield f"an operator's log says: {line[-1500:]}"


INVARIANTS: tuple[Callable[[History], Found], ...] = (
    weights_sum_to_100,
    weight_only_to_ready_capacity,
    no_request_is_lost,
    stable_keeps_capacity,
    revision_goes_drained,
    revision_stays_as_made,
    revision_is_asked_for,
    owner_is_right,
    no_orphan,
    foreign_is_untouched,
    observed_generation_is_monotone,
    ready_means_serving,
    step_is_monotone,
    no_step_ends_early,
    broken_model_gets_no_request,
    written_routes_are_whole,
    one_writer_at_a_time,
    no_secret_is_told,
    no_reconcile_raises,
)
_WORKERS = 8
_TAKES_OVER_SECONDS = 2.0
_TELL_ROUTER = Call(Verb.APPLY, "pods")
# Each of what is wrong once: what follows from it is seldom worth reading.
_TOLD_MAX = 3


def check(history: History) -> list[str]:
    """Answer what was broken, by the name of the invariant."""
    return [f"{each.__name__}: {said}" for each in INVARIANTS for _, said in zip(range(_TOLD_MAX), each(history), strict=False)]


def _excused(history: History, at: float) -> bool:
    """Tell whether its owner has been deleted by then, and not been restored: then everything goes."""
    return history.marked("deleted") <= at < history.marked("restored")


def _known(history: History, name: str, at: float) -> bool:
    """Tell whether the operator could count on a router by then.

    Where watches lie of pods, its word to the router shows that it knows of it; which then takes over its routes, and finds the
    endpoints.
    """
    told = (done for done in history.requests if done.call == _TELL_ROUTER and done.name == name)
    return "pods" not in history.misled or any(done.at + _TAKES_OVER_SECONDS < at for done in told)


def _of_revision(event: Event) -> bool:
    return owned(event.obj) and labels.REVISION_LABEL in event.obj["metadata"]["labels"]


def _looks(history: History) -> Iterator[Look]:
    return (entry for entry in history.entries if isinstance(entry, Look))


def _least_replicas(history: History) -> int:
    asked = [event.obj["spec"].get("scaling", {}).get("min", 1) for event in history.events("ModelDeployment")]
    return min(asked, default=1)


def _leaves(obj: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(obj, dict):
        for key, value in obj.items():
            yield from _leaves(value, (*path, key))
    else:
        yield path, obj
