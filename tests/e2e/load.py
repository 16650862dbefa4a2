"""A load generator that never retries: counts what every request got, by status and revision. Standard library only.

It runs in a pod (the server's image has Python) and is asked over HTTP: GET /report answers the counts so far as JSON,
GET /stop ends the load first, after the answers that are under way.

usage: python3 load.py --url http://churn.shop/v2/models/churn/infer [--body JSON] [--connections 8] [--rate 0] [--port 9000]
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from urllib.parse import urlsplit

_ANSWER_SECONDS = 300.0


class Load:
    """Keeps `connections` keep-alive connections busy; `rate` bounds the requests a second over all (0: no bound)."""

    def __init__(self, url: str, body: bytes, connections: int, rate: float) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 80
        method = b"POST" if body else b"GET"
        head = b"%s %s HTTP/1.1\r\nHost: %s\r\n" % (method, (parts.path or "/").encode(), parts.netloc.encode())
        if body:
            head += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        self.request = head + b"\r\n" + body
        self.connections, self.rate = connections, rate
        self.answers: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.latencies: list[float] = []
        self.first_seen: dict[str, float] = {}
        self.last_begun: dict[str, float] = {}
        self.failed_at: list[tuple[float, str]] = []
        self.turns: list[list[str]] = []
        self.started = time.time()
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        """Send until told to stop."""
        await asyncio.gather(*(self._connection() for _ in range(self.connections)))

    async def _connection(self) -> None:
        reader: asyncio.StreamReader | None = None
        writer: asyncio.StreamWriter | None = None
        turns: list[str] = []
        self.turns.append(turns)
        pause = self.connections / self.rate if self.rate else 0.0
        while not self.stopping.is_set():
            begun, begun_at = time.perf_counter(), time.time()
            try:
                if reader is None or writer is None:
                    reader, writer = await asyncio.wait_for(asyncio.open_connection(self.host, self.port), 5)
                writer.write(self.request)
                answer, close = await asyncio.wait_for(self._answer(reader), _ANSWER_SECONDS)
            except (OSError, EOFError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
                self._failed(f"{type(error).__name__}: {error}")
                close = True
            else:
                self.latencies.append(time.perf_counter() - begun)
                self.last_begun[answer] = begun_at
                if turns[-1:] != [answer]:
                    turns.append(answer)
            if close and writer is not None:
                writer.close()
                reader = writer = None
            if pause:
                await asyncio.sleep(max(0.0, pause - (time.perf_counter() - begun)))

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[str, bool]:
        """Read one answer and count it. Answer its status and revision, and whether the connection closes."""
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        length = headers.get(b"content-length")
        if length is not None:
            body = await reader.readexactly(int(length))
        else:
            body = b""
            while not body.endswith(b"0\r\n\r\n"):
                body += await reader.readuntil(b"\r\n")
        answer = f"{status} {headers.get(b'x-slipway-revision', b'').decode()}".strip()
        self.answers[answer] += 1
        self.first_seen.setdefault(answer, time.time())
        if status >= 400:
            self._failed(f"{status} {body[:100].decode(errors='replace').strip()}")
        return answer, headers.get(b"connection", b"").lower() == b"close"

    def _failed(self, what: str) -> None:
        self.failures[what[:120]] += 1
        self.failed_at = [*self.failed_at[-99:], (time.time(), what[:120])]

    def report(self) -> dict[str, object]:
        """Answer the counts so far."""
        ordered = sorted(self.latencies)

        def quantile(share: float) -> float | None:
            return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1000, 2) if ordered else None

        seconds = time.time() - self.started
        return {
            "requests": sum(self.answers.values()) + sum(n for what, n in self.failures.items() if not what[:3].isdigit()),
            "failed": sum(self.failures.values()),
            "failures": dict(self.failures),
            "answers": dict(self.answers),
            "first_seen": self.first_seen,
            "last_begun": self.last_begun,
            "failed_at": self.failed_at,
            "turns": self.turns,
            "seconds": round(seconds, 1),
            "per_second": round(len(ordered) / seconds, 1),
            "p50_ms": quantile(0.5),
            "p99_ms": quantile(0.99),
            "max_ms": quantile(1.0),
        }


async def _serve(load: Load, port: int) -> None:
    """Answer GET /report and GET /stop."""

    async def on_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if b"/stop" in line:
            load.stopping.set()
            await done
        body = json.dumps(load.report()).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    done = asyncio.ensure_future(load.run())
    async with await asyncio.start_server(on_connect, "0.0.0.0", port) as server:
        await server.serve_forever()


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--body", default="")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--port", type=int, default=9000)
    args = parser.parse_args()

    async def run() -> None:
        await _serve(Load(args.url, args.body.encode(), args.connections, args.rate), args.port)

    asyncio.run(run())


if __name__ == "__main__":
    main()
