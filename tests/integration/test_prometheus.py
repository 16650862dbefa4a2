"""A check's queries, put to a real Prometheus: what it answers is a number, or says nothing of the candidate."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.integration.stores import process
from tests.ports import free_port
from tests.unit.server.support import wait_until

from slipway.checks.ask import Asker
from slipway.core.polled import METRIC, MetricQuery, Outcome, Outward, Polled, Query, Subject
from slipway_dev.tools import ensure

SUBJECT = Subject("shop", "churn", "churn-b", "2", "churn-a", 1, 10)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Answer where a Prometheus is that scrapes itself."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    scrape = {"job_name": "self", "scrape_interval": "1s", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    (folder / "prometheus.yml").write_text(json.dumps({"scrape_configs": [scrape]}))
    command = [ensure(["prometheus"])["prometheus"], f"--config.file={folder}/prometheus.yml"]
    command += [f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
    with process(command, port, folder / "log"):
        wait_until(lambda: _is_ready(port), "it is ready")
        yield f"http://localhost:{port}"


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5) as answer:
            return answer.status == 200
    except urllib.error.HTTPError:
        return False


@pytest.fixture
async def asker() -> AsyncIterator[Asker]:
    async def nothing(namespace: str, name: str) -> None:
        return None

    async with Asker.open_session() as session:
        yield Asker(session, Outward(hosts=("localhost",)), nothing)


@pytest.mark.parametrize(
    ("query", "outcome", "says"),
    [
        ("0.25", Outcome.GOOD, "0.25, limit 0.5"),
        ("vector(0.75)", Outcome.BAD, "0.75, limit 0.5"),
        ("1/0", Outcome.BAD, "inf"),
        ("0/0", Outcome.NONE, "NaN"),
        ('up{revision="{{revision}}"}', Outcome.NONE, "0 series"),
        ('label_replace(vector(0.1), "r", "{{revision}}", "", "") and on(r) label_replace(vector(1), "r", "churn-b", "", "")',
         Outcome.GOOD, "0.1"),
        ("vector(1) or label_replace(vector(2), 'a', 'b', '', '')", Outcome.NONE, "2 series: aggregate them"),
        ("vector(1)[5m:1m]", Outcome.NONE, "matrix"),
        ('"text"', Outcome.NONE, "string"),
        ("sum(", Outcome.NONE, "parse error"),
    ],
)  # fmt: skip
async def test_what_a_query_gives(address: str, asker: Asker, query: str, outcome: Outcome, says: str) -> None:
    check = Polled("errors", 1, Query(query, address, max=0.5), 15, 5)
    answer = await asker.ask(check, SUBJECT)
    assert (answer.outcome, says in answer.phrase) == (outcome, True), answer
    assert await asker.trouble(check, SUBJECT) is None, "it answers, whatever the query"


async def test_what_it_scraped_is_asked(address: str, asker: Asker) -> None:
    query = Query('scrape_samples_scraped{job="self"} > bool 0', address, min=1)
    check = Polled("scraped", 1, query, 15, 5)
    async with asyncio.timeout(20):
        while (answer := await asker.ask(check, SUBJECT)).outcome == Outcome.NONE:  # noqa: ASYNC110 - nothing was scraped yet
            await asyncio.sleep(0.1)
    assert (answer.outcome, answer.value) == (Outcome.GOOD, 1.0)


@pytest.mark.parametrize(
    ("query", "outcome", "says"),
    [
        ('label_replace(vector(2), "r", "{{revision}}", "", "") + on(r) group_left '
         'label_replace(vector(1), "r", "churn-b", "", "") or on() vector(5)', Outcome.GOOD, "3, stable 5"),
        ('sum(up{job="{{revision}}"}) or on() (vector(0) / 0)', Outcome.NONE, "of churn-b: the query gives NaN"),
        ('up{revision="{{revision}}"}', Outcome.NONE, "of churn-b: the query gives 0 series"),
    ],
)  # fmt: skip
async def test_the_means_of_both_arms(address: str, asker: Asker, query: str, outcome: Outcome, says: str) -> None:
    answer = await asker.ask(Polled(METRIC, 0, MetricQuery(query, address), 60, 5), SUBJECT)
    assert (answer.outcome, says in answer.phrase) == (outcome, True), answer


async def test_who_is_no_prometheus_says_nothing(asker: Asker, address: str) -> None:
    check = Polled("errors", 1, Query("1", f"{address}/elsewhere", max=0.5), 15, 5)
    answer = await asker.ask(check, SUBJECT)
    assert (answer.outcome, "no answer of Prometheus' API" in answer.phrase) == (Outcome.NONE, True), answer
    trouble = await asker.trouble(check, SUBJECT)
    assert trouble is not None
    assert trouble.outcome == Outcome.NONE
