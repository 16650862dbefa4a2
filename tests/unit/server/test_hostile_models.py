"""Models that are damaged, hostile or wrong: what `serve` says of them, and what their callers get."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.ensemble import RandomForestClassifier
from skops import io as skops_io
from tests.unit.server.hostile_support import SECRET, several_types
from tests.unit.server.support import ROOT, Outcome, Server, environment, run, serving, wait_until

from slipway_server.termination import Reason

# --- files ------------------------------------------------------------------------------------------------------------

LOADS = """
import logging, os, random, signal, sys
from pathlib import Path
from slipway_server import formats, loading, workers
from slipway_server.termination import TerminalError
logging.disable()
format_name, path = sys.argv[1], Path(sys.argv[2])
content = path.read_bytes()
formats.prepare(format_name, path)
for seed in range(20):
    chance = random.Random(seed)
    mutated = bytearray(content)
    for _ in range(chance.randint(1, 30)):
        at = chance.randrange(len(mutated))
        match chance.randrange(4):
            case 0: mutated[at] = chance.randrange(256)
            case 1: del mutated[at : at + chance.randrange(40)]
            case 2: mutated[at:at] = mutated[at : at + 40]
            case _: mutated[at : at + 4] = chance.choice((b"\\xff\\xff\\xff\\x7f", b"9999", b"-1 ", b"\\0\\0\\0\\0"))
    path.write_bytes(mutated)
    pid = os.fork()
    if pid == 0:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            loading.load(path, format_name, 1, formats.SAFE, 1 << 30)
            said = "served"
        except TerminalError as error:
            said = error.line()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            print(said, flush=True)
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    if status == signal.SIGALRM:
        print(workers.load_timed_out(path, 0.3).line(), flush=True)
    elif status:
        print(workers.load_ended(path, status).line(), flush=True)
