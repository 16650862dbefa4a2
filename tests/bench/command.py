"""tests/bench/run: figures of Slipway on this machine, beside their goals and what others need."""

import argparse
import sys
from pathlib import Path

import uvloop
from tests.bench import ab_simulation, aborts, control, latency, router, scaling, scrape_cost, withdrawal, withdrawal_simulation
from tests.bench.serving import command as serving
from tests.bench.table import Table, say

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
  ab        an A/B test: requests until a winner is named, and how often one is wrongly. Simulated; not part of "all".
  scaling   autoscalers on made-up arrivals, by simulation; no cluster, not part of "all": see scaling --help.
  meter     CPU that the operator takes to know what callers get. No cluster.
  serving   the model server beside MLServer and KServe's; no cluster, not part of "all": see serving --help.

Figures are not asserted: the exit status is 0 whatever they are.
"""


async def _run(options: argparse.Namespace) -> list[Table]:
    tables: list[Table] = []
    for name in ("meter", "control", "router", "latency") if options.what == "all" else (options.what,):
        say(f"benchmark {name}")
        if name == "control":
            tables.append(await control.run(options.models, options.namespaces, options.steady_seconds, options.controller_qps))
        elif name == "aborts":
            tables.append(await aborts.run(options.models, options.namespaces, options.controller_qps, options.rounds or 3))
        elif name == "meter":
            tables.append(await scrape_cost.run())
        elif name == "withdrawal":
            tables.append(await withdrawal.run(options.rounds or 20, options.rates, options.kinds, options.results))
        elif name == "router":
            tables.append(await router.run(options.seconds, options.rounds or 5))
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
    names = ("meter", "control", "aborts", "router", "latency", "withdrawal", "ab", "all")
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
    parser.add_argument("--seconds", type=float, default=5, help="of each load of router (default: %(default)s)")
    parser.add_argument(
        "--rounds",
        type=int,
        help="loads each way of router (default: 5); withdrawals of each kind (default: 20); aborts (default: 3)",
    )
    parser.add_argument("--simulate", action="store_true", help="of withdrawal: no cluster, the verdict on simulated counts")
    parser.add_argument("--rates", type=int, nargs="+", default=withdrawal.RATES, help="of withdrawal (default: %(default)s)")
    kinds = ", ".join(withdrawal.KINDS).replace("%", "%%")
    parser.add_argument(
        "--kinds", nargs="+", choices=withdrawal.KINDS, default=withdrawal.KINDS, metavar="KIND", help=f"of withdrawal: {kinds}"
    )
    parser.add_argument("--results", type=Path, help="of withdrawal: keep each round in this file, and go on from those in it")
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
