"""What happens to a ModelDeployment in a run: each scenario a short story, told to its end whatever fails meanwhile."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.bench.client import Object
from tests.faults.single import NAME, SECRET, Run


@dataclass(frozen=True)
class Scenario:
    """A story by its name."""

    name: str
    drive: Callable[[Run], Awaitable[None]]


SCENARIOS: dict[str, Scenario] = {}
# These change what all runs share: each is run with nothing beside it.
ALONE = ("crd-default",)


def _scenario(drive: Callable[[Run], Awaitable[None]]) -> Callable[[Run], Awaitable[None]]:
    name = drive.__name__.replace("_", "-")
    SCENARIOS[name] = Scenario(name, drive)
    return drive


ERRORS = {"errorRate": {"max": "10%"}}
CANARY: Object = {
    "strategy": "Canary",
    "steps": [{"weight": 20, "hold": "3s"}, {"weight": 60, "hold": "0s"}],
    "checks": [ERRORS],
    "minRequests": 10,
}
LONG: Object = {**CANARY, "steps": [{"weight": 20, "hold": "600s"}]}
BY_STRATEGY: dict[str, Object] = {
    "blue-green": {
        "strategy": "BlueGreen",
        "blueGreen": {"mirror": 50, "hold": "1s", "scaleDownDelay": "1s"},
        "checks": [ERRORS],
        "minRequests": 10,
    },
    "shadow": {"strategy": "Shadow", "shadow": {"mirror": 50, "hold": "1s"}, "checks": [ERRORS], "minRequests": 10},
    "ab-test": {"strategy": "ABTest", "abTest": {"cookie": {}, "hold": "1s", "duration": "1h"}, "minRequests": 10},
}
# What the chart of another release starts the operator with.
UPGRADED = ("--server-image", "test/server:2", "--router-image", "test/router:2", "--operator-image", "test/operator:2")


def spec(version: int, rollout: Object | None = None, replicas: int = 2, **more: object) -> Object:
    """Answer a spec as a user would write it."""
    model: Object = {"uri": f"http://models.example/{version}/model.onnx", "format": "ONNX", "version": str(version)}
    model["storage"] = {"secretName": SECRET}
    found = {"model": model, "scaling": {"min": replicas}, **more}
    return found if rollout is None else {**found, "rollout": rollout}


async def _serve(run: Run, rollout: Object | None = None) -> None:
    """Have version 1 serve, beside objects that are not Slipway's, one of them secret; and somebody labels one that is."""
    await run.make_foreign()
    await run.ready(await run.apply(spec(1, rollout)))
    await run.label_deployment(run.revision(spec(1, rollout)))


async def _to_step(run: Run, step: int) -> None:
    await run.until(lambda status: (status.get("rollout") or {}).get("step", 0) >= step, f"step {step} begins")


@_scenario
async def first_apply(run: Run) -> None:
    """A ModelDeployment is made, and serves."""
    await _serve(run)


@_scenario
async def immediate(run: Run) -> None:
    """The next version takes over at once."""
    await _serve(run)
    await run.ready(await run.apply(spec(2)))


@_scenario
async def immediate_broken(run: Run) -> None:
    """The next version fails to load: it is withdrawn after its deadline."""
    await _serve(run)
    bad = spec(2, {"progressDeadline": "8s"})
    run.breaks(bad)
    await run.settled(await run.apply(bad))


@_scenario
async def canary(run: Run) -> None:
    """The next version takes over step by step."""
    await _serve(run, CANARY)
    await run.ready(await run.apply(spec(2, CANARY)))


@_scenario
async def canary_failing(run: Run) -> None:
    """The next version answers with errors: it is withdrawn, and what served serves on."""
    await _serve(run, CANARY)
    bad = spec(2, CANARY)
    run.errs(bad)
    await run.settled(await run.apply(bad))


@_scenario
async def supersede(run: Run) -> None:
    """A third version takes the place of a candidate that has weight."""
    await _serve(run, LONG)
    await run.apply(spec(2, LONG))
    await _to_step(run, 1)
    await run.ready(await run.apply(spec(3, CANARY)))


