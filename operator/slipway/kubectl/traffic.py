"""The arrivals of one ModelDeployment, for `slipway simulate --file`: recorded from its routers, or asked of a Prometheus."""

import json
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TextIO

from slipway.core.revision import ALPHABET, HASH_LENGTH
from slipway.kubectl.client import Cluster, ClusterError
from slipway.kubectl.show import duration

RECORD_SECONDS, PROMETHEUS_SECONDS, LAST_SECONDS = 10.0, 60.0, 86_400.0
# Prometheus answers with so many points at most.
_POINTS_MAX = 11_000
_PROMETHEUS_TIMEOUT_SECONDS = 60.0
# Requests that were answered, that their callers gave up, and that are under way: together those that came.
_COUNTED = r"upstream_rq_completed|upstream_rq_cancelled|upstream_rq_active"

Interval = tuple[datetime, int]


class Counters:
    """What the routers of a namespace have counted for one ModelDeployment, from one look to the next."""

    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        self._cluster, self._namespace = cluster, namespace
        revision = rf"{re.escape(name)}-[{ALPHABET}]{{{HASH_LENGTH}}}"
        self._filter = rf"^cluster\.{revision}\.({_COUNTED})$"
        self._before: Mapping[str, int] = {}

    def grown(self) -> int:
        """Answer the requests since the look before; a router that did not answer then or now is counted at the next."""
        now = dict(self._totals())
        grown = sum(_since(self._before.get(pod, total), total) for pod, total in now.items())
        self._before = {**self._before, **now}
        return grown

    def _totals(self) -> Iterator[tuple[str, int]]:
        for pod in self._cluster.routers(self._namespace):
            text = self._cluster.statistics(self._namespace, pod, self._filter)
            if text is not None:
                yield pod, sum(int(line.rsplit(":", 1)[1]) for line in text.splitlines() if ":" in line)


def _since(before: int, total: int) -> int:
    """Answer what came: a router that says far less began anew, one that says a little less has lost a caller."""
    return total if total < before / 2 else max(total - before, 0)


def export(cluster: Cluster, args: Namespace) -> int:
    """Write the arrivals, a line for each interval."""
    cluster.get(args.namespace, args.name)
    with ExitStack() as stack:
        out: TextIO = stack.enter_context(Path(args.output).open("w")) if args.output else sys.stdout
        out.write("since,requests\n")
        intervals = _asked(args) if args.prometheus else _recorded(cluster, args)
        total = 0
        for since, requests in intervals:
            out.write(f"{since.isoformat(timespec='milliseconds').replace('+00:00', 'Z')},{requests}\n")
            out.flush()
            total += requests
        if not args.prometheus and sys.stderr.isatty():
            print(file=sys.stderr)
        print(f"{total} requests", file=sys.stderr)
    return 0


def _recorded(cluster: Cluster, args: Namespace) -> Iterator[Interval]:
    """Count until the time is over, or Ctrl-C: what was counted is then written."""
    counters, every = Counters(cluster, args.namespace, args.name), args.every or RECORD_SECONDS
    counters.grown()
    began = last = time.monotonic()
    since = datetime.now(UTC)
    total = 0
    try:
        while last - began < args.length:
            time.sleep(max(min(last + every, began + args.length) - time.monotonic(), 0.0))
            grown, last = counters.grown(), time.monotonic()
            yield since, grown
            since, total = datetime.now(UTC), total + grown
            if sys.stderr.isatty():
                of = f" of {duration(args.length)}" if args.length < float("inf") else ""
                told = f"{duration(last - began)}{of}: {total} requests, {grown / every:.1f}/s now; Ctrl-C ends it"
                print(f"\r{told:79}", end="", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        return


def _asked(args: Namespace) -> Iterator[Interval]:
    """Ask a Prometheus that scrapes the operator: it has the past."""
    every = args.every or PROMETHEUS_SECONDS
    length = args.length if args.length < float("inf") else LAST_SECONDS
    if length / every > _POINTS_MAX:
        raise ClusterError(f"{duration(length)} by {duration(every)} are more than {_POINTS_MAX} points: use a larger --every")
    until = datetime.now(UTC)
    labels = f'namespace="{args.namespace}",name="{args.name}"'
    query = {
        "query": f"sum(increase(slipway_requests_total{{{labels}}}[{round(every)}s]))",
        "start": (until - timedelta(seconds=length - every)).timestamp(),
        "end": until.timestamp(),
        "step": f"{round(every)}s",
    }
    series = _prometheus(args.prometheus, query)
    if not series:
        what = f"slipway_requests_total of {args.namespace}/{args.name}"
        raise ClusterError(f"{args.prometheus} has no {what}: does it scrape Slipway's operator?")
    found = {round(float(at)): float(count) for at, count in series[0]["values"]}
    first, last = min(found), max(found)
    for at in range(first, last + 1, round(every)):  # a time without a figure had no operator to count
        yield datetime.fromtimestamp(at, UTC) - timedelta(seconds=every), round(found.get(at, 0.0))


def _prometheus(address: str, query: Mapping[str, object]) -> list[dict[str, list[tuple[float, str]]]]:
    if not address.startswith(("http://", "https://")):
        raise ClusterError(f"--prometheus {address}: is no URL such as http://localhost:9090")
    url = f"{address.rstrip('/')}/api/v1/query_range?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(url, timeout=_PROMETHEUS_TIMEOUT_SECONDS) as answer:  # noqa: S310 - its scheme was looked at
            return json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        raise ClusterError(f"{address} refuses: {error.read(500).decode(errors='replace')}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClusterError(f"{address} does not answer as a Prometheus does: {error}") from None
