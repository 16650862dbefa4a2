"""The simulator: its queues beside exact formulas, the peers beside what their sources say, and what a user sees of it."""

import math
from pathlib import Path

import numpy as np
import pytest
from tests.unit.test_scaling_queueing import erlang_c

from slipway.__main__ import main
from slipway.core.scaling.objective import Reason
from slipway.simulate import recorded, runs, shapes
from slipway.simulate.oracle import capacities
from slipway.simulate.peers import HpaCpu, KedaRps, Kpa
from slipway.simulate.policy import Slipway
from slipway.simulate.queueing import Balancing, OneQueue, OwnQueues, PodKind, Pods, Served
from slipway.simulate.replay import Goal, Meters, Outcome, Traffic, replay

KIND, GOAL = PodKind(), Goal()


def served(pods: Pods, count: int, load: float, services: list[float], seed: int = 1) -> Served:
    """Answer Poisson arrivals at a load (busy workers) of such services, whose mean is 1."""
    pods.resize(count, 0.0)
    gaps = np.random.default_rng(seed).exponential(1 / load, len(services))
    return pods.serve(np.cumsum(gaps).tolist(), services, math.inf)


def exponential(count: int) -> list[float]:
    return np.random.default_rng(2).exponential(1.0, count).tolist()


def waited(found: Served) -> float:
    return float(np.mean(np.array(found.began) - np.array(found.arrived)))


@pytest.mark.parametrize(("workers", "load"), [(1, 0.7), (2, 1.6), (8, 6.8)])
@pytest.mark.parametrize("own", [True, False])
def test_one_queue_waits_as_erlangs_formula_says(workers: int, load: float, own: bool) -> None:
    # A queue of its own, of the only pod, is one queue too.
    pods = OwnQueues(workers) if own else OneQueue(1)
    found = served(pods, 1 if own else workers, load, exponential(200_000))
    assert waited(found) == pytest.approx(erlang_c(workers, load) / (workers - load), rel=0.12)


def test_general_services_wait_as_pollaczek_and_khinchine_say() -> None:
    services = KIND.draw(200_000, np.random.default_rng(3)) / 0.04
    found = served(OwnQueues(1), 1, 0.8, services.tolist())
    assert waited(found) == pytest.approx(0.8 * (1 + KIND.service_cv**2) / 2 / 0.2, rel=0.1)


def test_the_better_requests_are_spread_the_shorter_they_wait() -> None:
    waits = [
        waited(served(pods, 8, 5.6, exponential(40_000)))
        for pods in (
            OneQueue(1),
            OwnQueues(1),
            OwnQueues(1, choices=2),
            OwnQueues(1, routers=2, choices=2),
            OwnQueues(1, choices=1),
        )
    ]
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(0.7 / 0.3, rel=0.15)  # at random: eight queues of their own


def test_a_pod_that_leaves_gets_nothing_new_and_finishes_what_it_has() -> None:
    for pods in (OwnQueues(1), OneQueue(1)):
        pods.resize(2, 0.0)
        first = pods.serve([0.0, 0.0], [5.0, 5.0], 1.0)
        assert first.ended == [5.0, 5.0]
        pods.resize(1, 1.0)
        assert pods.serve([2.0], [1.0], math.inf).began == [5.0]


def traffic(per_second: float, seconds: int, kind: PodKind = KIND, seed: int = 1) -> Traffic:
    draws = np.random.default_rng(seed)
    return Traffic.draw(draws.poisson(per_second, seconds), kind, draws)


class Fixed:
    name = "fixed"

    def __init__(self, *plan: tuple[int, int]) -> None:
        self.plan, self.seen = plan, list[tuple[int, int]]()

    def decide(self, meters: Meters, ready: int, ordered: int) -> int:
        self.seen.append((ready, ordered))
        return [replicas for at, replicas in self.plan if at <= len(meters.arrived)][-1]


def test_pods_are_ready_a_start_up_after_their_order_and_cost_from_the_order_on() -> None:
    scaler = Fixed((0, 4), (100, 9), (200, 3))
    outcome = replay(traffic(50, 300), scaler, KIND, GOAL, first=4)
    assert [ready for ready, _ in scaler.seen[118:122]] == [4, 4, 9, 9]
    assert outcome.ordered.tolist() == [4.0] * 100 + [9.0] * 100 + [3.0] * 100


