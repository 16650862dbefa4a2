"""The questions of checks, put to real HTTP servers: what their answers say, and that none of them keeps another waiting."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from slipway.checks import pollers
from slipway.checks.ask import BODY_BYTES, Asker
from slipway.checks.pollers import Pollers
from slipway.core.polled import METRIC, Answer, Answers, Hook, MetricQuery, Outcome, Outward, Polled, Query, Subject, Task
from slipway.kube.api import ApiError

KEY = "shop", "churn"
SUBJECT = Subject("shop", "churn", "churn-b", "2", "churn-a", 1, 10)
Handler = Callable[[web.Request], Any]


class Server:
    """An HTTP server on this machine that answers as told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.port, self.asked = 0, list[tuple[str, dict[str, str], Any]]()
        self.answer: Handler = lambda _: web.json_response({"passed": True})
        self.headers: dict[str, str] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.headers = dict(request.headers)
        self.asked.append((request.path, dict(request.query), json.loads(body) if body else None))
        answer = self.answer(request)
        return await answer if asyncio.iscoroutine(answer) else answer

    def gives(self, status: int = 200, body: Any = None) -> None:
        self.answer = lambda _: web.Response(status=status, body=body if isinstance(body, bytes) else json.dumps(body).encode())

    def vector(self, *values: str) -> None:
        result = [{"metric": {"n": str(number)}, "value": [1.5, value]} for number, value in enumerate(values)]
        self.gives(body={"status": "success", "data": {"resultType": "vector", "result": result}})


@asynccontextmanager
async def serving(server: Server) -> AsyncGenerator[Server]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", server.port)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving(Server()) as started:
        yield started


class Cluster:
    """The Services of a namespace."""

    def __init__(self) -> None:
        self.services: dict[tuple[str, str], dict[str, Any]] = {("shop", "gate"): {"clusterIP": "127.0.0.1"}}
        self.error: Exception | None = None

    async def get(self, namespace: str, name: str) -> dict[str, Any] | None:
        if self.error:
            raise self.error
        spec = self.services.get((namespace, name))
        return None if spec is None else {"spec": spec}


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
async def asker(cluster: Cluster) -> AsyncIterator[Asker]:
    async with Asker.open_session() as session:
        yield Asker(session, Outward(), cluster.get)


def hook(port: int, path: str = "/ask", host: str = "gate", **more: Any) -> Polled:
    return replace(Polled("gate", 1, Hook(f"http://{host}:{port}{path}"), 0.02, 5.0), **more)


def query(port: int, **more: Any) -> Polled:
    return replace(Polled("errors", 1, Query('errors{r="{{revision}}"}', f"http://gate:{port}/prom", max=0.5), 0.02, 5.0), **more)


async def test_a_webhook_is_told_of_what_it_is_asked(server: Server, asker: Asker) -> None:
    assert await asker.ask(hook(server.port), SUBJECT) == Answer(Outcome.GOOD)
    told = {
        "name": "churn",
        "namespace": "shop",
        "revision": "churn-b",
        "version": "2",
        "stable": "churn-a",
        "step": 1,
        "weight": 10,
    }
    assert server.asked == [("/ask", {}, told)]
    assert server.headers["Host"] == f"gate.shop.svc:{server.port}"
    assert server.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    ("status", "body", "outcome", "says"),
    [
        (200, b"", Outcome.GOOD, ""),
        (204, b"", Outcome.GOOD, ""),
        (200, b"anything", Outcome.GOOD, ""),
        (200, {"passed": True, "message": "42 rows"}, Outcome.GOOD, "42 rows"),
        (200, {"passed": False, "message": "too few\nrows" + "x" * 999}, Outcome.BAD, "too few rows"),
        (200, {"passed": False}, Outcome.BAD, "passed is false"),
        (200, {"passed": "no"}, Outcome.NONE, "neither true nor false"),
        (200, b"[" * 60_000, Outcome.GOOD, ""),
        (400, {"message": "not this one"}, Outcome.BAD, "not this one"),
        (409, b"", Outcome.BAD, "status 409"),
        (422, b"", Outcome.BAD, "status 422"),
        (401, b"", Outcome.NONE, "status 401"),
        (404, b"", Outcome.NONE, "status 404"),
        (429, b"", Outcome.NONE, "status 429"),
        (500, {"passed": False}, Outcome.NONE, "status 500"),
        (503, {"passed": True}, Outcome.NONE, "status 503"),
        (200, b"x" * (BODY_BYTES + 1), Outcome.NONE, "more than 64 KiB"),
    ],
)
async def test_what_a_webhooks_answer_says(
    server: Server, asker: Asker, status: int, body: Any, outcome: Outcome, says: str
) -> None:
    server.gives(status, body)
    answer = await asker.ask(hook(server.port), SUBJECT)
    assert answer.outcome == outcome
    assert says in answer.phrase
    assert len(answer.phrase) <= 160


