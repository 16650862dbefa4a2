"""Sends held-out digits to a digits model and counts: who answered, how well, and what failed. No retries.

    python score.py --url http://digits.demo/v2/models/digits/infer --data heldout.json [--seconds N] [--until-file F]

Sends every image once; with --seconds or --until-file, again and again until then. Needs only Python's standard library. Exit
code 1 if any request failed.
"""

import argparse
import http.client
import json
import sys
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit


@dataclass
class Tally:
    """What the callers saw."""

    asked: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    first: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, server: str, correct: bool) -> None:
        with self.lock:
            if server not in self.asked:
                self.first[server] = time.monotonic()
            self.asked[server] += 1
            self.right[server] += correct

    def failed(self, why: str) -> None:
        with self.lock:
            self.failures[why] += 1


class Caller:
    """One connection, kept open as long as the other side keeps it."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.connection = kind(parts.netloc, timeout=timeout_seconds)
        self.path = parts.path

    def ask(self, image: list[int], label: int, tally: Tally) -> None:
        tensor = {"name": "image", "shape": [1, 64], "datatype": "FP32", "data": image}
        body = json.dumps({"inputs": [tensor], "outputs": [{"name": "label"}]})
        try:
            self.connection.request("POST", self.path, body, {"Content-Type": "application/json"})
            response = self.connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            tally.failed(type(error).__name__)
            return
        if response.status != 200:
            tally.failed(f"{response.status} {content[:120].decode(errors='replace')}")
            return
        answer = json.loads(content)
        server = f"{response.getheader('x-slipway-revision', '?')} (version {answer.get('model_version', '?')})"
        tally.answered(server, answer["outputs"][0]["data"] == [label])


def report(tally: Tally) -> str:
    """The figures, one line a revision in the order of their first answers."""
    lines = [
        f"revision {server}: {tally.asked[server]} answers, accuracy {tally.right[server] / tally.asked[server]:.1%}"
        for server in sorted(tally.first, key=lambda server: tally.first[server])
    ]
    total = sum(tally.asked.values()) + sum(tally.failures.values())
    lines.append(f"requests {total}, failed {sum(tally.failures.values())}")
    lines.extend(f"  {count} x {why}" for why, count in tally.failures.most_common(10))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Scores a digits model on held-out digits.")
    parser.add_argument("--url", required=True, help="the model's infer URL")
    parser.add_argument("--data", type=Path, required=True, help="heldout.json")
    parser.add_argument("--seconds", type=float, default=0.0, help="go on asking for this long")
    parser.add_argument("--until-file", type=Path, default=None, help="go on asking until this file exists")
    parser.add_argument("--connections", type=int, default=4, help="callers at once")
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second of all callers (default: no limit)")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds before a request counts as failed")
    options = parser.parse_args()
    data = json.loads(options.data.read_text())
    pairs = list(zip(data["images"], data["labels"], strict=True))
    end = time.monotonic() + options.seconds
    tally = Tally()

    def over() -> bool:
        if options.until_file is not None and options.until_file.exists():
            return True
        return time.monotonic() >= end and (options.until_file is None or options.seconds > 0)

    def call(number: int) -> None:
        caller = Caller(options.url, options.timeout)
        once = not options.seconds and options.until_file is None
        pause = options.connections / options.rate if options.rate else 0.0
        while True:
            for image, label in pairs[number :: options.connections]:
                if not once and over():
                    return
                caller.ask(image, label, tally)
                if pause:
                    time.sleep(pause)
            if once:
                return

    threads = [threading.Thread(target=call, args=(number,)) for number in range(options.connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(report(tally))
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
