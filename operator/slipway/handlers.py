"""kopf wiring: every event only enqueues a key."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any, cast

import kopf

from slipway.api import GROUP, PLURAL, VERSION

Heard = Callable[[str | None, dict[str, Any]], None]


def registry(heard: Heard) -> kopf.OperatorRegistry:
    """Answer kopf's handlers: the login, and raw events of ModelDeployments, passed on as they are."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    def on_login(**known: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**known) or kopf.login_with_kubeconfig(**known)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)
    async def on_event(event: kopf.RawEvent, **_: Any) -> None:
        heard(event["type"], dict(event["object"]))

    return handlers


def settings() -> kopf.OperatorSettings:
    """Answer kopf's settings: nothing of it on users' objects, no peering (a Lease fences), no events of its own."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.peering.standalone = True
    chosen.scanning.disabled = True  # no right to list CRDs or namespaces is needed: the CRD is there by now
    chosen.persistence.diffbase_storage = _NoDiffBase()
    chosen.queueing.exit_timeout = 0.5
    chosen.networking.trust_env = True
    return chosen


async def run(heard: Heard, namespaces: Collection[str], identity: str, started: Callable[[], None]) -> None:
    """Run kopf until cancelled. `heard` takes each event's type (None: of its first list) and object.

    `started` is called once kopf has put its own signal handlers in place.
    """
    # kopf takes every task in the loop that it is not told of for its own, and cancels it as it ends: also the one that gives
    # the Lease back.
    others = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=registry(heard),
        settings=settings(),
        standalone=True,
        identity=cast(Any, identity),  # else kopf asks for the user's name, and a container has none
        clusterwide=not namespaces,
        namespaces=namespaces,
    )
    started()
    await kopf.run_tasks(tasks, ignored=others)


class _NoDiffBase(kopf.DiffBaseStorage):
    """Remembers nothing: nobody compares."""

    def fetch(self, *, body: kopf.Body) -> None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        return None