@pytest.mark.parametrize("balancing", list(Balancing))
def test_meters_count_every_request_and_obey_littles_law(balancing: Balancing) -> None:
    meters = list[Meters]()

    class Watching(Fixed):
        def decide(self, meters_: Meters, ready: int, ordered: int) -> int:
            meters.append(meters_)
            return super().decide(meters_, ready, ordered)

    drawn = traffic(100, 900)
    outcome = replay(drawn, Watching((0, 8)), KIND, GOAL, first=8, balancing=balancing)
    seen = meters[-1]
    assert sum(seen.arrived) == len(drawn.arrivals) == sum(seen.ended) + seen.in_flight[-1] == outcome.arrived.sum()
    latency = np.concatenate(seen.latencies_ms)
    assert np.mean(seen.concurrency) == pytest.approx(len(drawn.arrivals) / 900 * np.mean(latency) / 1000, rel=0.02)
    assert np.mean(seen.busy) == pytest.approx(100 * 0.04, rel=0.03)
    assert outcome.slow.sum() == pytest.approx(np.sum(latency > 100), abs=30)


def test_capacity_grows_with_replicas_and_faster_than_they_do() -> None:
    found = capacities(KIND, GOAL, Balancing.LEAST_REQUEST, 1000, 8)
    by_pod = found / np.arange(1, 9)
    assert (np.diff(by_pod) > 0).all()
    assert by_pod[-1] < KIND.requests_per_second


def looked(scaler: HpaCpu | KedaRps | Kpa, ready: int, ordered: int, **values: float) -> int:
    """Answer what an autoscaler orders after ten minutes of the same, then one value."""
    meters = Meters()
    answer = ordered
    for _ in range(600):
        meters.arrived.append(round(values.get("rate", 0)))
        meters.ended.append(round(values.get("rate", 0)))
        meters.concurrency.append(values.get("concurrency", 0.0))
        meters.busy.append(values.get("busy", 0.0))
        meters.ready.append(ready)
        answer = scaler.decide(meters, ready, ordered)
    return answer


@pytest.mark.parametrize(
    ("scaler", "ready", "ordered", "values", "answer"),
    [
        (HpaCpu(KIND, 64), 10, 10, {"busy": 7.5}, 10),  # within the tolerance of 10%
        (HpaCpu(KIND, 64), 10, 10, {"busy": 9.0}, 13),  # ceil(10 * 0.9 / 0.7)
        (HpaCpu(KIND, 64), 10, 10, {"busy": 3.5}, 5),
        (HpaCpu(KIND, 64), 10, 12, {"busy": 9.0}, 12),  # those that start count as idle
        (HpaCpu(KIND, 11), 10, 10, {"busy": 9.0}, 11),
        (KedaRps(KIND, 64), 10, 10, {"rate": 180.0}, 10),
        (KedaRps(KIND, 64), 10, 10, {"rate": 300.0}, 18),  # ceil(300 / 17.5)
        (KedaRps(KIND, 64), 10, 10, {"rate": 900.0}, 20),  # 100% in 15 s at most
        (KedaRps(KIND, 64), 1, 1, {"rate": 900.0}, 5),  # or 4 pods
        (Kpa(KIND, 64), 10, 10, {"concurrency": 7.0}, 10),
        (Kpa(KIND, 64), 10, 10, {"concurrency": 8.0}, 12),  # ceil(8 / 0.7)
        (Kpa(KIND, 64), 10, 10, {"concurrency": 1.0}, 5),  # halved at most
        (Kpa(KIND, 64), 10, 10, {"concurrency": 14.0}, 20),  # panic
    ],
)
def test_peers_do_what_their_sources_say(
    scaler: HpaCpu | KedaRps | Kpa, ready: int, ordered: int, values: dict[str, float], answer: int
) -> None:
    assert looked(scaler, ready, ordered, **values) == answer


def test_kpa_panics_at_twice_its_target_and_keeps_what_it_ordered_for_a_stable_window() -> None:
    scaler, meters, answers = Kpa(KIND, 64), Meters(), list[int]()
    for concurrency in [7.0] * 120 + [15.0] * 6 + [7.0] * 120:
        meters.arrived.append(0)
        meters.concurrency.append(concurrency)
        answers.append(scaler.decide(meters, 10, answers[-1] if answers else 10))
    assert answers[119] == 10
    assert answers[126:180] == [22] * 54  # ceil(15 / 0.7), though the minute's mean asks for 12
    assert answers[-1] == 10


class Followed(Slipway):
    """The policy, and every reason it gave."""

    def __init__(self, kind: PodKind) -> None:
        super().__init__(kind, 64, GOAL)
        self.reasons = set[Reason]()

    def decide(self, meters: Meters, ready: int, ordered: int) -> int:
        answer = super().decide(meters, ready, ordered)
        if self.decision is not None:
            self.reasons.add(self.decision.reason)
        return answer