@_scenario
async def returned(run: Run) -> None:
    """The spec returns to what serves while a candidate has weight."""
    await _serve(run, LONG)
    await run.apply(spec(2, LONG))
    await _to_step(run, 1)
    await run.ready(await run.apply(spec(1, LONG)))


@_scenario
async def abort(run: Run) -> None:
    """Somebody calls a rollout off."""
    await _serve(run, LONG)
    generation = await run.apply(spec(2, LONG))
    await _to_step(run, 1)
    await run.ask("Abort")
    await run.until(lambda status: (status.get("rollout") or {}).get("outcome") == "Failed", "it is called off")
    await run.settled(generation)


@_scenario
async def rollback(run: Run) -> None:
    """Somebody rolls back to the version before, whose Deployment is gone and whose pods still are there."""
    await _serve(run)
    stable = run.revision(spec(1))
    async with run.pods_kept(stable):
        await run.ready(await run.apply(spec(2)))
        await run.revision_gone(stable)
        await run.ask("Rollback")
        await run.until(
            lambda status: (
                bool((status.get("rollout") or {}).get("step")) or (status.get("stable") or {}).get("revision") == stable
            ),
            "it gets requests",
        )
    await run.until(
        lambda status: (
            (status.get("stable") or {}).get("revision") == stable and not status.get("draining") and "candidate" not in status
        ),
        "the version before serves again",
    )


@_scenario
async def deletion(run: Run) -> None:
    """A ModelDeployment is deleted amid a rollout: everything of it goes."""
    await _serve(run, LONG)
    await run.apply(spec(2, LONG))
    await _to_step(run, 1)
    run.mark("deleted")
    await run.client.delete(run.path)
    await run.gone()


@_scenario
async def namespace_deletion(run: Run) -> None:
    """Its namespace is deleted amid a rollout: it comes to its end."""
    await _serve(run, LONG)
    await run.apply(spec(2, LONG))
    await _to_step(run, 1)
    run.mark("deleted")
    run.mark("namespace deleted")
    await run.client.delete(f"/api/v1/namespaces/{run.namespace}")
    await run.gone()


def _by_strategy(name: str, rollout: Object, *, failing: bool) -> None:
    async def drive(run: Run) -> None:
        await _serve(run, rollout)
        second = spec(2, rollout)
        if failing:
            run.errs(second)
        if name == "ab-test":
            run.errs(spec(1, rollout) if not failing else second)
        generation = await run.apply(second)
        await (run.settled(generation) if failing else run.ready(generation))

    drive.__name__ = f"{name}-failing" if failing else name
    drive.__doc__ = f"The next version is tried by {rollout['strategy']}" + (", and is bad." if failing else ".")
    _scenario(drive)


for _name, _rollout in BY_STRATEGY.items():
    _by_strategy(_name, _rollout, failing=False)
    _by_strategy(_name, _rollout, failing=True)


@_scenario
async def scale(run: Run) -> None:
    """More replicas, then fewer."""
    await _serve(run)
    await run.ready(await run.apply(spec(1, replicas=3)))
    await run.ready(await run.apply(spec(1, replicas=1)))


@_scenario
async def zero(run: Run) -> None:
    """Nobody asks: no pod is left; somebody does: there is one; and as it falls asleep again there is to be one for ever."""
    await _serve(run)
    run.asked(again=False)
    await run.apply({**spec(1), "scaling": {"min": 0, "idleAfter": "5s"}})
    await run.until(lambda status: status.get("phase") == "ScaledToZero" and not status["stable"]["ready"], "it sleeps")
    run.asked(again=True)
    await run.wake()
    await run.until(lambda status: status.get("phase") == "Ready" and status["stable"]["ready"] == 1, "it is awake")
    run.asked(again=False)
    await run.until(lambda status: status.get("phase") == "ScaledToZero", "it falls asleep")
    run.asked(again=True)
    await run.ready(await run.apply(spec(1, replicas=1)))


@_scenario
async def settings(run: Run) -> None:
    """A setting of the server changes: a new revision; a setting of the rollout: none."""
    await _serve(run)
    await run.ready(await run.apply(spec(1, server={"workers": 2})))
    await run.ready(await run.apply(spec(1, CANARY, server={"workers": 2})))


