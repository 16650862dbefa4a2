"""A user's sample sent to a candidate: to whom, how often, for how long, and what a bad sample or a bad candidate does."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.ports import free_port

from slipway.kube.api import ApiError
from slipway.meter.meter import RouterPod
from slipway.probe import synthetic
from slipway.probe.synthetic import SLOTS, Synthetic, Wish

PORT = free_port()
WISH = Wish("ns", "m", "m-preview.ns", "samples", "m.jsonl", 50.0)
SAMPLE = [{"body": number} for number in range(3)]


class World:
    """A router on two addresses, a ConfigMap, and what is wished for."""

    def __init__(self) -> None:
        self.wishes: list[Wish] = []
        self.ready = {"127.0.0.5": True, "127.0.0.6": True}
        self.config: Any = {"data": {"m.jsonl": "\n".join(map(json.dumps, SAMPLE))}}
        self.asked: list[tuple[str, str, str, bytes]] = []
        self.addresses: Counter[str] = Counter()
        self.hangs: dict[str, asyncio.Event] = {}
        self.waiting: Counter[str] = Counter()
        self.changed: list[tuple[str, str]] = []
        self.reads = 0
        self.synthetic = Synthetic(lambda: self.wishes, self._routers, self._read, self.changed.append)

    def _routers(self, namespace: str) -> list[RouterPod]:
        return [RouterPod(namespace, address, address, ready) for address, ready in self.ready.items()]

    async def _read(self, namespace: str, name: str) -> Any:
        self.reads += 1
        if isinstance(self.config, Exception):
            raise self.config
        return self.config

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        self.asked.append((request.method, request.host, request.raw_path, body))
        assert request.transport is not None
        self.addresses[request.transport.get_extra_info("sockname")[0]] += 1
        if request.host in self.hangs:
            self.waiting[request.host] += 1
            try:
                await self.hangs[request.host].wait()
            finally:
                self.waiting[request.host] -= 1
        return web.Response(body=b"x" * 100_000)

    async def until(self, holds: Any, what: str) -> None:
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110 - what is waited for tells nobody
                await asyncio.sleep(0.005)

    def wish(self, *wishes: Wish) -> None:
        self.wishes = list(wishes)
        self.synthetic.look()

    def symptom(self) -> str:
        found = self.synthetic.symptom("ns", "m")
        return f"{found.reason}: {found.message}" if found else ""


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(synthetic, "HTTP_PORT", PORT)
    monkeypatch.setattr(synthetic, "_RETRY_SECONDS", 0.02)
    found = World()
    runner = web.ServerRunner(web.Server(found.handle, access_log=None, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    for address in found.ready:
        await web.TCPSite(runner, address, PORT).start()
    running = asyncio.create_task(found.synthetic.run())
    yield found
    running.cancel()
    await asyncio.wait({running})
    await runner.cleanup()


async def test_the_sample_goes_round_to_each_router_under_the_previews_name(world: World) -> None:
    world.wish(WISH)
    await world.until(lambda: len(world.asked) >= 12, "asked")
    assert {(method, host, path) for method, host, path, _ in world.asked} == {("POST", "m-preview.ns", "/v2/models/m/infer")}
    assert Counter(body for *_, body in world.asked[:12]) == {b"0": 4, b"1": 4, b"2": 4}
    assert set(world.addresses) == {"127.0.0.5", "127.0.0.6"}
    assert world.symptom() == ""
    assert world.reads == 1


async def test_it_keeps_the_rate_whatever_the_answers_take(world: World) -> None:
    world.hangs["m-preview.ns"] = asyncio.Event()
    loop = asyncio.get_running_loop()
    world.wish(replace(WISH, rate=20.0))
    await world.until(lambda: world.asked, "asked")
    begun, before = loop.time(), len(world.asked)
    await world.until(lambda: len(world.asked) >= before + 10, "asked")
    assert loop.time() - begun > 0.4, "not faster than asked"
    assert world.waiting["m-preview.ns"] >= 10, "nobody waits for an answer"


async def test_a_rollout_that_ends_is_left_alone_at_once(world: World) -> None:
    world.hangs["m-preview.ns"] = asyncio.Event()
    world.wish(WISH)
    await world.until(lambda: world.waiting["m-preview.ns"] >= 5, "asked")
    world.wish()
    await world.until(lambda: world.waiting["m-preview.ns"] == 0, "those under way are ended")
    count = len(world.asked)
    await asyncio.sleep(0.1)  # nothing comes: there is no condition to wait for
    assert len(world.asked) == count
    world.wish(WISH)
    await world.until(lambda: len(world.asked) > count, "it begins again")


async def test_a_candidate_that_hangs_holds_its_own_slots_and_no_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "SLOTS", 5)
    world.hangs["m-preview.ns"] = asyncio.Event()
    other = replace(WISH, model="n", host="n-preview.ns")
    world.wish(WISH, other)
    await world.until(lambda: world.waiting["m-preview.ns"] == 5, "its slots are taken")
    count = len(world.asked)
    await world.until(lambda: len(world.asked) >= count + 10, "the other goes on")
    assert {host for _, host, _, _ in world.asked[count:]} == {"n-preview.ns"}
    assert world.synthetic._sending["ns", "m"].skipped > 0
    world.hangs["m-preview.ns"].set()
    del world.hangs["m-preview.ns"]
    await world.until(lambda: "m-preview.ns" in {host for _, host, _, _ in world.asked[count:]}, "and it is asked again")
    assert SLOTS >= 50


async def test_a_router_that_is_not_ready_is_not_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "_ROUTERS_SECONDS", 0.01)
    world.ready = {"127.0.0.5": False, "127.0.0.6": True}
    world.wish(WISH)
    await world.until(lambda: len(world.asked) >= 4, "asked")
    assert set(world.addresses) == {"127.0.0.6"}
    world.ready = {}
    await world.until(lambda: world.synthetic._sending["ns", "m"].skipped >= 2, "nobody is there to be asked")
    world.ready = {"127.0.0.99": True, "127.0.0.5": True}  # nobody listens at the first
    await world.until(lambda: world.addresses["127.0.0.5"] >= 2, "asked again")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (None, "SampleInvalid: the sample in ConfigMap samples, key m.jsonl: there is no ConfigMap of that name; create it"),
        ({}, "SampleInvalid: the sample in ConfigMap samples, key m.jsonl: it has no such key with text; add it below data"),
        ({"data": {"other": "{}"}}, "it has no such key"),
        ({"data": {"m.jsonl": '{"body": hunter2}'}}, "line 1, column 10: not JSON: Expecting value"),
        (ApiError(403, "Forbidden", "no"), "cannot be read: 403 Forbidden: no"),
        (aiohttp.ClientConnectionError("x"), "cannot be read: ClientConnectionError"),
    ],
)
async def test_a_sample_of_no_use_is_told_of_until_it_is_of_use(world: World, config: Any, says: str) -> None:
    good, world.config = world.config, config
    world.wish(WISH)
    await world.until(world.symptom, "told")
    assert says in world.symptom()
    assert "hunter2" not in world.symptom()
    await world.until(lambda: world.reads >= 3, "it is read again")
    assert world.changed == [("ns", "m")], "told once"
    assert not world.asked
    world.config = good
    await world.until(lambda: world.asked, "sent")
    assert (world.symptom(), world.changed) == ("", [("ns", "m")] * 2)


async def test_another_wish_takes_the_place_of_the_one_before(world: World) -> None:
    world.config["data"]["other"] = '{"path": "/other", "method": "GET"}'
    world.wish(WISH)
    await world.until(lambda: world.asked, "asked")
    world.wish(replace(WISH, key="other"))
    await world.until(lambda: any(path == "/other" for _, _, path, _ in world.asked), "asked")
    first = next(place for place, (_, _, path, _) in enumerate(world.asked) if path == "/other")
    await world.until(lambda: len(world.asked) > first + 3, "asked")
    assert set(world.asked[first:]) == {("GET", "m-preview.ns", "/other", b"")}


async def test_a_bug_stops_one_sample_for_a_while(world: World, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    real = world._routers

    def broken(_: str) -> list[RouterPod]:
        raise RuntimeError("hunter2")

    monkeypatch.setattr(world.synthetic, "_routers", broken)
    world.wish(WISH)
    await world.until(lambda: "a sample is not sent for a while: RuntimeError" in caplog.text, "logged")
    assert "hunter2" not in caplog.text
    monkeypatch.setattr(world.synthetic, "_routers", real)
    await world.until(lambda: world.asked, "sent after all")
