"""One replay drawn: arrivals, replicas, latency and violations over time, an autoscaler a colour."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from slipway.simulate.queueing import Numbers
from slipway.simulate.replay import WARM_UP_SECONDS, WINDOW_SECONDS, Outcome

mpl.use("Agg")

import matplotlib.pyplot as plt

_COLOURS = {"oracle": "#888888", "Slipway": "#0072b2", "HPA cpu 70%": "#d55e00", "KEDA rps 70%": "#e69f00", "KPA 0.7": "#009e73"}


def draw(outcomes: Sequence[Outcome], title: str, path: Path) -> None:
    """Write the picture; its kind follows the file's name (.png, .svg)."""
    figure, (rate, replicas, latency, slow) = plt.subplots(
        4, 1, sharex=True, figsize=(9, 8), height_ratios=(1, 2, 1.4, 1.2), layout="constrained"
    )
    figure.suptitle(title, fontsize=11)
    goal = outcomes[0].goal
    minutes = np.arange(len(outcomes[0].latency_ms)) * WINDOW_SECONDS / 60
    times = np.arange(0, len(outcomes[0].ordered), 10) / 60
    rate.plot(times, _tens(outcomes[0].arrived), color="black", linewidth=0.8)
    rate.set_ylabel("requests/s")
    for outcome in outcomes:
        line = {
            "color": _COLOURS.get(outcome.name),
            "label": outcome.name,
            "linewidth": 1.6 if outcome.name == "Slipway" else 1.0,
        }
        replicas.step(times, outcome.ordered[::10], where="post", **line)
        latency.step(minutes, outcome.latency_ms, where="post", **line)
        over = np.cumsum(outcome.slow)[::10] / max(outcome.arrived.sum(), 1) * 100
        slow.plot(times, over, **line)
    replicas.set_ylabel("replicas ordered")
    replicas.legend(fontsize=8, ncols=5, loc="upper left")
    replicas.set_ylim(0, max(max(float(each.ordered.max()) for each in outcomes) * 1.2, 4))
    latency.axhline(goal.latency_ms, color="red", linewidth=0.8, linestyle=":")
    latency.set_yscale("log")
    latency.set_ylabel(f"p{goal.percentile:g} ms, by minute")
    slow.set_ylabel(f"% slower than\n{goal.latency_ms:g} ms, so far")
    slow.set_xlabel("minutes (grey: warm-up, not scored)")
    for axis in (rate, replicas, latency, slow):
        axis.axvspan(0, WARM_UP_SECONDS / 60, color="#eeeeee", zorder=0)
        axis.grid(alpha=0.3)
        axis.set_xlim(0, times[-1])
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _tens(values: Numbers) -> Numbers:
    """Answer the means of ten seconds each; of those that are left over, of as many."""
    starts = np.arange(0, len(values), 10)
    return np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values)))