def scalar(value: Any) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": "scalar", "result": [1.5, value]}}


@pytest.mark.parametrize(
    ("status", "body", "outcome", "says"),
    [
        (200, scalar("0.25"), Outcome.GOOD, "0.25, limit 0.5"),
        (200, scalar("0.5"), Outcome.GOOD, ""),
        (200, scalar("0.75"), Outcome.BAD, "0.75, limit 0.5"),
        (200, scalar("+Inf"), Outcome.BAD, "inf"),
        (200, scalar("NaN"), Outcome.NONE, "NaN"),
        (200, scalar(None), Outcome.NONE, "no number"),
        (200, {"status": "success", "data": {"resultType": "matrix", "result": []}}, Outcome.NONE, "matrix"),
        (200, {"status": "success", "data": None}, Outcome.NONE, "not one number"),
        (200, {"status": "success", "data": {"resultType": "vector", "result": ["x"]}}, Outcome.NONE, "no number"),
        (400, {"status": "error", "errorType": "bad_data", "error": "parse error: unexpected }"}, Outcome.NONE, "parse error"),
        (503, {"status": "error", "errorType": "timeout", "error": "query timed out"}, Outcome.NONE, "timed out"),
        (200, b"<html>", Outcome.NONE, "no answer of Prometheus"),
        (502, b"bad gateway", Outcome.NONE, "status 502"),
        (302, b"", Outcome.NONE, "status 302"),
    ],
)
async def test_what_a_prometheus_says(server: Server, asker: Asker, status: int, body: Any, outcome: Outcome, says: str) -> None:
    server.gives(status, body)
    answer = await asker.ask(query(server.port), SUBJECT)
    assert answer.outcome == outcome
    assert says in answer.phrase
    assert (answer.value is not None) is (outcome != Outcome.NONE)


@pytest.mark.parametrize(
    ("values", "outcome", "says"),
    [((), Outcome.NONE, "0 series"), (("0.1",), Outcome.GOOD, "0.1"), (("0.1", "0.2"), Outcome.NONE, "2 series: aggregate")],
)
async def test_a_vector_is_of_one(server: Server, asker: Asker, values: tuple[str, ...], outcome: Outcome, says: str) -> None:
    server.vector(*values)
    answer = await asker.ask(query(server.port), SUBJECT)
    assert (answer.outcome, says in answer.phrase) == (outcome, True)
    assert server.asked == [("/prom/api/v1/query", {"query": 'errors{r="churn-b"}', "timeout": "5s"}, None)]


async def test_no_detour_is_taken(server: Server, asker: Asker) -> None:
    """A redirect is not followed, whatever it leads to."""
    server.answer = lambda request: web.Response(status=307, headers={"Location": f"http://127.0.0.1:{server.port}/metadata"})
    for check in (hook(server.port), query(server.port)):
        assert (await asker.ask(check, SUBJECT)).outcome == Outcome.NONE
    assert [path for path, _, _ in server.asked] == ["/ask", "/prom/api/v1/query"]


