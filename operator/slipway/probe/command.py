"""`python -m slipway compare`: run the comparer of one rollout."""

import argparse
import asyncio
import re
from collections.abc import Sequence

import uvloop

from slipway import health, logs, process
from slipway.core.agreement import Rule
from slipway.manifests.comparer import METRICS_PORT, PORT
from slipway.probe.comparer import INFERENCE_PATHS, PARALLEL, Comparer, serve
from slipway.probe.counts import Counts
from slipway.probe.pairs import Pairs, Targets, open_session

_DRAIN_SECONDS = 5.0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command's flags."""
    parser = argparse.ArgumentParser(
        prog="python -m slipway compare",
        description="Takes copies of live requests, has both revisions answer them, and counts how many answers agree.",
    )
    parser.add_argument("--stable", required=True, help="URL of the stable revision's pods")
    parser.add_argument("--stable-revision", required=True, help="its name")
    parser.add_argument("--candidate", required=True, help="URL of the routers, which count what the candidate answers")
    parser.add_argument("--candidate-host", required=True, help="the name under which they reach the candidate alone")
    parser.add_argument("--candidate-revision", required=True, help="its name")
    rule = parser.add_mutually_exclusive_group()
    rule.add_argument("--tolerance", type=_tolerance, default=0.001,
                      help="how far numbers may differ, absolute below 1 and relative above (default: %(default)s)")  # fmt: skip
    rule.add_argument(
        "--labels", action="store_true", help="compare the labels instead: integers and texts, else the largest scores"
    )
    parser.add_argument("--paths", type=_pattern, default=INFERENCE_PATHS,
                        help="regular expression of the paths whose POST requests are compared: such as may be run twice "
                        "(default: %(default)s)")  # fmt: skip
    parser.add_argument("--timeout-seconds", type=float, default=30.0, help="how long a request may take (default: %(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="port of the copies (default: %(default)s)")
    process.add_flags(parser, metrics_port=METRICS_PORT)
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run the comparer until it is told to stop. Answers the exit code."""
    flags = parse(argv)
    logs.configure(flags.log_format, "info")
    uvloop.run(_run(flags))
    return 0


async def _run(flags: argparse.Namespace) -> None:
    stop = asyncio.Event()
    process.end_on_signals(stop)
    counts = Counts(flags.stable_revision, flags.candidate_revision)
    targets = Targets(flags.stable, flags.candidate, flags.candidate_host, flags.candidate_revision)
    async with open_session(PARALLEL) as session:
        comparer = Comparer(
            Pairs(session, targets, Rule(flags.tolerance, flags.labels), flags.timeout_seconds), counts, flags.paths
        )
        copies = await serve(comparer, flags.port)
        metrics = await health.serve(flags.metrics_port, counts.registry, lambda: True, lambda: not stop.is_set())
        comparing = asyncio.create_task(comparer.run())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({comparing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await comparer.drain(_DRAIN_SECONDS)
        comparing.cancel()
        await asyncio.wait({comparing})
        await copies.cleanup()
        await metrics.cleanup()


def _tolerance(text: str) -> float:
    value = float(text)
    if not 0 <= value < 2:
        raise argparse.ArgumentTypeError(f"{text} is no tolerance: numbers are 2 apart at the most; write one such as 0.001")
    return value


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"not a regular expression: {error}") from None
    return text
