"""Reading a router's statistics: whatever came before, the result is as if the answer were the first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.core.figures import Counters
from slipway.core.latency import Histogram, bucket_of
from slipway.meter.scrape import seen
from slipway.meter.statistics import Statistics, grown, parts

HEAD = 'http.models.rds.models.version_text: "1795404757810"\n'
TEXT = (
    HEAD
    + "cluster.admin.membership_healthy: 1\ncluster.admin.upstream_rq_completed: 4\n"
    + "cluster.m-a.grpc.14: 2\ncluster.m-a.grpc.4: 1\ncluster.m-a.membership_healthy: 2\ncluster.m-a.upstream_rq_5xx: 3\n"
    + "cluster.m-a.upstream_rq_active: 1\ncluster.m-a.upstream_rq_completed: 9\ncluster.m-a.upstream_rq_rx_reset: 1\n"
    + "cluster.m-a.upstream_cx_destroy_remote_with_active_rq: 2\n"
    + "cluster_manager.cds.update_rejected: 1\nhttp.models.rds.models.update_rejected: 2\nserver.uptime: 77\n"
    + "cluster.admin.upstream_rq_time:\n  totals=1,0.1:4\n  intervals=\n  summary=P0(nan,1)\n"
    + "cluster.m-a.upstream_rq_time:\n  totals=0,0:2, 6,0.1:3, 30,1:1, 1200,100:1\n  intervals=6,0.1:1\n  summary=P0(6,0)\n"
)


def histogram(told: str) -> Histogram:
    return grown(parts(told), parts(""))


def test_an_answer_is_read() -> None:
    statistics = Statistics()
    assert statistics.read(TEXT) == {"m-a"}
    assert statistics.counts == {"m-a": Counters(answered=9, server_errors=3, resets=3, grpc_errors=3)}
    assert histogram(statistics.latency["m-a"]) == Histogram({0: 2, 6: 3, 30: 1, bucket_of(1250): 1})
    assert (statistics.uptime_seconds, statistics.rejected) == (77, 3)
    router = seen("r", True, statistics)
    assert (router.answered, router.route_version, router.healthy, router.active) == (True, 1795404757810, {"m-a": 2}, {"m-a": 1})
    assert seen("r", True, Statistics()).route_version == 0


def test_what_did_not_change_is_not_told_again() -> None:
    statistics = Statistics()
    statistics.read(TEXT)
    assert statistics.read(TEXT) == set()
    assert statistics.read(TEXT.replace("upstream_rq_active: 1", "upstream_rq_active: 0")) == set()
    assert statistics.active == {"m-a": 0}
    assert statistics.read(TEXT.replace("_5xx: 3", "_5xx: 4")) == {"m-a"}
    assert statistics.counts["m-a"].server_errors == 4
    assert statistics.read(HEAD) == {"m-a"}, "it is gone"
    assert (statistics.counts, statistics.latency, statistics.healthy) == ({}, {}, {})


def test_a_histogram_grows_by_what_differs() -> None:
    before = parts("0,0:2, 6,0.1:3, 30,1:1")
    assert grown(parts("0,0:2, 6,0.1:4, 7,0.1:1, 30,1:1"), before) == Histogram({6: 1, 7: 1})
    assert grown(before, before) == histogram("") == Histogram()
    for anew in ("", "0,0:2", "0,0:2, 6,0.1:2, 30,1:9"):
        with pytest.raises(ValueError, match=r"less than before|counted no more"):
            grown(parts(anew), before)


names = st.sampled_from(["upstream_rq_completed", "upstream_rq_5xx", "membership_healthy", "upstream_rq_active", "grpc.14"])
answers = st.dictionaries(st.tuples(st.sampled_from(["m-a", "m-b", "n-a"]), names), st.integers(0, 3), max_size=12).flatmap(
    lambda counts: st.dictionaries(st.sampled_from(["m-a", "m-b"]), st.integers(1, 3)).map(lambda times: text(counts, times))
)


def text(counts: dict[tuple[str, str], int], times: dict[str, int]) -> str:
    lines = [f"cluster.{revision}.{name}: {count}\n" for (revision, name), count in sorted(counts.items())]
    lines += [f"cluster.{name}.upstream_rq_time:\n  totals=5,0.1:{n}\n  intervals=\n  summary=\n" for name, n in times.items()]
    return HEAD + "".join(lines)


@given(st.lists(answers, max_size=5), answers)
def test_the_past_leaves_nothing_behind(before: list[str], last: str) -> None:
    used, new = Statistics(), Statistics()
    for answer in before:
        used.read(answer)
    was = dict(used.counts), used.latency
    changed = used.read(last)
    for of, now in zip(was, (used.counts, used.latency), strict=True):
        assert changed >= {revision for revision in of.keys() | now.keys() if of.get(revision) != now.get(revision)}
    new.read(last)
    for statistics in (used, new):
        statistics.counts = {revision: counts for revision, counts in statistics.counts.items() if any(counts)}
    assert seen("r", True, used) == seen("r", True, new)
    assert (used.counts, used.latency) == (new.counts, new.latency)
