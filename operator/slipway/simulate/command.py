"""The command line of `slipway simulate`."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from slipway.simulate import recorded, runs, shapes
from slipway.simulate.queueing import Balancing, PodKind
from slipway.simulate.replay import WARM_UP_SECONDS, Goal

_DESCRIPTION = """\
Replay arrivals through Slipway's scaling policy, beside HPA, KEDA and Knative's KPA with their default configurations, and an
oracle that knows the arrivals of the next start-up time. Every request is simulated. Prints a table of

  slow      the share of requests slower than the latency objective
  minutes   the share of one-minute windows in which the objective's percentile is over it
  hours     replica-hours, starting ones included, by the oracle's

over all but the first ten minutes.
"""
_SHAPES = "\n".join(f"  {name:9} {(shape.__doc__ or '').splitlines()[0]}" for name, shape in shapes.SHAPES.items())
_FILE = """
FILE is CSV: a line for each interval with its beginning and its count of requests, or a line for each request with its time.
Times are seconds or RFC 3339.
"""


def _above(low: float, kind: type[float] | type[int] = float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
        if not low < value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be above {low:g}")
        return value

    return read


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in runs.AUTOSCALERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(runs.AUTOSCALERS)}")
    return names


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in (".png", ".svg"):
        raise argparse.ArgumentTypeError(f"{text!r} must end in .png or .svg")
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.absolute().parent}")
    return path


def parser() -> argparse.ArgumentParser:
    """Answer the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="slipway simulate",
        description=_DESCRIPTION,
        epilog=f"shapes:\n{_SHAPES}\n{_FILE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arrivals = top.add_argument_group("arrivals").add_mutually_exclusive_group()
    arrivals.add_argument("--shape", choices=tuple(shapes.SHAPES), default="twitter", help="made up (default: %(default)s)")
    arrivals.add_argument("--file", type=Path, metavar="FILE", help="recorded, see below")
    made = top.add_argument_group("made-up arrivals")
    made.add_argument("--rate", type=_above(0), default=100.0, metavar="N", help="mean requests a second (default: 100)")
    made.add_argument("--minutes", type=_above(0), default=120.0, metavar="N", help="after the warm-up (default: 120)")
    made.add_argument(
        "--seeds", type=_above(0, int), default=1, metavar="N", help="how many draws the table averages (default: 1)"
    )
    pod = top.add_argument_group("pods")
    pod.add_argument("--service", type=_above(0), default=40.0, metavar="MS", help="mean time to serve a request (default: 40)")
    pod.add_argument(
        "--spread", type=_above(-1e-9), default=0.3, metavar="CV", help="its coefficient of variation (default: 0.3)"
    )
    pod.add_argument("--workers", type=_above(0, int), default=1, metavar="N", help="requests at the same time (default: 1)")
    pod.add_argument("--start", type=_above(0), default=20.0, metavar="S", help="from order to ready (default: 20)")
    pod.add_argument("--max", type=_above(0, int), default=64, metavar="N", help="replicas at most (default: 64)")
    pod.add_argument(
        "--balancing",
        type=Balancing,
        choices=tuple(Balancing),
        default=Balancing.LEAST_REQUEST,
        help="the pod with the fewest requests; two routers that each choose between two pods; one queue (default: %(default)s)",
    )
    goal = top.add_argument_group("objective")
    goal.add_argument("--latency", type=_above(0), default=100.0, metavar="MS", help="(default: 100)")
    goal.add_argument("--percentile", type=_above(0), default=95.0, metavar="P", help="below 100 (default: 95)")
    top.add_argument("--autoscalers", type=_names, default=tuple(runs.AUTOSCALERS), metavar="A,B", help="slipway,hpa,keda,kpa")
    top.add_argument("--plot", type=_picture, metavar="FILE", help="draw the first draw into a .png or .svg")
    top.add_argument("--jobs", type=_above(0, int), default=2, metavar="N", help="processes, for several seeds (default: 2)")
    return top


def table(found: Sequence[runs.Score]) -> str:
    """Answer the scores as text."""
    lines = [f"{'':14} {'slow':>7} {'minutes':>8} {'hours':>6}"]
    lines += [f"{each.name:14} {each.slow:7.2%} {each.windows:8.1%} {each.hours:6.2f}" for each in found]
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """Simulate, and answer the exit code."""
    top = parser()
    options = top.parse_args(words)
    if options.percentile >= 100:
        top.error("--percentile must be below 100")
    kind = PodKind(options.service, options.spread, int(options.workers), options.start)
    setting = runs.Setting(
        options.shape,
        int(options.minutes * 60),
        options.rate,
        kind,
        Goal(options.latency, options.percentile),
        int(options.max),
        options.balancing,
        options.autoscalers,
    )
    began = time.monotonic()

    def say(message: str) -> None:
        print(f"[{time.monotonic() - began:5.0f}s] {message}", file=sys.stderr, flush=True)

    try:
        counts = recorded.read(options.file) if options.file is not None else None
        if counts is not None and len(counts) <= WARM_UP_SECONDS:
            raise recorded.RecordError(
                f"{options.file} spans {len(counts)} s; more than {WARM_UP_SECONDS} are needed, which are not scored"
            )
        say("finding what replicas can serve")
        found = list[runs.Outcome]()
        for outcome in runs.outcomes(setting, 0, counts):
            say(f"{outcome.name} done")
            found.append(outcome)
        told = runs.scores(found)
        if counts is None and options.seeds > 1:
            told = runs.sweep([setting], int(options.seeds), int(options.jobs), say)[0]
        print(table(told))
        if options.plot is not None:
            from slipway.simulate import plot

            what = options.file.name if options.file is not None else options.shape
            plot.draw(found, f"{what}, start-up {kind.start_seconds:g} s, {kind.service_ms:g} ms a request", options.plot)
            say(f"drawn: {options.plot}")
    except recorded.RecordError as error:
        print(f"slipway simulate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0
