"""tests/faults/run: what the operator does when it is killed, when the API server fails, and when another leads beside it."""

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path

from tests.bench.clusters import cluster
from tests.faults import bugs, tell
from tests.faults.bugs import Bug
from tests.faults.campaign import FAMILIES, Book, Campaign, Case, Result, cases, report, sample
from tests.faults.fault import Fault
from tests.faults.history import History
from tests.faults.plane import Plane
from tests.faults.replica import Zygote
from tests.faults.scenarios import SCENARIOS

from slipway_dev import state

_ROOT = Path(__file__).resolve().parents[2]
# A seeded bug that needs chance is given as many; and whoever waits in vain for it need not wait long.
_TRIES, _BUG_SECONDS = 3, 40.0
DESCRIPTION = """\
Run scenarios under faults against a real control plane, and tell what was broken of what must always hold.

Without --fault every fault of the plan is tried: every write of every scenario by three kills and by every refusal, stale lists,
watch events lost, late and out of order, 500 random kills and 50 hand-overs of the Lease. That takes hours; --results FILE keeps
the plan and what was done, and goes on from it: a changed operator needs a new one. --sample COUNT takes some of all, always the
same ones by --seed.
"""


def parse(words: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="tests/faults/run", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), help="default: all", metavar="NAME")
    parser.add_argument("--fault", action="append", type=Fault.parse, default=[], help="ACTION:VERB:KIND:NUMBER, again for more")
    parser.add_argument("--again", type=int, default=1, help="how often the faults given are tried")
    parser.add_argument("--trace", action="store_true", help="tell all that happened in a run that broke something")
    parser.add_argument("--sample", type=int, help="so many cases instead of all")
    parser.add_argument("--seed", type=int, default=1, help="of the sample and the random kills (default: %(default)s)")
    parser.add_argument("--side-by-side", type=int, default=4, help="runs at a time (default: %(default)s)")
    parser.add_argument("--results", type=Path, help="keep each result in this file, and go on from those in it")
    parser.add_argument("--report", type=Path, help="write the report to this file, as Markdown")
    parser.add_argument("--operator", type=Path, default=_ROOT / "operator", help="folder of the source, with crds beside it")
    parser.add_argument(
        "--bugs", nargs="*", metavar="BUG", help="see that the seeded bugs (tests/faults/bugs) are found: all, or these"
    )
    parser.add_argument("--cluster", default="slipway-faults", help="name of the control plane (default: %(default)s)")
    return parser.parse_args(words)


async def main(options: argparse.Namespace) -> int:
    """Run what is asked for. Answers how many cases broke something."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slipway-faults-")))
        running = state.load(options.cluster) or stack.enter_context(cluster(options.cluster, "--control-plane-only"))
        plane = await stack.enter_async_context(Plane(running, options.operator.parent / "crds", folder, options.seed))
        zygote = await stack.enter_async_context(Zygote(options.operator))
        campaign = Campaign(plane, zygote, options.side_by_side)
        if options.bugs is not None:
            return await _catch(
                campaign, [bug for bug in bugs.every() if bug.name in (options.bugs or [bug.name])], options.operator
            )
        print(f"{len(options.scenario)} scenarios without faults, to know where they end", flush=True)
        bad = await campaign.learn(options.scenario)
        for name, outcome, history in bad:
            _say(Result(Case("none", name, ()), 0, tuple(outcome.violations), outcome.seconds), history, trace=options.trace)
        for path in filter(None, (options.results, options.report)):
            path.parent.mkdir(parents=True, exist_ok=True)
        book = Book(options.results or folder / "results")
        every = list(cases(campaign.references, options.seed))
        if options.fault:
            chosen = every = [Case("given", name, tuple(options.fault)) for name in options.scenario] * options.again
        elif options.sample:
            chosen = sample(every, options.sample, options.seed)
        else:
            chosen = every = [case for case in book.keep(every) if case.scenario in options.scenario]
        left = [case for case in chosen if str(case) not in book.results]
        if not options.sample and not options.fault:
            random.Random(options.seed).shuffle(left)  # noqa: S311 - the same order each time
            left.sort(key=lambda case: FAMILIES.index(case.family))
        print(f"{len(left)} cases left of {_counted(chosen)}", flush=True)
        async for result, history in campaign.results(left):
            book.add(result)
            _say(result, history, trace=options.trace)
        done = [book.results[str(case)] for case in dict.fromkeys(chosen)]
        text = report(done, Counter(case.family for case in every))
        print(text)
        if options.report:
            options.report.write_text(text + "\n")
        return len(bad) + sum(bool(result.violations) for result in done)


async def _catch(campaign: Campaign, seeded: list[Bug], operator: Path) -> int:
    """Run each bug's case with the bug in the operator. Answer how many were not caught."""
    asked = {bug: parse(list(bug.case)) for bug in seeded}
    await campaign.learn(dict.fromkeys(name for options in asked.values() for name in options.scenario))
    escaped: list[Bug] = []

    async def catch(bug: Bug, options: argparse.Namespace) -> None:
        case = Case("bug", options.scenario[0], tuple(options.fault))
        with tempfile.TemporaryDirectory(prefix="slipway-faults-") as name:
            shutil.copytree(operator, Path(name) / "operator", ignore=shutil.ignore_patterns("__pycache__"))
            bug.plant(Path(name))
            async with Zygote(Path(name) / "operator") as zygote:
                violations: tuple[str, ...] = ()
                for _ in range(_TRIES):
                    violations = (await campaign.one(case, zygote, _BUG_SECONDS))[0].violations
                    if bug.caught(violations):
                        break
                else:
                    escaped.append(bug)
        found = " ".join(dict.fromkeys(said.partition(":")[0] for said in violations))
        print(f"{'ESCAPED' if bug in escaped else 'caught'} {bug.name} by {found}: {'; '.join(violations)[:300]}", flush=True)

    await campaign.side_by_side((options.scenario[0], catch(bug, options)) for bug, options in asked.items())
    return len(escaped)


def _counted(chosen: Iterable[Case]) -> str:
    by_family = Counter(case.family for case in chosen)
    return f"{by_family.total()} ({', '.join(f'{count} {family}' for family, count in by_family.items())})"


def _say(result: Result, history: History, *, trace: bool) -> None:
    print(f"{'BROKEN' if result.violations else 'ok':6} {result.seconds:5.1f} s {result.case}", flush=True)
    for said in result.violations:
        print(f"    {said}")
    if trace and result.violations:
        print("\n".join(tell.lines(history)))


if __name__ == "__main__":
    # Whatever ends it, the processes that it started end too; a shell starts what is in the background deaf to SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    sys.exit(min(asyncio.run(main(parse(sys.argv[1:]))), 1))
