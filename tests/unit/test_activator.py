"""The activator: who waits, for how long, in which order they go, and who is woken how often."""

import asyncio
from typing import Any, cast

import pytest

from slipway.activator.pods import Pods
from slipway.activator.waiting import LeavingError, RefusedError, Waiting
from slipway.activator.waker import AGAIN_SECONDS, FIELD_MANAGER, Waker
from slipway.core import holding
from slipway.core.holding import Held
from slipway.kube.api import ApiError
from slipway.kube.store import Store
from slipway.manifests import labels

REVISION = ("ns", "m-a")
HELD = Held("ns", "m", "m-a", 8080, 60.0, 10)
MEBIBYTE = 1024 * 1024


class Crowd:
    """Requests that wait for pods at these addresses."""

    def __init__(self, held_max: int = 100, bytes_max: int = 100 * MEBIBYTE) -> None:
        self.ready = list[str]()
        self.waiting = Waiting(lambda _: self.ready, held_max, bytes_max)
        self.went = list[tuple[int, str]]()
        self._count = 0

    def come(self, held: Held = HELD, router: str = "r1") -> asyncio.Task[None]:
        async def wait(number: int) -> None:
            self.went.append((number, await self.waiting.wait(held, router)))

        self._count += 1
        return asyncio.create_task(wait(self._count))


async def _settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_first_come_first_served_and_every_pod_has_its_turn() -> None:
    crowd = Crowd()
    tasks = [crowd.come() for _ in range(9)]
    await _settled()
    tasks[3].cancel()
    await _settled()
    crowd.waiting.release(REVISION)
    assert crowd.waiting.count == 8, "there is no pod"
    crowd.ready = ["a", "b"]
    crowd.waiting.release(REVISION)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [number for number, _ in crowd.went] == [1, 2, 3, 5, 6, 7, 8, 9]
    assert sorted(address for _, address in crowd.went) == ["a"] * 4 + ["b"] * 4
    assert crowd.waiting.count == 0


@pytest.mark.parametrize(
    ("crowd", "held", "kind"),
    [
        (Crowd(held_max=3), HELD, "count"),
        (Crowd(bytes_max=4 * MEBIBYTE), Held("ns", "m", "m-a", 8080, 60.0, MEBIBYTE), "bytes"),
        (Crowd(bytes_max=13 * MEBIBYTE), Held("ns", "m", "m-a", 8080, 60.0, None), "bytes"),
        (Crowd(bytes_max=13 * MEBIBYTE), Held("ns", "m", "m-a", 8080, 60.0, 1000 * MEBIBYTE), "bytes"),
    ],
)
async def test_the_fourth_is_one_too_many(crowd: Crowd, held: Held, kind: str) -> None:
    tasks = [crowd.come(held) for _ in range(3)]
    await _settled()
    with pytest.raises(RefusedError) as refused:
        await crowd.waiting.wait(held, "r1")
    assert refused.value.kind == kind
    tasks.pop().cancel()
    await _settled()
    tasks.append(crowd.come(held))
    other = crowd.come(Held("ns", "m", "m-b", 8080, 60.0, 1), "r2")
    await _settled()
    assert crowd.waiting.count == 4, "another revision, in another router, has limits of its own"
    for task in (*tasks, other):
        task.cancel()
    await asyncio.gather(*tasks, other, return_exceptions=True)
    assert crowd.waiting.count == 0


async def test_time_is_up() -> None:
    with pytest.raises(RefusedError, match=r"no pod of m-a was ready within 0\.01 s: try again later") as refused:
        await Crowd().waiting.wait(Held("ns", "m", "m-a", 8080, 0.01), "r1")
    assert refused.value.kind == "time"


async def test_who_leaves_keeps_nobody() -> None:
    crowd = Crowd()
    tasks = [crowd.come() for _ in range(3)]
    await _settled()
    crowd.waiting.leave()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in found] == [LeavingError] * 3
    with pytest.raises(LeavingError):
        await crowd.waiting.wait(HELD, "r1")


class Server:
    """An API server that takes what is applied, or refuses it."""

    def __init__(self) -> None:
        self.applied, self.refuses = list[dict[str, Any]](), False

    async def apply(self, obj: dict[str, Any], *, status: bool, manager: str) -> None:
        assert (status, manager) == (True, FIELD_MANAGER)
        if self.refuses:
            raise ApiError(500, "InternalError", "no")
        self.applied.append(obj)


async def test_nobody_is_woken_twice() -> None:
    server, now = Server(), [0.0]
    waker = Waker(cast("Any", server), lambda: now[0])
    for at in (0.0, 1.0, AGAIN_SECONDS - 0.1):
        now[0] = at
        waker.wake("ns", "m")
        waker.wake("ns", "n")
    await _settled()
    assert sorted(obj["metadata"]["name"] for obj in server.applied) == ["m", "n"]
    assert {tuple(obj["status"]) for obj in server.applied} == {("activation",)}, "all else in status is the operator's"
    now[0] = AGAIN_SECONDS
    waker.wake("ns", "m")
    await _settled()
    first, _, again = (obj["status"]["activation"]["at"] for obj in server.applied)
    assert first != again, "who still waits is told of once more"


async def test_what_could_not_be_written_is_tried_again() -> None:
    server = Server()
    waker = Waker(cast("Any", server), lambda: 0.0)
    server.refuses = True
    waker.wake("ns", "m")
    await _settled()
    server.refuses = False
    waker.wake("ns", "m")
    await _settled()
    assert (len(server.applied), waker.count) == (1, 1)


def pod(version: int, *, ready: bool = True, going: bool = False, address: str = "10.0.0.1") -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "m-a-1", "namespace": "ns", "uid": "u", "resourceVersion": str(version)}
    metadata["labels"] = labels.model_labels("m", "m-a")
    if going:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    status = {"podIP": address, "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status}


def test_pods_come_and_go() -> None:
    store = Store()
    pods = Pods(store)

    def seen(obj: dict[str, Any]) -> tuple[list[str], bool]:
        store.put(obj)
        assert pods.notice(obj) == REVISION
        return pods.ready(REVISION), pods.starting(*REVISION)

    assert (pods.ready(REVISION), pods.starting(*REVISION)) == ([], False)
    assert seen(pod(1, ready=False)) == ([], True)
    assert seen(pod(2)) == (["10.0.0.1"], True)
    assert seen(pod(3, going=True)) == ([], False), "it still answers, but for how long?"
    store.drop(pod(4))
    assert pods.notice(pod(4)) == REVISION
    assert (pods.ready(REVISION), pods.starting(*REVISION)) == ([], False)


def test_what_the_router_says_is_what_the_activator_reads() -> None:
    said = holding.write("ns", "m", "m-a", 8080, 30.0)
    assert holding.read(said.replace("%REQ(content-length)%", "12")) == Held("ns", "m", "m-a", 8080, 29.0, 12)
    assert holding.read(said.replace("%REQ(content-length)%", "-")).body_bytes is None
    with pytest.raises(ValueError, match="unpack"):
        holding.read("")


@pytest.mark.parametrize(("timeout", "held"), [(0.1, 0.09), (5, 4.5), (30, 29), (3600, 240)])
def test_no_request_waits_until_its_route_cuts_it_off(timeout: float, held: float) -> None:
    assert holding.hold_seconds(timeout) == pytest.approx(held)
