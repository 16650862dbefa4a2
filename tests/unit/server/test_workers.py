"""Several workers behind one address: shared fairly, counted together, and not ended by the death of one."""

import http.client
import json
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.unit.server.support import INFER, Server, classifier, loop, serving, wait_until
from tests.unit.server.test_limits_of_requests import body, metrics, trips


def sockets(pid: int) -> int:
    names = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            names.append(str(fd.readlink()))
        except OSError:
            continue
    return sum(name.startswith("socket:") for name in names)


@contextmanager
def load(server: Server, callers: int) -> Iterator[Counter[str]]:
    """Callers that keep their connections and go on with a new one after a failure; what they got, counted."""
    results: Counter[str] = Counter()
    lock = threading.Lock()
    over = threading.Event()

    def call() -> None:
        connection = server.connect()
        while not over.is_set():
            try:
                connection.request("POST", INFER, body(1, 2, 3, 4))
                response = connection.getresponse()
                response.read()
                result = str(response.status)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                result = type(error).__name__
            with lock:
                results[result] += 1
        connection.close()

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield results
    finally:
        over.set()
        for thread in threads:
            thread.join(20)


def test_a_worker_that_is_killed_takes_only_its_own_requests_with_it(tmp_path: Path) -> None:
    with serving(tmp_path, classifier(), "--workers", "2") as server:
        with load(server, 8) as results:
            wait_until(lambda: results["200"] > 200, "load")
            counted = metrics(server)["requests_total/rest/2xx"]
            first, second = server.workers()
            os.kill(first, signal.SIGKILL)
            wait_until(lambda: metrics(server)["worker_restarts_total"] == 1, "another")
            wait_until(lambda: metrics(server)["workers"] == 2, "loaded")
            served = results["200"]
            wait_until(lambda: results["200"] > served + 200, "more load")
            assert server.get("/v2/health/ready").status == 200
            assert second in server.workers()
        failed = results.total() - results["200"]
        assert failed <= 8  # a request in the hands of the dead for each caller at most
        after = metrics(server)
        assert after["requests_total/rest/2xx"] >= results["200"]  # both workers', the dead one's too
        assert after["requests_total/rest/2xx"] > counted
        assert after["requests_in_flight"] == after["buffered_bytes"] == 0
        assert re.search(r"a worker died and is started again .*SIGKILL", server.log.read_text())
        assert server.stop() == 0
        assert server.log.read_text().count(" ready ") == 1


def test_connections_are_shared_fairly(tmp_path: Path) -> None:
    with serving(tmp_path, classifier(), "--workers", "2") as server:
        first, second = server.workers()
        bare = {pid: sockets(pid) for pid in (first, second)}  # one may be that of the readiness just asked, not closed yet

        def asked(count: int) -> list[http.client.HTTPConnection]:
            connections = [server.connect() for _ in range(count)]
            for connection in connections:
                connection.request("GET", "/v2")
                assert connection.getresponse().read()
            return connections

        os.kill(first, signal.SIGSTOP)
        connections = asked(12)
        os.kill(first, signal.SIGCONT)
        connections += asked(12)  # for the one that has none; a pause of the machine may give one or two to the other
        counts = {pid: sockets(pid) - bare[pid] for pid in bare}
        assert abs(counts[first] - counts[second]) <= 4, counts
        for connection in connections:
            connection.close()


def test_limits_hold_for_all_workers_together(tmp_path: Path) -> None:
    with serving(tmp_path, loop(), "--workers", "2", "--max-concurrency", "4", "--threads", "1") as server:
        connections = [server.connect() for _ in range(12)]  # so many that each worker has its share and more
        for connection in connections:
            connection.request("GET", "/v2")
            assert connection.getresponse().read()
        for connection in connections:
            connection.request("POST", INFER, trips(100_000))
        wait_until(lambda: metrics(server)["requests_in_flight"] == 4, "in flight")
        assert [server.infer(trips(1)).status for _ in range(4)] == [429] * 4
        assert Counter(connection.getresponse().status for connection in connections) == {200: 4, 429: 8}


def test_drain_under_load(tmp_path: Path) -> None:
    with serving(tmp_path, classifier(), "--workers", "2") as server:
        results: Counter[str] = Counter()
        lock = threading.Lock()

        def call() -> None:
            connection = server.connect()
            told = False
            while not told:
                connection.request("POST", INFER, body(1, 2, 3, 4))
                response = connection.getresponse()
                response.read()
                told = response.getheader("connection") == "close"
                with lock:
                    results[str(response.status)] += 1

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait_until(lambda: results["200"] > 100, "load")
        assert server.stop() == 0
        for thread in threads:
            thread.join(10)
        assert set(results) == {"200"}
        assert server.log.read_text().count("requests_cut_off=0") == 2


@pytest.mark.parametrize("wait", ["ready", "listening"])
def test_workers_end_with_their_supervisor(tmp_path: Path, wait: str) -> None:
    content = classifier() if wait == "ready" else loop(10**12)
    with serving(tmp_path, content, "--workers", "2", wait=wait) as server:
        wait_until(server.workers, "forked")
        workers = server.workers()
        assert len(workers) == (2 if wait == "ready" else 1)  # the first one's load is the trial
        server.process.kill()
        wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in workers), "ended")


def test_sigterm_while_the_model_loads(tmp_path: Path) -> None:
    with serving(tmp_path, loop(10**12), "--workers", "2", wait="listening") as server:
        wait_until(lambda: server.get("/v2/health/live").status == 200, "live")
        assert server.get("/v2/health/ready").status == 503
        assert server.infer(trips(1)).status == 503
        assert server.stop(5) == 0


def test_a_model_that_is_not_served_ends_all(tmp_path: Path) -> None:
    with serving(tmp_path, b"not a model", "--workers", "2", wait="") as server:
        assert server.process.wait(20) == 1
        assert (tmp_path / "termination").read_text().startswith("ModelCorrupt: ")


def test_a_model_that_only_one_worker_can_load_ends_all(tmp_path: Path) -> None:
    content = """
import os
if "ONCE" in os.environ and os.path.exists(os.environ["ONCE"]):
    os.abort()
class Model:
    inputs = [("x", "FP32", [-1])]
    outputs = [("y", "FP32", [-1])]
    def predict(self, inputs):
        open(os.environ["ONCE"], "w").close()
        return {"y": inputs["x"]}
"""
    flags = ("--format", "Python", "--workers", "2")
    with serving(tmp_path, content.encode(), *flags, wait="", name="model.py", ONCE=str(tmp_path / "once")) as server:
        assert server.process.wait(20) == 1
        termination = (tmp_path / "termination").read_text()
        assert termination.startswith("ModelLoadCrashed: loading models killed its process (SIGABRT)"), termination


def test_workers_that_die_again_and_again_end_the_server(tmp_path: Path) -> None:
    with serving(tmp_path, classifier(), "--workers", "2", SLIPWAY_LOG_FORMAT="json") as server:
        dead: set[int] = set()

        def kill_one() -> bool:
            if server.process.poll() is not None:
                return True
            alive = [pid for pid in server.workers() if pid not in dead]
            if alive:
                dead.add(alive[0])
                os.kill(alive[0], signal.SIGKILL)
            return False

        wait_until(kill_one, "the end")
        assert server.process.returncode == 1
        assert len(dead) == 5
        termination = (tmp_path / "termination").read_text()
        assert re.match("ModelRunCrashed: 5 workers died within 60 s, the last by SIGKILL: ", termination)
        told = [json.loads(line)["message"] for line in server.log.read_text().splitlines() if line.startswith("{")]
        assert told.count("a worker died and is started again") == 4
