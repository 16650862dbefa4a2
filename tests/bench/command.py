"""tests/bench/run: figures of Slipway on this machine, beside their goals and what others need."""

import argparse
import sys
from pathlib import Path

import uvloop
from tests.bench import (
    ab_simulation,
    aborts,
    control,
    goodput,
    latency,
    operations,
    router,
    scaling,
    scrape_cost,
    shapes,
    sizing_cost,
    withdrawal,
    withdrawal_simulation,
    zero,
)
from tests.bench.serving import command as serving
from tests.bench.table import Sheet, Table, say

DESCRIPTION = """\
Measure Slipway on this machine, on clusters of its own (hack/cluster, provider local), and print Markdown tables.

  control   1,000 ModelDeployments on fake nodes: time, CPU, memory, requests, restarts. Needs no root.
  aborts    10 rollouts aborted among 1,000 ModelDeployments: what it costs, and whether other changes wait. Needs no root; not
            part of "all".
  router    latency and CPU that the router adds to a request. Needs root.
  latency   apply to the first good answer, and a weight written to the weight live. Needs root.
  withdrawal
            a bad candidate: from its first bad answer to its weight 0 in every router. Needs root; not part of "all".
            --simulate: no cluster, the verdict on simulated counts.
  operations
            restarts, drains, upgrades, scaling, rollouts under load: failed requests and latency. Needs root; not part of "all".
  goodput   answers within the objective at 0.5 to 3 times the capacity, refusing and not. Needs root; not part of "all".
  shapes    a step, a spike, a ramp, a day of load: Slipway beside an HPA. Needs root; not part of "all".
  zero      a request for a model without pods: what it waits for beside the pod's own start. Needs root; not part of "all".
  ab        an A/B test: requests until a winner is named, and how often one is wrongly. Simulated; not part of "all".
  scaling   autoscalers on made-up arrivals, by simulation; no cluster, not part of "all": see scaling --help.
  meter     CPU that the operator takes to know what callers get, and to size a thousand models by it. No cluster.
  serving   the model server beside MLServer and KServe's; no cluster, not part of "all": see serving --help.

Figures are not asserted: the exit status is 0 whatever they are.
"""


async def _run(options: argparse.Namespace) -> list[Table | Sheet]:
    tables: list[Table | Sheet] = []
    for name in ("meter", "control", "router", "latency") if options.what == "all" else (options.what,):
        say(f"benchmark {name}")
        if name == "control":
            tables.append(await control.run(options.models, options.namespaces, options.steady_seconds, options.controller_qps))
        elif name == "aborts":
            tables.append(await aborts.run(options.models, options.namespaces, options.controller_qps, options.rounds or 3))
        elif name == "meter":
            tables += [await scrape_cost.run(), sizing_cost.run()]
        elif name == "zero":
            tables.append(await zero.run(options.rounds or 20))
        elif name == "withdrawal":
            tables.append(await withdrawal.run(options.rounds or 20, options.rates, options.kinds, options.results))
        elif name == "operations":
            names = operations.NAMES if options.operations is None else options.operations
            tables.append(await operations.run(options.rounds or 20, names, options.away, options.results))
        elif name == "goodput":
            tables.append(await goodput.run(options.seconds or 20))
        elif name == "shapes":
            tables += await shapes.run(options.shapes)
        elif name == "router":
            tables.append(await router.run(options.seconds or 5, options.rounds or 5))
        else:
            tables.append(await latency.run(options.applies, options.switches))
    return tables


def main() -> None:
    """Parse the command line, measure, print."""
    if sys.argv[1:2] == ["serving"]:
        serving.main(sys.argv[2:])
        return
    if sys.argv[1:2] == ["scaling"]:
        scaling.main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        prog="tests/bench/run", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = (
        "meter",
        "control",
        "aborts",
        "router",
        "latency",
        "withdrawal",
        "operations",
        "goodput",
        "shapes",
        "zero",
        "ab",
        "all",
    )
    parser.add_argument("what", nargs="?", choices=names, default="all")
    parser.add_argument("--models", type=int, default=1000, help="ModelDeployments of control and aborts (default: %(default)s)")
    parser.add_argument("--namespaces", type=int, default=20, help="namespaces of control and aborts (default: %(default)s)")
    parser.add_argument("--steady-seconds", type=int, default=120, help="of control (default: %(default)s)")
    parser.add_argument(
        "--controller-qps",
        type=int,
        default=75,
        help="requests a second that their kube-controller-manager may send: 20 as released (default: %(default)s)",
    )
    parser.add_argument("--seconds", type=float, help="of each load: of router (default: 5), of goodput (default: 20)")
    parser.add_argument(
        "--rounds",
        type=int,
        help="loads each way of router (default: 5); withdrawals of each kind, and runs of each operation (default: 20); aborts "
        "(default: 3)",
    )
    parser.add_argument("--simulate", action="store_true", help="of withdrawal: no cluster, the verdict on simulated counts")
    parser.add_argument("--rates", type=int, nargs="+", default=withdrawal.RATES, help="of withdrawal (default: %(default)s)")
    kinds = ", ".join(withdrawal.KINDS).replace("%", "%%")
    parser.add_argument(
        "--kinds", nargs="+", choices=withdrawal.KINDS, default=withdrawal.KINDS, metavar="KIND", help=f"of withdrawal: {kinds}"
    )
    parser.add_argument("--results", type=Path, help="of withdrawal and operations: keep each round here, and go on from it")
    parser.add_argument("--operations", nargs="*", choices=operations.NAMES, help="of operations (default: all)")
    parser.add_argument(
        "--away",
        type=float,
        default=0,
        metavar="MINUTES",
        help="of operations: and the operator away so long, while all restarts",
    )
    parser.add_argument("--shapes", nargs="+", choices=shapes.SHAPES, default=[*shapes.SHAPES], help="of shapes (default: all)")
    parser.add_argument("--applies", type=int, default=5, help="of latency (default: %(default)s)")
    parser.add_argument("--switches", type=int, default=20, help="of version, of latency (default: %(default)s)")
    options = parser.parse_args()
    if options.simulate or options.what == "ab":
        simulation = ab_simulation if options.what == "ab" else withdrawal_simulation
        for text in simulation.tables(options.rounds or 20, 1000):
            print(f"\n{text}", flush=True)
        return
    for table in uvloop.run(_run(options)):
        print(f"\n{table.markdown()}")


if __name__ == "__main__":
    main()
