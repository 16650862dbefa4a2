"""A leader's end with a second replica standing by: how long nobody leads, and what the new leader does."""

import asyncio
import signal
import time
from collections.abc import Iterable
from typing import Protocol

from tests.bench import operators
from tests.bench.audit import AuditLog
from tests.bench.client import Client
from tests.bench.table import Table, say

_STANDING_SECONDS = 4.0
_AFTER_SECONDS = 5.0  # what is written late counts too


class Bench(Protocol):
    """What is needed of the benchmark."""

    client: Client
    audit: AuditLog

    @property
    def keys(self) -> int:
        """Answer how many keys there are."""
        ...

    async def start(self, name: str, *flags: str) -> operators.Replica:
        """Start an operator."""
        ...


async def succeed(
    table: Table, bench: Bench, leader: operators.Replica, heir: str, number: signal.Signals, goal: str, flags: Iterable[str] = ()
) -> operators.Replica:
    """Start a second replica, end the leader by the signal, and answer the heir."""
    replica = await bench.start(heir, *flags)
    try:
        await _measure(table, bench, leader, replica, number, goal)
    except BaseException:
        replica.process.end()
        raise
    leader.process.end()
    return replica


async def _measure(
    table: Table, bench: Bench, leader: operators.Replica, heir: operators.Replica, number: signal.Signals, goal: str
) -> None:
    await asyncio.sleep(_STANDING_SECONDS)  # as a standby does; its start is not what is measured
    say(f"{number.name} to the leader")
    bench.audit.read()
    begun = time.time()
    leader.process.send(number)
    async for _, lease in bench.client.watch(operators.LEASE.rpartition("/")[0], initial=True):
        if lease["metadata"]["name"] == "slipway-operator" and lease["spec"].get("holderIdentity") == heir.name:
            break
    led = time.time()
    steady = await heir.idle(bench.keys)
    await asyncio.sleep(_AFTER_SECONDS)
    counts = bench.audit.read()
    table.add(f"{number.name}: another leads after", f"{led - begun:.1f} s", goal, "16-18 s" if number is signal.SIGTERM else "")
    table.add(f"{number.name}: steady after that", f"{steady - led:.1f} s", "3 s", "47 s, 37-39 s from the signal on")
    table.add(f"{number.name}: writes; events", f"{counts.writes()}; {counts.events()}", "0; 0", "1,000; 1,001 and 0; 1,000")
    table.add(f"{number.name}: reads", str(counts.reads()))
