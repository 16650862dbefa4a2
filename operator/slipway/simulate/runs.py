"""Many replays: every autoscaler on draws of workloads, and what came of them beside the oracle."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from slipway.simulate import oracle, shapes
from slipway.simulate.peers import HpaCpu, KedaRps, Kpa
from slipway.simulate.policy import Slipway
from slipway.simulate.queueing import Balancing, PodKind
from slipway.simulate.replay import WARM_UP_SECONDS, Autoscaler, Goal, Outcome, Traffic, replay

# By name: what makes the autoscaler of a kind of pod, a largest number of replicas and a goal.
AUTOSCALERS: dict[str, Callable[[PodKind, int, Goal], Autoscaler]] = {
    "slipway": Slipway,
    "hpa": lambda kind, most, goal: HpaCpu(kind, most),
    "keda": lambda kind, most, goal: KedaRps(kind, most),
    "kpa": lambda kind, most, goal: Kpa(kind, most),
}


@dataclass(frozen=True)
class Setting:
    """What is simulated: a made-up workload (`seconds` after the warm-up, `mean` requests a second), pods, the goal, limits."""

    shape: str = "steady"
    seconds: int = 7200
    mean: float = 100.0
    kind: PodKind = field(default_factory=PodKind)
    goal: Goal = field(default_factory=Goal)
    maximum: int = 64
    balancing: Balancing = Balancing.LEAST_REQUEST
    autoscalers: tuple[str, ...] = tuple(AUTOSCALERS)


@dataclass(frozen=True)
class Score:
    """One autoscaler on one draw: share of slow requests, share of minutes violated, replica-hours by the oracle's."""

    name: str
    slow: float
    windows: float
    hours: float


def traffic(setting: Setting, seed: int, recorded: npt.NDArray[np.int64] | None = None) -> Traffic:
    """Draw the workload of a seed; recorded arrivals are the same for every seed, but for where in their second they lie."""
    draws = np.random.default_rng([seed, 1])
    if recorded is not None:
        return Traffic.draw(recorded, setting.kind, draws)
    rates = shapes.SHAPES[setting.shape](setting.seconds + WARM_UP_SECONDS, setting.mean, draws)
    return Traffic.draw(shapes.draw(rates, draws), setting.kind, draws)


def outcomes(setting: Setting, seed: int, recorded: npt.NDArray[np.int64] | None = None) -> Iterator[Outcome]:
    """Yield what came of one draw: first the oracle, then each autoscaler. All begin with the oracle's replicas."""
    drawn = traffic(setting, seed, recorded)
    best = oracle.plan(drawn, setting.kind, setting.goal, setting.balancing, setting.maximum)
    makers = [AUTOSCALERS[name] for name in setting.autoscalers]
    for scaler in (best, *(make(setting.kind, setting.maximum, setting.goal) for make in makers)):
        yield replay(drawn, scaler, setting.kind, setting.goal, first=best.first, balancing=setting.balancing, seed=seed)


def scores(found: Iterable[Outcome]) -> list[Score]:
    """Answer the scores of one draw's outcomes, the oracle's first."""
    all_found = list(found)
    hours = all_found[0].replica_hours
    return [Score(each.name, each.slow_share, each.windows_violated, each.replica_hours / hours) for each in all_found]


def averages(draws: Sequence[list[Score]]) -> list[Score]:
    """Answer the means over draws, by autoscaler."""

    def mean(values: Iterable[float]) -> float:
        return float(np.mean(list(values)))

    return [
        Score(
            many[0].name, mean(each.slow for each in many), mean(each.windows for each in many), mean(each.hours for each in many)
        )
        for many in zip(*draws, strict=True)
    ]


def _score(task: tuple[Setting, int]) -> list[Score]:
    return scores(outcomes(*task))


def sweep(
    settings: Sequence[Setting], seeds: int, processes: int, say: Callable[[str], None], first_seed: int = 0
) -> list[list[Score]]:
    """Answer the mean scores of each setting over so many seeds, and tell of each that is done."""
    kept = list[list[Score]]()
    with ProcessPoolExecutor(processes) as pool:
        tasks = [(setting, seed) for setting in settings for seed in range(first_seed, first_seed + seeds)]
        done = pool.map(_score, tasks)
        for setting in settings:
            kept.append(averages([next(done) for _ in range(seeds)]))
            say(f"{setting.shape}, start-up {setting.kind.start_seconds:g} s: {seeds} seeds done")
    return kept