@pytest.mark.parametrize(
    ("service", "says"),
    [
        (None, "there is no Service gate"),
        ({"type": "ExternalName", "externalName": "127.0.0.1"}, "no address of its own"),
        ({"type": "ClusterIP", "clusterIP": "None"}, "no address of its own"),
        ({"type": "ExternalName", "externalName": "localhost", "clusterIP": ""}, "no address of its own"),
    ],
)
async def test_a_service_that_leads_elsewhere_is_not_asked(
    server: Server, asker: Asker, cluster: Cluster, service: dict[str, Any] | None, says: str
) -> None:
    del cluster.services["shop", "gate"]
    if service is not None:
        cluster.services["shop", "gate"] = service
    answer = await asker.ask(hook(server.port), SUBJECT)
    assert (answer.outcome, says in answer.phrase) == (Outcome.NONE, True), answer
    assert server.asked == []


async def test_another_namespaces_service_is_not_asked_however_it_came_here(
    server: Server, asker: Asker, cluster: Cluster
) -> None:
    cluster.services["other", "gate"] = {"clusterIP": "127.0.0.1"}
    for host in ("gate.other.svc", "127.0.0.1", "localhost.localdomain"):
        answer = await asker.ask(hook(server.port, host=host), SUBJECT)
        assert (answer.outcome, "may not be asked" in answer.phrase) == (Outcome.NONE, True), answer
    assert server.asked == []


async def test_an_allowed_host_and_the_platforms_prometheus_are_found_by_name(server: Server, cluster: Cluster) -> None:
    async with Asker.open_session() as session:
        outward = Outward(f"http://localhost:{server.port}/prom", ("localhost",))
        asker = Asker(session, outward, cluster.get)
        assert (await asker.ask(hook(server.port, host="localhost"), SUBJECT)).outcome == Outcome.GOOD
        server.vector("0.1")
        platform = Polled("errors", 1, Query("up", max=1.0), 15, 5)
        assert (await asker.ask(platform, SUBJECT)).outcome == Outcome.GOOD


