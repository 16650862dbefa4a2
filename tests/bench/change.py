"""One change of a spec among many models: how long until its child has changed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from tests.bench import fleet
from tests.bench.client import Client, Object
from tests.bench.table import Table, say, spread

_CHANGES = 20


class Bench(Protocol):
    """What is needed of the benchmark."""

    client: Client
    names: list[str]


async def measure(table: Table, bench: Bench) -> None:
    """Change one spec after another, and beside them an object that nobody makes anything of."""
    say(f"{_CHANGES} changes of one spec")

    scaled: list[float] = []
    revised: list[float] = []
    echoed: list[float] = []
    for number in range(_CHANGES):
        namespace, name = bench.names[number % len(bench.names)], f"m{number:04}"
        echoed.append(await _echo(bench.client, namespace, number))
        scaled.append(await child(bench.client, namespace, name, fleet.spec(1, 2), scaled_up))
        revised.append(await child(bench.client, namespace, name, fleet.spec(2, 2), lambda seen, _: seen is None))
    others = f"40 ms, 15 ms; floor {spread(echoed, 'ms', 1000)}"
    table.add("one change among them -> its Deployment: replicas", spread(scaled, "ms", 1000), "40 ms", others)
    table.add("one change among them -> its Deployment: a new version", spread(revised, "ms", 1000), "40 ms", others)
    table.notes.append("The floor of a change is a write of the same client until its own watch tells of it.")


def scaled_up(seen: int | None, now: int) -> bool:
    """Tell whether a Deployment's generation says that it was changed."""
    return seen is not None and now > seen


async def child(client: Client, namespace: str, name: str, spec: Object, changed: Callable[[int | None, int], bool]) -> float:
    """Change the spec, and answer how long until a Deployment has changed (seconds).

    `changed` sees a Deployment's generation before (None: there was none of that uid) and now.
    """
    path, selector = f"/apis/apps/v1/namespaces/{namespace}/deployments", f"slipway.dev/model-deployment={name}"
    before = {obj["metadata"]["uid"]: obj["metadata"]["generation"] for obj in await client.items(path, selector)}
    watch = client.watch(path, selector, initial=True)

    def is_it(obj: Object) -> bool:
        return changed(before.get(obj["metadata"]["uid"]), obj["metadata"]["generation"])

    return await _until(client, watch, fleet.models_path(namespace, name), {"spec": spec}, is_it)


async def _echo(client: Client, namespace: str, number: int) -> float:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    body: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "echo", "labels": {"bench": "echo"}}}
    await client.apply(f"{path}/echo", body)
    watch = client.watch(path, "bench=echo", initial=True)
    data = {"data": {"number": str(number)}}
    return await _until(client, watch, f"{path}/echo", data, lambda obj: obj.get("data") == data["data"])


async def _until(
    client: Client, watch: AsyncIterator[tuple[str, Object]], path: str, change: Object, seen: Callable[[Object], bool]
) -> float:
    loop = asyncio.get_running_loop()
    await anext(watch)  # what there is: the watch is open
    begun = loop.time()
    await client.merge(path, change)
    async for _, obj in watch:
        if seen(obj):
            return loop.time() - begun
    raise RuntimeError(f"the watch beside {path} ended")
