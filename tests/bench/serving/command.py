"""tests/bench/run serving: Slipway's server beside others."""

import argparse
import asyncio
import signal
import sys

from tests.bench.serving import bodies, cases, measure, profile, servers

from slipway_dev.console import CommandError

DESCRIPTION = """\
Measure Slipway's server beside MLServer and KServe's server: the same models, requests, cores and load generators (wrk,
h2load) in one run. Prints Markdown tables: requests/s, latency, CPU a request, memory, cold start, and the limits (the
library's call alone, nginx's static answer, grpcio's echo).

  measure   the tables (needs two cores, wrk, nghttp2-client, nginx-light; fetches the peers' packages the first time)
  profile   where Slipway's microseconds go, by py-spy (needs the right to trace a process)

The whole table, every server that there is, in about eleven minutes:

  --servers slipway mlserver mlserver-released kserve --seconds 2 --rounds 1 --starts 1

An answer that is not the model's ends the run with status 1. Other figures are not asserted.
"""


def main(arguments: list[str]) -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(
        prog="tests/bench/run serving", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def choice(flag: str, known: list[str], default: list[str], text: str) -> None:
        text = f"{text}: any of {', '.join(known)} (default: {' '.join(default)})"
        parser.add_argument(flag, nargs="+", choices=known, default=default, metavar=flag[2:-1].upper(), help=text)

    parser.add_argument("what", nargs="?", choices=("measure", "profile"), default="measure")
    choice("--models", list(cases.BUILDERS), list(cases.BUILDERS), "what is served")
    choice("--servers", list(servers.KINDS), ["slipway", "mlserver", "kserve"], "who serves, of measure")
    choice("--protocols", list(bodies.PROTOCOLS), list(bodies.PROTOCOLS), "forms of requests")
    numbers: list[int] = [1, 8, 64]
    parser.add_argument("--connections", nargs="+", type=int, default=numbers, help="kept alive (default: 1 8 64)")
    parser.add_argument("--seconds", type=int, default=3, help="of each load (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="loads of each, of measure (default: %(default)s)")
    parser.add_argument("--starts", type=int, default=3, help="of each server, of measure (default: %(default)s)")
    options = vars(parser.parse_args(arguments))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers are ended on the way out
    run = profile.run if options.pop("what") == "profile" else measure.run
    try:
        tables = asyncio.run(run(measure.Options(**options)))
    except (RuntimeError, CommandError, bodies.WrongAnswerError) as error:
        sys.exit(f"error: {error}")
    for table in tables:
        print(f"\n{table}")
