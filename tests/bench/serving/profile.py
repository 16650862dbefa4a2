"""Where the CPU time of Slipway's server goes under load, by py-spy: groups of functions, then single lines."""

import asyncio
import linecache
import re
import tempfile
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

from tests.bench.processes import tree
from tests.bench.serving import bodies, load
from tests.bench.serving.cases import make as make_cases
from tests.bench.serving.measure import Options
from tests.bench.serving.servers import KINDS, Server, cores, pinned
from tests.bench.table import grid, say

from slipway_dev.paths import REPOSITORY
from slipway_dev.python import venv

_HERE = Path(__file__).parent
_RATE = 1000  # samples a second
_LINES = 15
_WARM_SECONDS = 1

# From the innermost Python frame outwards, the first of these that matches "FUNCTION (FILE:LINE) SOURCE". C code counts
# for the line that calls it.
_GROUPS = tuple(
    (name, re.compile(pattern))
    for name, pattern in (
        ("socket write", r"transport\.write\("),
        ("decode", r"\b(decode\w*|unframe|decompress) \(.*/protocol/"),
        ("encode", r"\b(encode\w*|frame|compress) \(.*/protocol/"),
        ("model run", r"/formats/"),
        ("metrics", r"/metrics\.py"),
        ("engine and batching", r"/(engine|batching)\.py"),
        ("application", r"/app\.py|/dialects/"),
        ("wire, answer", r"\b(_?respond|_write|_send|_done) \(.*/wire/|/wire/sender\.py"),
        ("wire, parsing", r"/wire/"),
        ("event loop, socket read", r"asyncio/|uvloop/|slipway_server/"),
    )
)
_FRAME = re.compile(r"^(?P<function>.*) \((?P<file>[^()]*):(?P<line>\d+)\)$")


async def run(options: Options) -> list[str]:
    """Answer a table for each model and form, at the largest number of connections."""
    load.require_tools(options.protocols)
    spy = venv(_HERE / "profile-requirements.txt") / "bin" / "py-spy"
    tables: list[str] = []
    for case in make_cases(options.models):
        with tempfile.TemporaryDirectory(prefix="slipway-bench-") as scratch:
            server = Server(KINDS["slipway"], case, Path(scratch) / "server")
            try:
                for protocol in options.protocols:
                    say(f"profile of {case.title}, {protocol}")
                    tables.append(await _profile(server, protocol, max(options.connections), options.seconds, Path(scratch), spy))
            finally:
                server.end()
    return tables


async def _profile(server: Server, protocol: str, connections: int, seconds: int, scratch: Path, spy: Path) -> str:
    size = server.check(protocol)
    body = bodies.make(server.case, protocol)

    async def ask(seconds: int) -> int:
        if protocol == "grpc":
            return (await load.grpc(server.ports.grpc, body, size, scratch, connections, seconds)).requests
        return (await load.http(server.ports.http, body, scratch, connections, seconds)).requests

    await ask(_WARM_SECONDS)
    before = server.cpu_seconds()
    cpu_us = 1e6 / await ask(seconds) * (server.cpu_seconds() - before)  # without the profiler
    stacks = scratch / "stacks"
    _, worker = tree(server.process.pid)  # its supervisor sleeps
    threads = _threads(worker)
    loading = asyncio.create_task(ask(seconds + 2))
    # The load generator's core: the profiler must not take the server's.
    how = ["--threads", "--rate", str(_RATE), "--duration", str(seconds), "--format", "raw", "--output", str(stacks)]
    words = [str(word) for word in pinned(spy, "record", *how, "--pid", str(worker), core=cores()[1])]
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    said, _ = await process.communicate()
    await loading
    if process.returncode or not stacks.exists():
        raise RuntimeError(f"py-spy failed, it may lack the right to trace a process: {said.decode()[-500:]}")
    spent = {thread: ticks - threads.get(thread, 0) for thread, ticks in _threads(worker).items()}
    title = f"{server.case.title}, {protocol}, {connections} connections: {cpu_us:.0f} us a request"
    return _table(title, stacks.read_text(), spent, cpu_us)


def _threads(pid: int) -> dict[str, int]:
    """Answer the CPU time of each thread so far, in clock ticks."""
    spent: dict[str, int] = {}
    for folder in Path(f"/proc/{pid}/task").iterdir():
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        spent[folder.name] = int(fields[11]) + int(fields[12])
    return spent


def _table(title: str, stacks: str, spent: dict[str, int], cpu_us: float) -> str:
    """Answer the tables. A thread's samples share its CPU time: py-spy cannot always tell one that waits."""
    samples: dict[str, Counter[tuple[str, str]]] = {}
    for row in stacks.splitlines():
        stack, _, count = row.rpartition(" ")
        thread, *frames = stack.split(";")
        number = thread.partition("(")[2].partition(")")[0]
        samples.setdefault(number, Counter())[_group(frames), _place(frames[-1]) if frames else thread] += int(count)
    groups: defaultdict[str, float] = defaultdict(float)
    lines: defaultdict[str, float] = defaultdict(float)
    total = max(1, sum(spent.values()))
    for thread, ticks in spent.items():
        found = samples.get(thread, Counter({("threads without Python", "threads without Python"): 1}))
        for (group, line), count in found.items():
            share = ticks / total * count / found.total()
            groups[group] += share
            lines[line] += share

    def cells(shares: dict[str, float], most: int) -> list[list[str]]:
        found = sorted(shares.items(), key=lambda item: -item[1])[:most]
        return [[name.replace("|", "\\|"), f"{share:.0%}", f"{share * cpu_us:.1f}"] for name, share in found]

    grouped = grid([["where", "share", "us a request"], *cells(groups, len(groups))])
    single = grid([["line", "share", "us a request"], *cells(lines, _LINES)])
    return "\n".join([f"### profile: {title}", "", *grouped, "", *single])


def _group(frames: list[str]) -> str:
    """Answer the group of a stack, its innermost frame last."""
    for frame in map(_place, reversed(frames)):
        for name, pattern in _GROUPS:
            if pattern.search(frame):
                return name
    return "other"


@cache
def _place(frame: str) -> str:
    """Answer "function (file:line) source" of a frame, where the source is found."""
    found = _FRAME.match(frame)
    if not found:
        return frame
    source = linecache.getline(str(REPOSITORY / "serving-image" / found["file"]), int(found["line"])).strip()
    return f"{found['function']} ({found['file']}:{found['line']}) {source}"[:140]