async def test_who_does_not_answer_is_no_answer(server: Server, asker: Asker, cluster: Cluster) -> None:
    async def hang(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    server.answer = hang
    answer = await asker.ask(hook(server.port, timeout_seconds=0.1), SUBJECT)
    assert answer == Answer(Outcome.NONE, "gate did not answer within 0.1 s")
    answer = await asker.ask(hook(1), SUBJECT)
    assert answer == Answer(Outcome.NONE, "gate cannot be reached: Connection refused")
    cluster.error = ApiError(403, "Forbidden", "no")
    answer = await asker.ask(hook(server.port), SUBJECT)
    assert answer == Answer(Outcome.NONE, "the Service gate cannot be looked up: Forbidden")


async def test_what_does_not_speak_http_is_no_answer(asker: Asker) -> None:
    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-x\r\n")
        writer.close()

    listener = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with listener:
        answer = await asker.ask(hook(listener.sockets[0].getsockname()[1]), SUBJECT)
    assert (answer.outcome, "did not answer in HTTP" in answer.phrase) == (Outcome.NONE, True), answer


@pytest.fixture
async def polling(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pollers]:
    monkeypatch.setattr(pollers, "PING_SECONDS", 0.02)
    made = Pollers(Outward(), cluster.get)
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    await asyncio.wait([running])


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


async def answered(told: Callable[[], Answers], condition: Callable[[Answers], bool]) -> Answers:
    """Wait until what was answered is so."""
    await until(lambda: condition(told()))
    return told()


async def test_a_check_is_asked_again_and_again_and_each_step_begins_anew(server: Server, polling: Pollers) -> None:
    check = hook(server.port)

    def told(step: str = "one", subject: Subject = SUBJECT) -> Answers:
        return polling.follow(KEY, step, subject, [check])["gate"]

    assert told().last is None
    await answered(told, lambda answers: answers.good >= 3)
    server.gives(409)
    answers = await answered(told, lambda answers: answers.bad >= 2)
    assert (answers.good >= 3, answers.last) == (True, Answer(Outcome.BAD, "status 409"))
    assert answers.age_seconds < 5
    heavier = replace(SUBJECT, weight=50)
    count = len(server.asked)
    await until(lambda: bool(told(subject=heavier)) and len(server.asked) > count + 2)
    assert server.asked[-1][2]["weight"] == 50
    assert told("two").last is None, "what was said at another step is not said of this one"
    server.gives(200)
    answers = await answered(lambda: told("two"), lambda answers: answers.good > 0)
    assert answers.bad <= 1  # one may have been under way
    check = hook(server.port, failure_limit=9)
    assert told("two").last is None, "another check"


async def test_nobody_is_asked_of_what_is_over(server: Server, polling: Pollers) -> None:
    polling.follow(KEY, "one", SUBJECT, [hook(server.port), Polled("smoke", 2, Task({}, 1))])
    await until(lambda: bool(server.asked))
    polling.forget(KEY)
    marker = hook(server.port, "/marker")
    count = len(server.asked)
    polling.follow(("shop", "other"), "one", SUBJECT, [marker])
    await until(lambda: sum(path == "/marker" for path, _, _ in server.asked) >= 5)
    assert sum(path == "/ask" for path, _, _ in server.asked[count:]) <= 1, "one may have been under way"


async def test_one_that_hangs_keeps_nobody_waiting(server: Server, cluster: Cluster, polling: Pollers) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/hang":
            await asyncio.Event().wait()
        return web.json_response({})

    def hanging() -> int:
        return sum(path == "/hang" for path, _, _ in server.asked)

    server.answer = answer
    cluster.services["hung", "gate"] = {"clusterIP": "127.0.0.1"}
    for number in range(100):  # more than a namespace may have under way
        hung = replace(SUBJECT, namespace="hung", name=str(number))
        polling.follow(("hung", str(number)), "one", hung, [hook(server.port, "/hang", timeout_seconds=60.0)])
    await until(lambda: hanging() == 16)
    check = hook(server.port)
    answers = await answered(lambda: polling.follow(KEY, "one", SUBJECT, [check])["gate"], lambda found: found.good >= 5)
    assert answers.bad == 0
    assert hanging() == 16


async def test_a_query_counts_once_an_interval_and_is_missed_at_once(server: Server, polling: Pollers) -> None:
    """Between two questions the Prometheus is asked whether it would answer: it may be away long before the next one."""
    server.vector("0.1")
    check = query(server.port, interval_seconds=3600.0)

    def told() -> Answers:
        return polling.follow(KEY, "one", SUBJECT, [check])["errors"]

    told()
    await until(lambda: len(server.asked) >= 3)
    assert {asked["query"] for _, asked, _ in server.asked} == {"1"}, "its first interval is not over"
    assert told().last is None
    server.gives(503)
    answers = await answered(told, lambda answers: answers.last is not None)
    assert answers.last is not None
    assert (answers.last.outcome, answers.good, answers.bad) == (Outcome.NONE, 0, 0)
    server.vector("0.1")
    answers = await answered(told, lambda answers: answers.last is not None and answers.last.outcome == Outcome.GOOD)
    assert answers.good == 1, "back again, it is asked at once"
    assert answers.value == 0.1


async def test_an_answer_may_be_lost_by_a_restart_of_who_is_asked(cluster: Cluster, polling: Pollers) -> None:
    server = Server()
    async with serving(server):
        check = hook(server.port)
        polling.follow(KEY, "one", SUBJECT, [check])
        told = lambda: polling.follow(KEY, "one", SUBJECT, [check])["gate"]  # noqa: E731
        await answered(told, lambda answers: answers.good >= 1)
    answers = await answered(told, lambda answers: answers.last is not None and answers.last.outcome == Outcome.NONE)
    assert answers.bad == 0
    async with serving(server):
        await answered(told, lambda answers: answers.last is not None and answers.last.outcome == Outcome.GOOD)


def metric(port: int, **more: Any) -> Polled:
    ask = MetricQuery('sales{r="{{revision}}",n="{{name}}"}', f"http://gate:{port}/prom")
    return replace(Polled(METRIC, 0, ask, 0.02, 5.0), **more)


def tells(server: Server, candidate: Any, stable: Any) -> None:
    """Let the server answer with a number for each arm; anything else is a whole answer."""

    def answer(request: web.Request) -> web.Response:
        told = candidate if "churn-b" in request.query["query"] else stable
        return web.json_response(told if isinstance(told, dict) else scalar(told))

    server.answer = answer


EMPTY = {"status": "success", "data": {"resultType": "vector", "result": []}}
TWO = {"status": "success", "data": {"resultType": "vector", "result": [{"value": [1, "1"]}, {"value": [1, "2"]}]}}


async def test_a_metric_is_asked_of_each_arm(server: Server, asker: Asker) -> None:
    tells(server, "0.3", "0.2")
    assert await asker.ask(metric(server.port), SUBJECT) == Answer(Outcome.GOOD, "0.3, stable 0.2", 0.3, 0.2)
    assert [asked["query"] for _, asked, _ in server.asked] == [f'sales{{r="churn-{arm}",n="churn"}}' for arm in "ba"]


@pytest.mark.parametrize(
    ("candidate", "stable", "says"),
    [
        ("0.3", "NaN", "of churn-a: the query gives NaN"),
        ("NaN", "0.3", "of churn-b: the query gives NaN"),
        ("0.3", EMPTY, "of churn-a: the query gives 0 series"),
        (TWO, "0.3", "of churn-b: the query gives 2 series"),
        ("+Inf", "0.3", "of churn-b: the query gives inf"),
        ("0.3", "-1e200", "of churn-a: the query gives -1e+200"),
        ({"status": "error", "error": "no such function"}, "0.3", "no such function"),
    ],
)
async def test_an_arm_without_a_number_is_no_answer(server: Server, asker: Asker, candidate: Any, stable: Any, says: str) -> None:
    tells(server, candidate, stable)
    answer = await asker.ask(metric(server.port), SUBJECT)
    assert (answer.outcome, answer.value, answer.stable) == (Outcome.NONE, None, None)
    assert says in answer.phrase


async def test_each_interval_of_a_metric_is_told_once(server: Server, polling: Pollers) -> None:
    tells(server, "0.3", "0.2")
    check, found = metric(server.port), list[tuple[float, float]]()

    def told() -> Answers:
        answers = polling.follow(KEY, "one", SUBJECT, [check])[METRIC]
        found.extend(answers.pairs)
        return answers

    await answered(told, lambda answers: answers.good >= 3)
    tells(server, "0.3", "NaN")
    answers = await answered(told, lambda answers: answers.last is not None and answers.last.outcome == Outcome.NONE)
    assert found == [(0.3, 0.2)] * answers.good
    tells(server, "0.5", "0.2")
    before = answers.good
    answers = await answered(told, lambda answers: answers.good > before + 1)
    assert found == [(0.3, 0.2)] * before + [(0.5, 0.2)] * (answers.good - before)


async def test_intervals_of_a_metric_do_not_overlap(server: Server, polling: Pollers) -> None:
    """A Prometheus that was away is missed at once, and once it is back, asked for a mean once the interval is over."""
    tells(server, "0.3", "0.2")
    check, waited = metric(server.port, interval_seconds=3600.0), {METRIC: 3600.0}

    def told() -> Answers:
        return polling.follow(KEY, "one", SUBJECT, [check], waited)[METRIC]

    def outcome(answers: Answers) -> Outcome | None:
        return answers.last.outcome if answers.last is not None else None

    assert (await answered(told, lambda answers: answers.good == 1)).good == 1, "what of its interval is over is not waited for"
    server.gives(503)
    await answered(told, lambda answers: outcome(answers) == Outcome.NONE)
    tells(server, "0.3", "0.2")
    count = len(server.asked)
    answers = await answered(told, lambda answers: outcome(answers) is None)
    await until(lambda: len(server.asked) > count + 3)
    assert {asked["query"] for _, asked, _ in server.asked[count:]} == {"1"}
    assert answers.good == 1
