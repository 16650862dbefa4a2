"""`kubectl slipway export-traffic`: what routers count becomes lines that `slipway simulate` reads."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from slipway.kubectl import main
from slipway.kubectl.traffic import Counters
from slipway.simulate import recorded


class Routers:
    """A cluster whose routers have counted so much at each look, None while one is away."""

    namespace = "shop"

    def __init__(self, *looks: dict[str, int | None]) -> None:
        self.looks, self.pattern = list(looks), ""

    def get(self, namespace: str, name: str) -> dict[str, Any]:
        return {}

    def routers(self, namespace: str) -> list[str]:
        return list(self.looks[0])

    def statistics(self, namespace: str, router: str, pattern: str) -> str | None:
        self.pattern = pattern
        counted = self.looks[0][router]
        if router == list(self.looks[0])[-1] and len(self.looks) > 1:
            self.looks.pop(0)
        if counted is None:
            return None
        half = counted // 2
        return (
            f"cluster.churn-bcdfghjk.upstream_rq_completed: {half}\ncluster.churn-bcdfghjk.upstream_rq_active: {counted - half}\n"
        )


def grown(*looks: dict[str, int | None]) -> list[int]:
    """Answer what came between the looks."""
    counters = Counters(cast("Any", Routers(*looks)), "shop", "churn")
    return [counters.grown() for _ in looks][1:]


def test_requests_are_counted_once_whichever_router_took_them() -> None:
    assert grown({"a": 100, "b": 50}, {"a": 130, "b": 55}, {"a": 130, "b": 60}) == [35, 5]


def test_a_router_that_is_away_is_counted_when_it_is_back() -> None:
    assert grown({"a": 100, "b": 50}, {"a": None, "b": 55}, {"a": 130, "b": 55}) == [5, 30]


def test_a_router_that_began_anew_has_counted_all_it_says() -> None:
    assert grown({"a": 100}, {"a": 7}, {"a": 9}) == [7, 2]


def test_what_a_new_router_counted_before_it_was_seen_is_left_out() -> None:
    assert grown({"a": 100}, {"a": 101, "b": 900}, {"a": 102, "b": 905}) == [1, 6]


def test_a_request_that_its_caller_gave_up_takes_nothing_back() -> None:
    assert grown({"a": 100}, {"a": 99}, {"a": 101}) == [0, 2]


def test_revisions_of_another_model_are_not_its_own() -> None:
    routers = Routers({"a": 1})
    Counters(cast("Any", routers), "shop", "churn").grown()
    assert re.match(routers.pattern, "cluster.churn-bcdfghjk.upstream_rq_completed")
    for other in ("churn-eu-bcdfghjk", "churn-bcdfghjk-mirror", "xchurn-bcdfghjk"):
        assert not re.match(routers.pattern, f"cluster.{other}.upstream_rq_completed")


def test_a_recording_can_be_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    routers = Routers({"a": 0}, {"a": 30}, {"a": 50}, {"a": 90})
    monkeypatch.setattr(main, "Cluster", lambda kubeconfig, context: routers)
    file = tmp_path / "churn.csv"
    assert main.main(["export-traffic", "churn", "--for", "300ms", "--every", "100ms", "-o", str(file)]) == 0
    lines = file.read_text().splitlines()
    assert lines[0] == "since,requests"
    assert [line.split(",")[1] for line in lines[1:]] == ["30", "20", "40"]
    assert recorded.read(file).sum() == 90


@pytest.fixture
def prometheus() -> Iterator[tuple[str, list[dict[str, Any]], list[dict[str, list[str]]]]]:
    """Answer a server's address, the series that it has, and what it was asked."""
    series: list[dict[str, Any]] = []
    asked: list[dict[str, list[str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(parse_qs(urlsplit(self.path).query))
            body = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": series}}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", series, asked
    server.shutdown()
    server.server_close()


def test_a_prometheus_has_the_past(
    prometheus: tuple[str, list[dict[str, Any]], list[dict[str, list[str]]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address, series, asked = prometheus
    monkeypatch.setattr(main, "Cluster", lambda kubeconfig, context: Routers({}))
    words = ["export-traffic", "churn", "--prometheus", address, "--for", "1h", "-o", str(tmp_path / "day.csv")]
    assert main.main(words) == 3
    assert "does it scrape Slipway's operator?" in capsys.readouterr().err

    series.append({"metric": {}, "values": [[1767225660, "120.2"], [1767225720, "60"], [1767225840, "6"]]})
    assert main.main(words) == 0
    assert 'slipway_requests_total{namespace="shop",name="churn"}[60s]' in asked[-1]["query"][0]
    assert asked[-1]["step"] == ["60s"]
    counts = recorded.read(tmp_path / "day.csv")
    assert len(counts) == 240, "a time without a figure had no requests that anybody knows of"
    assert [int(each) for each in np.add.reduceat(counts, range(0, 240, 60))] == [120, 60, 0, 6]

    assert main.main([*words, "--every", "100ms"]) == 3
    assert "use a larger --every" in capsys.readouterr().err
    assert main.main(["export-traffic", "churn", "--prometheus", "localhost:9090"]) == 3
    assert "is no URL" in capsys.readouterr().err
