"""(f) Overload at max: answers within the objective a second, up to three times the capacity, with refusals and without."""

import asyncio
from collections.abc import Sequence

from tests.bench.arrivals import LATENCY_SECONDS, SERVICE_SECONDS, Answer, p95_ms, send, serve
from tests.bench.installed import LOCAL_ONLY, installed
from tests.bench.processes import load_average
from tests.bench.table import Sheet, say

FACTORS = (0.5, 1.0, 1.5, 2.0, 3.0)
_PODS, _BESIDE_PODS = 4, 2
_CAPACITY = _PODS / SERVICE_SECONDS
_BESIDE_RATE = 4.0
_NAMESPACE = "bench"
# The limit follows from the objective, where that is a latency. A rate by replica says nothing of what may be in flight.
_OBJECTIVES = {"refuses": {"latency": f"{LATENCY_SECONDS * 1000:.0f}ms"}, "queues": {"requestsPerSecond": 5}}
_HEAD = (
    "load",
    "arrivals/s",
    "refusing: goodput/s",
    "p95 of answers",
    "429/s",
    "failed",
    "queueing: goodput/s",
    "p95 of answers",
    "failed",
    "beside refusing: p95, not good",
    "beside queueing",
)


async def run(seconds: float) -> Sheet:
    """Measure one model after the other, at each load, with a third one beside them all the time."""
    title = f"goodput: {_PODS} pods of one request at a time, {SERVICE_SECONDS * 1000:.0f} ms each, p95 of {LATENCY_SECONDS:g} s"
    notes = [
        f"Capacity is {_CAPACITY:.0f} requests/s. Good is an answer within {LATENCY_SECONDS * 1000:.0f} ms; each load lasts "
        f"{seconds:g} s after {seconds / 2:g} s of settling. Both models have as many pods; the objective of the one that queues "
        f"is a rate. Beside them a third one gets {_BESIDE_RATE:g} requests/s on {_BESIDE_PODS} pods, through the same routers.",
        LOCAL_ONLY,
        f"Load average of the machine before the run: {load_average()}.",
    ]
    cells: list[Sequence[str]] = [_HEAD]
    async with installed("slipway-bench-goodput") as slipway:
        namespace = await slipway.make_namespace(_NAMESPACE)
        for name, objective in _OBJECTIVES.items():
            await serve(slipway, namespace, name, {"min": _PODS, "max": _PODS, "objective": objective})
        await serve(slipway, namespace, "beside", {"min": _BESIDE_PODS})
        whole = 1.5 * seconds
        learning = (send(slipway, namespace, name, lambda _: 0.5 * _CAPACITY, 60, seed=0) for name in _OBJECTIVES)
        await asyncio.gather(*learning)
        for factor in FACTORS:
            found: dict[str, list[Answer]] = {}
            beside: dict[str, list[Answer]] = {}
            for name in _OBJECTIVES:
                found[name], beside[name] = await asyncio.gather(
                    send(slipway, namespace, name, lambda _, factor=factor: factor * _CAPACITY, whole, seed=1),
                    send(slipway, namespace, "beside", lambda _: _BESIDE_RATE, whole, seed=2),
                )
                await asyncio.sleep(2)
            cells.append(_row(factor, seconds, found, beside))
            say(" | ".join(cells[-1]))
    return Sheet(title, cells, notes)


def _row(factor: float, seconds: float, found: dict[str, list[Answer]], beside: dict[str, list[Answer]]) -> list[str]:
    refuses, queues = ([each for each in found[name] if each.begun >= seconds / 2] for name in _OBJECTIVES)

    def good(answers: list[Answer]) -> str:
        return f"{sum(answer.good for answer in answers) / seconds:.0f}"

    def failed(answers: list[Answer]) -> str:
        return f"{sum(answer.status not in (200, 429) for answer in answers) / max(len(answers), 1):.1%}"

    return [
        f"{factor:g}x",
        f"{factor * _CAPACITY:.0f}",
        good(refuses),
        f"{p95_ms(refuses):.0f} ms",
        f"{sum(answer.status == 429 for answer in refuses) / seconds:.0f}",
        failed(refuses),
        good(queues),
        f"{p95_ms(queues):.0f} ms",
        failed(queues),
        *(f"{p95_ms(each):.0f} ms, {1 - sum(answer.good for answer in each) / len(each):.0%}" for each in beside.values()),
    ]
