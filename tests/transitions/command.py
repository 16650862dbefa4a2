"""tests/transitions/run: many sequences of changes, simulated or on a real control plane."""

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
import traceback
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from tests.bench.clusters import cluster
from tests.faults.plane import Plane
from tests.faults.replica import Zygote
from tests.transitions import live, simulated
from tests.transitions.specs import Change, sequences

_ROOT = Path(__file__).resolve().parents[2]
DESCRIPTION = """\
Change a ModelDeployment's spec again and again, by sequences drawn from the CRD's own schema: right ones, many at a limit,
and wrong ones. Each must end in the state that a fresh apply of the last spec gives; a wrong one must leave what serves
untouched, and taking it back must recover.

  simulated  around the reconciler alone, in simulated time
  live       on a real control plane of its own (hack/cluster --control-plane-only), pods and routers stood in for

The exit status is 1 where a sequence fails; what failed is printed, of a simulated one the smallest that does.
"""


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        prog="tests/transitions/run", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("where", choices=("simulated", "live"))
    parser.add_argument("--sequences", type=int, help="how many (default: 2000 simulated, 300 live)")
    parser.add_argument("--seed", type=int, default=0, help="which (default: %(default)s)")
    parser.add_argument("--parallel", type=int, default=6, help="how many at once, of live (default: %(default)s)")
    options = parser.parse_args()
    if options.where == "simulated":
        _simulated(options.sequences or 2000, options.seed)
    else:
        found = drawn(options.sequences or 300, options.seed)
        sys.exit(asyncio.run(on_a_control_plane(found, options.parallel, "slipway-transitions")))


def drawn(count: int, number: int) -> list[list[Change]]:
    """Answer so many sequences for a control plane, the same for the same number."""
    found: list[list[Change]] = []

    @seed(number)
    @settings(max_examples=count, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), deadline=None)
    @given(sequences(live.LIVE))
    def take(changes: list[Change]) -> None:
        found.append(changes)

    take()
    return found


def _simulated(count: int, number: int) -> None:
    begun = time.monotonic()
    made = 0

    @seed(number)
    @settings(max_examples=count, database=None, suppress_health_check=list(HealthCheck), deadline=None)
    @given(sequences())
    def every(changes: list[Change]) -> None:
        nonlocal made
        made += 1
        simulated.check(changes)

    every()
    print(f"{made} sequences in {time.monotonic() - begun:.0f} s: each ended as a fresh apply does")


async def on_a_control_plane(found: list[list[Change]], parallel: int, name: str) -> int:
    """Make the sequences, some at once, on a control plane of that name. Answer 1 where one failed, else 0."""
    begun, failed, waiting = time.monotonic(), 0, list(enumerate(found))
    with cluster(name, "--control-plane-only") as control, tempfile.TemporaryDirectory() as folder:
        async with (
            Plane(control, _ROOT / "crds", Path(folder), secrets.randbits(32)) as plane,
            Zygote(_ROOT / "operator") as zygote,
        ):

            async def work() -> None:
                nonlocal failed
                while waiting:
                    number, changes = waiting.pop(0)
                    try:
                        await live.check(plane, zygote, changes, str(number))
                    except Exception:
                        failed += 1
                        print(f"sequence {number}: {changes}\n{traceback.format_exc(limit=-3)}", flush=True)
                    if not len(waiting) % 20:
                        print(f"{len(waiting)} to go after {time.monotonic() - begun:.0f} s, {failed} failed", flush=True)

            await asyncio.gather(*(work() for _ in range(parallel)))
    changes = sum(map(len, found))
    wrong = sum(not change.right for each in found for change in each)
    print(f"{len(found)} sequences of {changes} changes ({wrong} wrong) in {time.monotonic() - begun:.0f} s: {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    main()
