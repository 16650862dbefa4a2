"""Load on one server for some seconds: wrk for HTTP/1.1, h2load for gRPC, on a core of their own."""

import asyncio
import re
import shutil
from pathlib import Path

from tests.bench.serving import bodies
from tests.bench.serving.bodies import Body
from tests.bench.serving.servers import cores, pinned
from tests.bench.traffic import Figures, wrk

PREFIX_BYTES = 5  # of a gRPC message
_STREAMS = "1"  # requests at once on a connection: as wrk does


def require_tools(protocols: list[str]) -> None:
    """Raise RuntimeError where a load generator is not installed."""
    wanted = {"wrk": "wrk"} if {"json", "binary"} & set(protocols) else {}
    wanted |= {"h2load": "nghttp2-client"} if "grpc" in protocols else {}
    for tool, package in wanted.items():
        if not shutil.which(tool):
            raise RuntimeError(f"{tool} is not installed: apt-get install {package}")


async def http(port: int, body: Body, folder: Path, connections: int, seconds: float, path: str = bodies.HTTP_PATH) -> Figures:
    """Keep HTTP/1.1 connections busy, each with one request at a time."""
    file = folder / "body"
    file.write_bytes(body.data)
    headers = [word for pair in body.headers.items() for word in pair]
    prefix = [str(word) for word in pinned(core=cores()[1])]
    return await wrk(f"http://127.0.0.1:{port}{path}", [f"127.0.0.1:{port}", f"@{file}", *headers], connections, seconds, prefix)


async def grpc(port: int, body: Body, answer_bytes: int, folder: Path, connections: int, seconds: float) -> Figures:
    """Keep HTTP/2 connections busy, each with one call at a time.

    h2load sees no gRPC status. A call that fails has an answer without a message (its status is in the trailers), so the
    bytes of all messages say whether any failed: each good one has `answer_bytes` and its prefix.
    """
    file, log = folder / "message", folder / "calls"
    file.write_bytes(body.data)
    log.unlink(missing_ok=True)
    headers = [word for name, value in body.headers.items() for word in ("-H", f"{name}: {value}")]
    how = ["-t1", f"-c{connections}", "-m", _STREAMS, f"-D{seconds:g}", f"--log-file={log}"]
    command = pinned("h2load", *how, "-d", file, *headers, f"http://127.0.0.1:{port}{bodies.GRPC_PATH}", core=cores()[1])
    h2load = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    output, _ = await h2load.communicate()
    return _grpc_figures(output.decode(), log.read_text(), answer_bytes + PREFIX_BYTES)


def _grpc_figures(output: str, log: str, message_bytes: int) -> Figures:
    found = re.search(r"finished in ([\d.]+)(m?s),", output)
    data = re.search(r"\((\d+)\) data$", output, re.MULTILINE)
    counts = re.search(r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
    if not (found and data and counts):
        raise RuntimeError(f"h2load said what is not understood:\n{output[-2000:]}")
    succeeded = int(counts[1])
    # A line a call: start in us since 1970, HTTP status or -1, duration in us.
    calls = [line.split("\t") for line in log.splitlines()]
    times = sorted(int(call[2]) for call in calls if call[1] == "200")
    if not times:
        raise RuntimeError(f"h2load had no answer:\n{output[-2000:]}")
    without_message = max(0, round(succeeded - int(data[1]) / message_bytes))
    return Figures(
        succeeded,
        sum(int(count) for count in counts.groups()[1:]) + without_message,
        float(found[1]) / (1000 if found[2] == "ms" else 1),
        times[len(times) // 2] / 1000,
        times[len(times) * 99 // 100] / 1000,
    )
