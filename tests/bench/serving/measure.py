"""The same models, requests, cores and load for each server, in turns."""

import asyncio
import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import load_average
from tests.bench.serving import bodies, limits, load
from tests.bench.serving.cases import Case
from tests.bench.serving.cases import make as make_cases
from tests.bench.serving.report import FORMS, Cell, Footprint, Result, Sample, tables
from tests.bench.serving.servers import KINDS, Kind, Server, Target
from tests.bench.table import median, say

_WARM_SECONDS = 1
_TURNS = 5  # a load is long enough for this many calls of the library on each connection
_IDLE_SHARE = 0.2  # of a core: a server that takes less has no request left
_IDLE_SECONDS = 0.1
_SETTLE_SECONDS = 20.0


@dataclass(frozen=True)
class Options:
    """What to measure and for how long."""

    models: list[str]
    servers: list[str]
    protocols: list[str]
    connections: list[int]
    seconds: int
    rounds: int
    starts: int


async def run(options: Options) -> list[str]:
    """Measure; answer the tables in Markdown. Raises bodies.WrongAnswerError where a server's answer is not the model's."""
    load.require_tools(options.protocols)
    if not limits.has_nginx():
        say(limits.NGINX_MISSING)
    noise = load_average()
    kinds = [KINDS[name] for name in options.servers]
    results: list[Result] = []
    for case in make_cases(options.models):
        say(case.title)
        with tempfile.TemporaryDirectory(prefix="slipway-bench-") as scratch:
            results.append(await _measure(case, kinds, options, Path(scratch)))
    how = (
        f"Server and load generator on a core each; one thread a library; each load {options.seconds} s (slow models longer), "
        f"medians of {options.rounds} rounds in turns. Load average before the run: {noise}."
    )
    return tables(results, kinds, how)


async def _measure(case: Case, kinds: list[Kind], options: Options, scratch: Path) -> Result:
    result = Result(case, limits.bare_calls(case, options.seconds))
    say(f"  {case.runtime} alone: {result.bare_rate:.0f} calls/s")
    with _started(case, kinds, options, scratch) as (servers, starts):
        idle = {server.title: server.megabytes() for server in servers}
        for protocol in options.protocols:
            await _measure_form(case, protocol, servers, options, scratch, result)
        for server in servers:
            start = median(starts[server.title])
            result.footprints[server.title] = Footprint(start, idle[server.title], server.megabytes())
    return result


@contextmanager
def _started(
    case: Case, kinds: list[Kind], options: Options, scratch: Path
) -> Iterator[tuple[list[Server], dict[str, list[float]]]]:
    """Start each server so often, keep the last of each; with the seconds of the starts."""
    servers: list[Server] = []
    starts: dict[str, list[float]] = {kind.title: [] for kind in kinds}
    try:
        for number in range(options.starts):
            for kind in kinds:
                server = Server(kind, case, scratch / f"{kind.name}-{number}")
                starts[kind.title].append(server.ready_seconds)
                if number < options.starts - 1:
                    server.end()
                else:
                    servers.append(server)
        yield servers, starts
    finally:
        for server in servers:
            server.end()


async def _measure_form(
    case: Case, protocol: str, servers: list[Server], options: Options, scratch: Path, result: Result
) -> None:
    """Load each server that knows the form in turns: what else the machine does meets all alike."""
    able = [server for server in servers if protocol in server.kind.protocols]
    sizes = {server.title: server.check(protocol) for server in able}
    body = bodies.make(case, protocol)

    async def ask(target: Target, connections: int, seconds: int) -> Sample:
        before = target.cpu_seconds()
        if protocol == "grpc":
            size = sizes.get(target.title, len(body.data) - load.PREFIX_BYTES)  # the echo answers what it got
            figures = await load.grpc(target.ports.grpc, body, size, scratch, connections, seconds)
        else:
            figures = await load.http(target.ports.http, body, scratch, connections, seconds)
        target.process.require()
        return Sample(figures, target.cpu_seconds() - before)

    def long_enough(connections: int) -> int:
        return max(options.seconds, math.ceil(_TURNS * connections / result.bare_rate))

    limit = _limit(protocol, scratch / "limit", max(sizes.values(), default=100))
    try:
        for server in able:
            await ask(server, max(options.connections), _WARM_SECONDS)
            await _settle(server)
        for connections in options.connections:
            samples: dict[str, list[Sample]] = {server.title: [] for server in able}
            for _ in range(options.rounds):
                for server in able:
                    samples[server.title].append(await ask(server, connections, long_enough(connections)))
                    await _settle(server)
            if limit:
                samples[limit.title] = [await ask(limit, connections, options.seconds)]
            for title, found in samples.items():
                cell = result.cells[protocol, connections, title] = Cell.of(found)
                say(f"  {FORMS[protocol]} {connections} {title}: {cell.rate:.0f}/s, {cell.cpu_us:.0f} us, failed {cell.failed}")
    finally:
        if limit:
            limit.end()


async def _settle(target: Target) -> None:
    """Wait until a server has done the requests whose callers left at the end of a load: the next one needs the core."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    before = target.cpu_seconds()
    while time.monotonic() < deadline:
        await asyncio.sleep(_IDLE_SECONDS)
        now = target.cpu_seconds()
        if now - before < _IDLE_SHARE * _IDLE_SECONDS:
            return
        before = now
    raise RuntimeError(f"{target.title} is busy {_SETTLE_SECONDS:g} s after a load")


def _limit(protocol: str, folder: Path, answer_bytes: int) -> Target | None:
    if protocol == "grpc":
        return limits.echo(folder)
    return limits.nginx(folder, answer_bytes) if protocol == "json" and limits.has_nginx() else None
