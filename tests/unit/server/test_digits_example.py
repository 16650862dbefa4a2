"""The digits example, as its README tells: trained, served, scored, and its corrupt file refused."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.server.support import ROOT, serving

DIGITS = ROOT / "examples" / "digits"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("digits")
    done = subprocess.run([sys.executable, DIGITS / "train.py", "--out", out], capture_output=True, text=True, check=True)
    assert len(re.findall(r"^\S+: \d+ bytes, sha256 [0-9a-f]{64}$", done.stdout, re.MULTILINE)) == 6
    return out


def score(port: int, trained: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, DIGITS / "score.py", "--url", f"http://127.0.0.1:{port}/v2/models/m/infer"]
    return subprocess.run(
        [*command, "--data", trained / "heldout.json", *flags],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )


@pytest.mark.parametrize(("name", "low", "high"), [("v1.onnx", 60, 90), ("v2.onnx", 96, 100)])
def test_served_and_scored(tmp_path: Path, trained: Path, name: str, low: float, high: float) -> None:
    with serving(tmp_path, (trained / name).read_bytes()) as server:
        done = score(server.port, trained)
        assert done.returncode == 0, done.stdout
        found = re.search(r"revision m-7f9c \(version 3\): 600 answers, accuracy (\S+)%\nrequests 600, failed 0", done.stdout)
        assert found, done.stdout
        assert low < float(found[1]) < high
    done = score(server.port, trained)
    assert done.returncode == 1
    # The first of them may meet what the kernel still holds of the server.
    assert re.search(r"requests 600, failed 600\n  \d+ x ConnectionRefusedError", done.stdout), done.stdout


def test_goes_on_until_told(tmp_path: Path, trained: Path) -> None:
    with serving(tmp_path, (trained / "v1.onnx").read_bytes()) as server:
        flag = tmp_path / "over"
        flag.touch()
        assert "requests 0, failed 0" in score(server.port, trained, "--until-file", str(flag)).stdout
        assert "failed 0" in score(server.port, trained, "--seconds", "0.5", "--rate", "50").stdout


def test_corrupt(tmp_path: Path, trained: Path) -> None:
    with serving(tmp_path, (trained / "corrupt.onnx").read_bytes(), wait="") as server:
        assert server.process.wait(20) == 1
    assert (tmp_path / "termination").read_text() == (
        "ModelCorrupt: model.onnx is not a sound ONNX model (INVALID_PROTOBUF : Protobuf parsing failed.): "
        "export and upload it again, and set its sha256"
    )


@pytest.mark.parametrize(("name", "fails"), [("v3-slow", (0.0, 0.0)), ("v4-errs", (0.2, 0.35))])
def test_mistaken_versions_answer_like_version_2_but_for_their_mistakes(
    tmp_path: Path, trained: Path, name: str, fails: tuple[float, float]
) -> None:
    with tarfile.open(trained / f"{name}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    spec = importlib.util.spec_from_file_location("model", tmp_path / "model.py")
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.Model()
    model.load(tmp_path)
    heldout = json.loads((trained / "heldout.json").read_text())
    right, failed = [], 0
    for image, label in list(zip(heldout["images"], heldout["labels"], strict=True))[: 40 if name == "v3-slow" else 600]:
        try:
            found = model.predict({"image": np.array([image], np.float32)})
        except IndexError:
            failed += 1
        else:
            right.append(found["label"].tolist() == [label])
    assert fails[0] <= failed / (failed + len(right)) <= fails[1]
    assert sum(right) / len(right) > 0.9
