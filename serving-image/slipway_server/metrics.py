"""Prometheus metrics. Plain numbers on the hot path, turned into the text format when somebody asks."""

from bisect import bisect_left
from collections.abc import Mapping

BUCKETS_SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "slipway_server"


class Metrics:
    """Counters of one server process; they belong to the event loop.

    Latency is from the request's head being read to its answer being handed to the socket, in seconds.
    """

    def __init__(self) -> None:
        self.by_class = [0, 0, 0, 0, 0, 0]  # requests answered, index 2 for 2xx
        self.in_flight = 0
        self.abandoned = 0
        self.load_seconds = 0.0
        self.info: Mapping[str, str] = {}
        self._buckets = [0] * (len(BUCKETS_SECONDS) + 1)
        self._sum_seconds = 0.0

    def observe(self, status: int, seconds: float) -> None:
        """Counts one answered inference request."""
        self.by_class[status // 100] += 1
        self._buckets[bisect_left(BUCKETS_SECONDS, seconds)] += 1
        self._sum_seconds += seconds

    def render(self) -> bytes:
        """The text exposition format, version 0.0.4."""
        lines: list[str] = []

        def family(name: str, kind: str, text: str) -> str:
            full = f"{_PREFIX}_{name}"
            lines.extend((f"# HELP {full} {text}", f"# TYPE {full} {kind}"))
            return full

        name = family("requests_total", "counter", "Inference requests answered, by class of status code.")
        lines.extend(f'{name}{{code="{i}xx"}} {self.by_class[i]}' for i in (2, 4, 5))
        name = family("requests_abandoned_total", "counter", "Inference requests whose caller left before the answer.")
        lines.append(f"{name} {self.abandoned}")
        name = family("requests_in_flight", "gauge", "Inference requests being read or answered.")
        lines.append(f"{name} {self.in_flight}")
        name = family("request_duration_seconds", "histogram", "Time to read, run and answer an inference request.")
        total = 0
        for bound, count in zip((*map(str, BUCKETS_SECONDS), "+Inf"), self._buckets, strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        lines.extend((f"{name}_sum {self._sum_seconds!r}", f"{name}_count {total}"))
        name = family("model_load_seconds", "gauge", "Time to load the model and run it once, its trial aside.")
        lines.append(f"{name} {self.load_seconds!r}")
        name = family("model_info", "gauge", "The model served; always 1.")
        labels = ",".join(f'{key}="{_escape(value)}"' for key, value in self.info.items())
        lines.append(f"{name}{{{labels}}} 1")
        return ("\n".join(lines) + "\n").encode()


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
