"""Autoscalers on made-up arrivals, by simulation: violations and replica-hours beside an oracle's."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

from tests.bench.table import grid, say

from slipway.simulate.policy import Slipway
from slipway.simulate.queueing import Balancing, PodKind
from slipway.simulate.replay import Autoscaler, Meters, replay
from slipway.simulate.runs import Score, Setting, sweep, traffic

SHAPES = ("steady", "step", "ramp", "spikes", "diurnal", "twitter", "mmpp")
STARTS = (20, 60)
# None of the seeds with which the policy's constants were chosen.
FIRST_SEED = 1000
GOALS = {"twitter": (0.008, 1.4), "mmpp": (0.03, 1.8)}
# Within so much of KPA's figure a score is not behind it: between them lies chance.
_BEHIND = 1.1


def tables(seeds: int, processes: int, shapes: Sequence[str], balancing: Balancing) -> list[str]:
    """Answer the table, and where Slipway is ahead of KPA or behind, as Markdown."""
    base = Setting(balancing=balancing)
    settings = [replace(base, shape=shape, kind=PodKind(start_seconds=start)) for shape in shapes for start in STARTS]
    found = sweep(settings, seeds, processes, say, FIRST_SEED)
    names = [score.name for score in found[0]]
    cells = [("arrivals", "start-up", *names)]
    for setting, scores in zip(settings, found, strict=True):
        cells.append((setting.shape, f"{setting.kind.start_seconds:g} s", *map(_told, scores)))
    title = f"### Scaling, simulated: {seeds} seeds, {base.seconds // 3600} h each, {balancing}"
    notes = "% of requests over 100 ms / % of minutes with a p95 over it / replica-hours by the oracle's."
    verdicts = ["### Beside KPA, and the goals", ""]
    verdicts += [f"- {_verdict(setting, scores)}" for setting, scores in zip(settings, found, strict=True)]
    return ["\n".join([title, "", *grid(cells), "", notes]), "\n".join(verdicts)]


def decision_microseconds(setting: Setting, looks: int = 1500) -> float:
    """Answer the CPU time of one decision on a busy revision, the simulator's making of its figures included."""
    spent = 0.0

    class Timed(Slipway):
        def decide(self, meters: Meters, ready: int, ordered: int) -> int:
            nonlocal spent
            began = time.process_time()
            wanted = super().decide(meters, ready, ordered)
            spent += time.process_time() - began
            return wanted

    scaler: Autoscaler = Timed(setting.kind, setting.maximum, setting.goal)
    drawn = traffic(replace(setting, seconds=2 * looks), FIRST_SEED)
    replay(drawn, scaler, setting.kind, setting.goal, first=6)
    return spent / (drawn.seconds / 2) * 1e6


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, simulate, print."""
    parser = argparse.ArgumentParser(prog="tests/bench/run scaling", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="draws of each workload (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=SHAPES, metavar="SHAPE", help=", ".join(SHAPES))
    parser.add_argument(
        "--balancing", type=Balancing, choices=tuple(Balancing), default=Balancing.LEAST_REQUEST, help="(default: %(default)s)"
    )
    options = parser.parse_args(words)
    for text in tables(options.seeds, options.jobs, options.shapes, options.balancing):
        print(f"\n{text}", flush=True)
    cost = decision_microseconds(Setting("twitter"))
    print(f"\nOne decision of the policy: {cost:.0f} us of CPU, with that of making its histogram. It is asked every 2 s.")


def _told(score: Score) -> str:
    return f"{score.slow:.2%} / {score.windows:.1%} / {score.hours:.2f}"


def _verdict(setting: Setting, scores: list[Score]) -> str:
    mine, peer = (next(score for score in scores if score.name == name) for name in ("Slipway", "KPA 0.7"))
    words = []
    for what, own, other in (("violations", mine.slow, peer.slow), ("replica-hours", mine.hours, peer.hours)):
        place = "ahead" if own <= other else "within 10%" if own <= _BEHIND * other else "behind"
        words.append(f"{what} {place} ({own / other:.2f} of KPA's)")
    goal = GOALS.get(setting.shape) if setting.kind.start_seconds == STARTS[0] else None
    if goal is not None:
        met = mine.slow <= goal[0] and mine.hours <= goal[1]
        words.append(f"goal {goal[0]:.1%} at {goal[1]:g} {'met' if met else 'missed'}")
    return f"{setting.shape}, {setting.kind.start_seconds:g} s: " + ", ".join(words)