"""
ROWS = np.random.default_rng(1).random((60, 4))
LABELS = (ROWS.sum(1) > 2).astype(int)


def save(format_name: str, path: Path) -> None:
    if format_name == "ONNX":
        path.write_bytes(several_types())
    elif format_name == "XGBoost":
        xgboost.train({"max_depth": 3, "nthread": 1}, xgboost.DMatrix(ROWS, LABELS), 3).save_model(path)
    elif format_name == "LightGBM":
        lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(ROWS, LABELS), 3).save_model(path)
    else:
        skops_io.dump(RandomForestClassifier(3).fit(ROWS, LABELS), path)


@pytest.mark.parametrize(
    ("format_name", "name", "reason"),
    [
        ("ONNX", "model.onnx", "ModelCorrupt"),
        ("XGBoost", "model.json", "ModelCorrupt"),
        ("XGBoost", "model.ubj", "ModelCorrupt"),
        ("LightGBM", "model.txt", "ModelLoadCrashed"),
        ("SKLearn", "model.skops", "ModelCorrupt"),
    ],
)
def test_damaged_files_end_with_a_reason(tmp_path: Path, format_name: str, name: str, reason: str) -> None:
    save(format_name, tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-c", LOADS, format_name, tmp_path / name],
        env=environment(), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")  # what a library prints of a broken file are pieces of it
    told = done.stdout.splitlines()
    assert len(told) == 20
    reasons = {line.partition(":")[0] for line in told}
    assert reasons <= {
        "served",
        "ModelCorrupt",
        "ModelLoadCrashed",
        "OutOfMemory",
        "ModelLoadTimeout",
        "UnsupportedModel",
        "UntrustedModel",
    }
    assert reason in reasons
    assert all(len(line) > 40 for line in told if line != "served")


# --- code at load -----------------------------------------------------------------------------------------------------


def serve(folder: Path, content: str, *flags: str) -> Outcome:
    """`serve` of a Python model, which must end."""
    (folder / "models").mkdir(exist_ok=True)
    (folder / "models" / "model.py").write_text(content)
    arguments = ("--model-dir", folder / "models", "--name", "m", "--format", "Python", "--host", "127.0.0.1", "--port", "0")
    return run(folder, "serve", *arguments, "--load-memory", str(256 << 20), *flags)


EVERY_FILE = "for fd in range(3, 99):\n  try: {}\n  except OSError: pass"


@pytest.mark.parametrize(
    ("code", "reason", "message"),
    [
        ("os.abort()", Reason.MODEL_LOAD_CRASHED, "SIGABRT"),
        ("ctypes.string_at(0)", Reason.MODEL_LOAD_CRASHED, "SIGSEGV"),
        ("os._exit(0)", Reason.MODEL_LOAD_CRASHED, "exit code 0"),
        ("os._exit(3)", Reason.MODEL_LOAD_CRASHED, "exit code 3"),
        ("sys.exit(0)", Reason.MODEL_CORRUPT, "SystemExit"),
        ("raise KeyboardInterrupt", Reason.MODEL_CORRUPT, "KeyboardInterrupt"),
        ("raise Exception('a\\n' * 9000)", Reason.MODEL_CORRUPT, "Exception: a a a"),
        ("while True: pass", Reason.MODEL_LOAD_TIMEOUT, "longer than 1 s"),
        ("signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32)); time.sleep(60)", Reason.MODEL_LOAD_TIMEOUT, "longer than 1 s"),
        ("x = [bytearray(1 << 20) for _ in range(1 << 20)]", Reason.OUT_OF_MEMORY, "memory"),
        (EVERY_FILE.format("os.write(fd, b'[\"x\", 1')"), Reason.MODEL_CORRUPT, "no attribute 'Model'"),
        (EVERY_FILE.format("os.close(fd)"), Reason.MODEL_LOAD_CRASHED, "SIGABRT"),
    ],
)  # fmt: skip
def test_code_that_does_not_load(tmp_path: Path, code: str, reason: Reason, message: str) -> None:
    seconds = "1" if reason is Reason.MODEL_LOAD_TIMEOUT else "20"
    ended = serve(tmp_path, f"import ctypes, os, signal, sys, time\n{code}\n", "--load-timeout", seconds)
    assert ended.code == 1
    assert ended.reason == reason, ended.termination
    assert re.search(message, ended.termination), ended.termination


DAEMON = (
    """
import os, sys, time
if not os.fork():  # a pool of workers of its own, say
    with open(os.environ["PIDS"], "a") as pids:
        pids.write(f"{os.getpid()}\\n")
    time.sleep(120)
    os._exit(0)
while not os.path.exists(os.environ["PIDS"]):
    time.sleep(0.01)
"""
    + """
class Model:
    inputs = [("x", "FP32", [-1])]
    outputs = [("y", "FP32", [-1])]
    def predict(self, inputs):
        return {"y": inputs["x"]}
"""
)


@pytest.mark.parametrize("ends", ["sys.exit(0)", "os.abort()", "pass"])
def test_processes_that_a_model_starts_do_not_outlive_it(tmp_path: Path, ends: str) -> None:
    pids = tmp_path / "pids"
    with serving(tmp_path, f"{DAEMON}{ends}".encode(), "--format", "Python", wait="", name="model.py", PIDS=str(pids)) as server:
        if ends == "pass":
            server.wait_listening()
            server.wait_ready()
            server.stop()
        server.process.wait(20)
        (started,) = pids.read_text().split()
        wait_until(lambda: not running(int(started)), "the end of the model's process")


def running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


# --- code at run time -------------------------------------------------------------------------------------------------

MOODS = """
import asyncio, ctypes, os, sys
import numpy as np
class Odd:
    def __array__(self, *_, **__): raise RuntimeError("no")
    def __str__(self): raise RuntimeError("no")
class Model:
    inputs = [("code", "BYTES", [-1])]
    outputs = [("y", "FP32", [-1]), ("t", "BYTES", [-1])]
    def predict(self, inputs):
        out = {"y": np.ones(1, np.float32), "t": np.array(["ok"], object)}
        scope = {**globals(), "out": out}
        exec(inputs["code"][0], scope)
        return scope["out"]
    def explain(self, inputs):
        return self.predict(inputs)
