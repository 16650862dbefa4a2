"""A load on one address: by wrk where it is installed, else by the load generator of the end-to-end tests."""

import asyncio
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.load import Load

_LUA = Path(__file__).parent / "infer.lua"


@dataclass(frozen=True)
class Figures:
    """What a load counted."""

    requests: int
    failed: int
    seconds: float
    p50_ms: float
    p99_ms: float


def generator() -> str:
    """Answer which load generator is used."""
    return "wrk" if shutil.which("wrk") else "tests/e2e/load.py (wrk is not installed: its own CPU shows in the latency)"


async def load(address: str, port: int, host: str, path: str, body: str, connections: int, seconds: float) -> Figures:
    """Keep connections busy for so long, each with one request at a time."""
    if not shutil.which("wrk"):
        asked = Load(f"http://{host}{path}", body.encode(), connections, 0)
        asked.host, asked.port = address, port
        running = asyncio.create_task(asked.run())
        await asyncio.sleep(seconds)
        asked.stopping.set()
        await running
        report = json.loads(json.dumps(asked.report()))
        return Figures(report["requests"], report["failed"], seconds, report["p50_ms"], report["p99_ms"])
    return await wrk(f"http://{address}:{port}{path}", [host, body], connections, seconds)


async def wrk(url: str, arguments: list[str], connections: int, seconds: float, prefix: Sequence[str] = ()) -> Figures:
    """Run wrk with infer.lua and its arguments, behind the words of `prefix`."""
    how = ["-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s", "-s", str(_LUA)]
    process = await asyncio.create_subprocess_exec(*prefix, "wrk", *how, url, "--", *arguments, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return Figures(**json.loads(output.decode().strip().splitlines()[-1]))