@_scenario
async def routing(run: Run) -> None:
    """Hosts and the time limit of requests change, amid a rollout too."""
    await _serve(run)
    await run.ready(await run.apply(spec(1, routing={"hosts": ["m.example.com"], "timeout": "10s"})))
    await run.ready(await run.apply(spec(2, CANARY, routing={"hosts": ["n.example.com"], "timeout": "20s"})))


@_scenario
async def children_deleted(run: Run) -> None:
    """Somebody deletes children: they come back."""
    await _serve(run)
    revision = run.revision(spec(1))
    base = f"namespaces/{run.namespace}"
    for path in (
        f"/api/v1/{base}/services/{NAME}",
        f"/api/v1/{base}/services/{revision}",
        f"/apis/policy/v1/{base}/poddisruptionbudgets/{NAME}",
        f"/apis/policy/v1/{base}/poddisruptionbudgets/slipway-router",
    ):
        before = run.count("ADDED", path)
        await run.client.delete(path)
        await run.until_(lambda path=path, before=before: run.count("ADDED", path) > before, f"{path} is back")
    await run.ready(1)


@_scenario
async def status_wiped(run: Run) -> None:
    """Status is lost at a moment amid a rollout: what served goes on serving, and the spec is come to."""
    await _serve(run, LONG)
    await run.apply(spec(2, LONG))
    await _to_step(run, 1)
    run.mark("status wiped")
    await run.client.request("PATCH", f"{run.path}/status", [{"op": "remove", "path": "/status"}], "application/json-patch+json")
    stable = run.revision(spec(1, LONG))
    await run.until(lambda status: (status.get("stable") or {}).get("revision") == stable, "what served is stable again")
    await _to_step(run, 1)
    await run.ready(await run.apply(spec(2)))


@_scenario
async def restored(run: Run) -> None:
    """All is lost amid a rollout, and restored from a backup, without status, uids and owners: what served goes on serving."""
    await _serve(run, LONG)
    await run.apply(spec(2, LONG))
    await _to_step(run, 1)
    kept = await run.lose(owners=False)
    await run.restore(kept)
    await run.pods_ready(kept)
    run.mark("restored")
    await run.start()
    stable = run.revision(spec(1, LONG))
    await run.until(lambda status: (status.get("stable") or {}).get("revision") == stable, "what served is stable again")
    await _to_step(run, 1)
    await run.ready(await run.apply(spec(2)))


@_scenario
async def restored_in_vain(run: Run) -> None:
    """The backup kept the owners, whose uids are gone: so goes all that they own, and the latest spec serves."""
    await _serve(run, LONG)
    await run.apply(spec(2, LONG))
    await _to_step(run, 1)
    await run.restore(await run.lose(owners=True))
    await run.start()
    await run.ready(1)
    run.mark("restored")
    await run.ready(await run.apply(spec(2)))


@_scenario
async def upgrade(run: Run) -> None:
    """The operator of another release takes over amid a rollout: routers are rolled, models are not, and the rollout goes on."""
    await _serve(run, LONG)
    await run.apply(spec(2, LONG))
    await _to_step(run, 1)
    await run.second(*UPGRADED)
    await run.replicas[0].retire()
    await run.routers_run("test/router:2")
    await run.ready(await run.apply(spec(2, CANARY)))


@_scenario
async def crd_default(run: Run) -> None:
    """The CRD of another release has another default, and one of a field that this operator does not know: nothing is touched."""
    await _serve(run)
    port = {"default": 9090}
    try:
        await run.define({"port": port, "added": {"type": "string", "default": "x"}})
        await _anew(run)
        await run.until(lambda status: _condition(status, "SpecValid") == "False", "the field that it does not know is told of")
        await run.define({"port": port})
        await _anew(run)
        await run.ready(await run.apply(spec(1, replicas=3)))
    finally:
        await run.define({})


async def _anew(run: Run) -> None:
    """Have another operator read all: no version tells of defaults, and a watch goes by the CRD that it began with."""
    await run.replicas[0].stop()
    await run.start()


def _condition(status: Object, kind: str) -> str:
    return next((each["status"] for each in status.get("conditions", ()) if each["type"] == kind), "")