"""


def ask(code: str) -> dict[str, Any]:
    return {"id": SECRET, "inputs": [{"name": "code", "datatype": "BYTES", "shape": [1], "data": [f"{code} # {SECRET}"]}]}


@pytest.fixture(scope="module")
def moody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("moody"), MOODS.encode(), "--format", "Python", name="model.py") as server:
        yield server


RAISED = (
    "RuntimeError", "KeyError", "AssertionError", "TypeError", "ZeroDivisionError", "MemoryError", "RecursionError",
    "StopIteration", "StopAsyncIteration", "TimeoutError", "GeneratorExit", "KeyboardInterrupt", "SystemExit", "BaseException",
    "asyncio.CancelledError", "asyncio.InvalidStateError",
)  # fmt: skip
WRONG = [f"raise {error}('{SECRET}')" for error in RAISED] + [
    "raise BaseExceptionGroup('a', [KeyboardInterrupt()])", "sys.exit(0)", "def f(): f()\nf()", "exec('(' * 1000)",
    "out = None", "out = 1", "out = []", "out = {}", "out = {'y': 1}", "out = {1: 2}", "out = {'Y': [1.0], 't': ['a']}",
    "out['y'] = None", "out['y'] = 'text'", "out['y'] = ['1']", "out['y'] = object()", "out['y'] = Odd()", "out['y'] = {1: 2}",
    "out['y'] = [[1.0], [1.0, 2.0]]", "out['y'] = 1.0", "out['y'] = [[1.0]]", "out['y'] = np.ones((1,) * 20)", "out['y'] = [1j]",
    "out['y'] = np.zeros(1, 'M8[s]')", "out['y'] = np.zeros(1, 'V8')", "out['y'] = np.zeros(1, [('a', 'f4')])",
    "out['y'] = [None]",
    "out['y'] = np.ones(1 << 45)", "out['y'] = [10 ** 400]", "out['y'] = len", "out['t'] = [[Odd()]]", "out['t'] = [Odd()]",
    "out['t'] = 1",
]  # fmt: skip


@pytest.mark.parametrize("code", WRONG)
def test_what_a_model_does_wrong_is_its_callers_500_and_nobody_elses(moody: Server, code: str) -> None:
    answer = moody.infer(ask(code))
    assert answer.status == 500, answer.body
    assert answer.json["error"].startswith("the model "), answer.body
    assert SECRET not in answer.json["error"]
    good = moody.infer(ask(""))
    assert (good.status, [one["data"] for one in good.json["outputs"]]) == (200, [[1], ["ok"]])
    assert "slipway_server_requests_in_flight 0" in moody.get("/metrics").body.decode()
    assert not re.search(f"Traceback|a defect|{SECRET}", moody.log.read_text())


ODD_BUT_RIGHT = {
    "out['y'] = [1]": ([1], ["ok"]),
    "out['y'] = [float('nan'), float('inf'), -float('inf')]": ([None] * 3, ["ok"]),
    "out['y'] = np.float64([1e300, 1.5])": ([None, 1.5], ["ok"]),
    "out['y'] = np.zeros(0)": ([], ["ok"]),
    "out['y'] = np.arange(6.0)[::-2]": ([5, 3, 1], ["ok"]),
    "out['y'] = np.ones(2, '>f4')": ([1, 1], ["ok"]),
    "out['t'] = ['a\\0b', b'c', 'é']": ([1], ["a\0b", "c", "é"]),
    "out['t'] = ['\\ud800', b'\\xff']": ([1], ["7aCA", "/w=="]),
    "out['t'] = ['a\\0', b'b\\0\\0']": ([1], ["a\0", "b\0\0"]),
    "out['t'] = np.array(['a', 'é'])": ([1], ["a", "é"]),
    "out['t'] = np.array([b'a', b'\\xff'])": ([1], ["YQ==", "/w=="]),
    "out['t'] = [None, 1.5]": ([1], ["None", "1.5"]),
    "out['z'] = object()": ([1], ["ok"]),
}


@pytest.mark.parametrize("code", ODD_BUT_RIGHT)
def test_odd_answers_of_a_model_are_json(moody: Server, code: str) -> None:
    answer = moody.infer(ask(code))
    assert answer.status == 200, answer.body
    assert tuple(one["data"] for one in answer.json["outputs"]) == ODD_BUT_RIGHT[code]


@pytest.mark.parametrize(
    "code",
    [
        "out['y'] = [1j]",
        "out['y'] = Odd()",
        "out['y'] = np.zeros(1, 'V8')",
        "out['y'] = np.zeros(1, 'M8[s]')",
        "out = 1",
        "sys.exit(0)",
    ],
)
def test_explanations_that_are_none(moody: Server, code: str) -> None:
    answer = moody.infer(ask(code), "/v2/models/m/explain")
    assert answer.status == 500, answer.body
    assert answer.json["error"].startswith("the model "), answer.body
    assert moody.infer(ask(""), "/v2/models/m/explain").status == 200


def test_a_model_that_kills_its_process_takes_one_worker_with_it(tmp_path: Path) -> None:
    flags = ("--format", "Python", "--workers", "2")
    with serving(tmp_path, MOODS.encode(), *flags, name="model.py") as server:
        with pytest.raises((ConnectionError, OSError)):
            server.infer(ask("os.abort()"))
        for _ in range(8):
            assert server.infer(ask("")).status == 200
        wait_until(lambda: "slipway_server_worker_restarts_total 1\n" in server.get("/metrics").body.decode(), "a new worker")
        wait_until(lambda: "slipway_server_workers 2\n" in server.get("/metrics").body.decode(), "two workers")
        assert SECRET not in server.log.read_text()
        assert "a worker died and is started again" in server.log.read_text()


def test_a_model_that_kills_the_only_worker_is_loaded_again(tmp_path: Path) -> None:
    with serving(tmp_path, MOODS.encode(), "--format", "Python", name="model.py") as server:
        with pytest.raises((ConnectionError, OSError)):
            server.infer(ask("os.abort()"))
        wait_until(lambda: server.get("/v2/health/ready").status == 200, "ready again")  # what asks meanwhile waits
        assert server.infer(ask("")).status == 200
        assert "slipway_server_worker_restarts_total 1\n" in server.get("/metrics").body.decode()
        assert not (tmp_path / "termination").exists()
        assert re.search("a worker died and is started again .*SIGABRT", server.log.read_text())
        assert SECRET not in server.log.read_text()


# --- the server's own code --------------------------------------------------------------------------------------------


def test_the_server_runs_no_other_program() -> None:
    """Nor text as code, but for the Python format's module; nothing that a file or a request holds gets near a shell."""
    package = ROOT / "serving-image" / "slipway_server"
    banned = re.compile(
        r"\bsubprocess\b|\bos\.(system|popen|exec\w*|spawn\w*|posix_spawn\w*)\b|\bpty\b|(?<![.\w])(eval|exec|compile|__import__)\("
        r"|\b(pickle|marshal|shelve)\.|shell=True|allow_pickle=True|\byaml\.load\("
    )
    found = [
        f"{file.name}: {line}" for file in package.rglob("*.py") for line in file.read_text().splitlines() if banned.search(line)
    ]
    assert not found


def test_the_image_runs_as_nobody_with_a_root_that_is_not_written() -> None:
    lines = (ROOT / "serving-image" / "Dockerfile").read_text().splitlines()
    assert "USER 65532:65532" in lines
    assert lines.index("USER 65532:65532") > max(place for place, line in enumerate(lines) if line.startswith("RUN"))
    assert not [line for line in lines if re.search(r"chmod|chown|setuid|sudo", line)]