def test_the_policy_keeps_a_steady_load_near_the_oracles_size_without_swinging() -> None:
    found = list(runs.outcomes(runs.Setting("steady", 1800, autoscalers=("slipway",)), 7))
    scores = runs.scores(found)
    assert scores[1].slow < 0.01
    assert scores[1].hours < 1.3
    late = found[1].ordered[900:]
    assert late.max() - late.min() <= 1


def test_the_policy_learns_that_a_pod_serves_several_at_once() -> None:
    kind = PodKind(workers=8)
    outcome = replay(traffic(200, 2400, kind), Slipway(kind, 64, GOAL), kind, GOAL, first=12)
    assert outcome.ordered[-300:].mean() < 5  # with one worker each it would be 11
    assert outcome.slow_share < 0.01


def slowed(kind: PodKind, factor: float) -> tuple[Followed, Outcome]:
    drawn = traffic(60, 1800, kind)
    drawn.services[(drawn.arrivals > 600) & (drawn.arrivals < 1500)] *= factor
    scaler = Followed(kind)
    return scaler, replay(drawn, scaler, kind, GOAL, first=6)


def test_a_slow_store_behind_the_pods_is_not_met_with_more_of_them() -> None:
    before_most = 6
    scaler, outcome = slowed(PodKind(workers=100), 5)  # waiting, not working: a pod does it a hundred times at once
    assert Reason.MORE_REPLICAS_DO_NOT_HELP in scaler.reasons
    assert outcome.ordered.max() <= before_most * 1.5
    assert outcome.ordered[-1] <= before_most


def test_slower_work_is_met_with_more_pods() -> None:
    _, outcome = slowed(PodKind(workers=1, service_ms=20), 2.5)
    assert outcome.ordered[1000:1500].mean() > 1.5 * outcome.ordered[500:600].mean()
    assert outcome.latency_ms[18:24].max() < 100  # from the eighth minute of it on


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_shapes_have_the_mean_they_are_asked_for_and_differ_by_seed(shape: str) -> None:
    found = [shapes.SHAPES[shape](7200, 100.0, np.random.default_rng(seed)) for seed in range(6)]
    assert np.mean(found) == pytest.approx(100, rel=0.25)
    assert all((rates > 0).all() and len(rates) == 7200 for rates in found)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("time,count\n0,10\n5,20\n10,0\n", [2, 2, 2, 2, 2, 4, 4, 4, 4, 4, 0, 0, 0, 0, 0]),
        ("2026-01-01T00:00:00Z,3\n2026-01-01T00:00:02Z,1\n", [2, 1, 0, 1]),
        ("12.5\n10.0\n\n# noted\n10.9\n", [2, 0, 1]),
    ],
)
def test_recorded_arrivals_are_read(tmp_path: Path, text: str, counts: list[int]) -> None:
    path = tmp_path / "arrivals.csv"
    path.write_text(text)
    found = recorded.read(path)
    assert found.sum() == sum(counts)
    assert np.abs(np.cumsum(found) - np.cumsum(counts)).max() <= 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0,10\n5,abc\n", "arrivals.csv:2: '5,abc' is no time, or time and count"),
        ("0,10\n0,10\n", "arrivals.csv:2: 0 is not after the line before"),
        ("0,10\n5,-1\n", "arrivals.csv:2: the count -1 is below 0"),
        ("0,10\n5\n", "arrivals.csv:2: 1 columns"),
        ("0,1\n", "has 1 lines of arrivals; two are the least"),
        ("0,1\n9000000,1\n", "14 are the most"),
        ("0,1\n600,nan\n", "arrivals.csv:2: '600,nan' is no time"),
        ("0,1\n600,1\n", "more than 600 are needed"),
    ],
)
def test_a_file_that_cannot_be_replayed_is_named_with_its_line(
    tmp_path: Path, text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "arrivals.csv"
    path.write_text(text)
    if "600," in text:
        path.write_text(text.replace("600,1", "300,1"))
    assert main(["simulate", "--file", str(path)]) == 2
    assert says in capsys.readouterr().err


def test_a_user_gets_a_table_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "arrivals.csv"
    path.write_text("\n".join(f"{time},{600 if time < 800 else 1800}" for time in range(0, 1200, 20)))
    picture = tmp_path / "out.png"
    assert main(["simulate", "--file", str(path), "--max", "20", "--plot", str(picture), "--autoscalers", "slipway,kpa"]) == 0
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()[1:]] == ["oracle", "Slipway", "KPA"]
    assert "Slipway done" in said.err
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--autoscalers", "vpa"], "'vpa' is none of slipway, hpa, keda, kpa"),
        (["--plot", "x.gif"], "must end in .png or .svg"),
        (["--rate", "-1"], "must be above 0"),
        (["--percentile", "100"], "--percentile must be below 100"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["simulate", *words])
    assert says in capsys.readouterr().err
