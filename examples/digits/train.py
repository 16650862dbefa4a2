"""Trains two recognisers of handwritten digits and writes what the demonstration needs.

    python train.py --out DIR

writes, the same bytes at every run with the same libraries:

    v1.onnx       a weak model: logistic regression on 60 images
    v2.onnx       a good one: a small neural network on 1,197 images
    v3-slow.tar.gz, v4-errs.tar.gz  v2.onnx with a model.py around it: v3_slow.py, v4_errs.py, two mistakes
    corrupt.onnx  v2 with its second half lost, as by a broken upload
    heldout.json  the 600 images that neither has seen, with their labels

Input: `image`, FP32 [N, 64], 8x8 grey values 0..16 row by row. Outputs: `label` INT64 [N], `probabilities` FP32 [N, 10].
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before onnxruntime loads: its official builds report usage otherwise

import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

HELD_OUT = 600
FEW = 60
MAX_BYTES = 900 * 1024  # what fits a ConfigMap, with some room


def export(model: Any, name: str) -> bytes:
    """The fitted classifier as ONNX, with plain tensors as outputs (no zipmap: a list of maps has no form in V2)."""
    final = model.steps[-1][1]
    exported = to_onnx(
        model,
        name=name,
        initial_types=[("image", FloatTensorType([None, 64]))],
        options={id(final): {"zipmap": False}},
        target_opset=17,
    )
    return exported.SerializeToString(deterministic=True)


def accuracy(content: bytes, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of images that the ONNX model names rightly."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    predicted = session.run(["label"], {"image": images.astype(np.float32)})[0]
    return float((predicted == labels).mean())


def packed(files: dict[str, bytes]) -> bytes:
    """An archive of the files, the same bytes at every run: without times and owners."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the digit recognisers of the demonstration.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)

    images, labels = load_digits(return_X_y=True)
    train_x, held_x, train_y, held_y = train_test_split(images, labels, test_size=HELD_OUT, random_state=0, stratify=labels)
    weak = make_pipeline(MinMaxScaler(), LogisticRegression(max_iter=1000)).fit(train_x[:FEW], train_y[:FEW])
    good = make_pipeline(MinMaxScaler(), MLPClassifier((128,), max_iter=400, random_state=0)).fit(train_x, train_y)

    files = {"v1.onnx": export(weak, "digits-v1"), "v2.onnx": export(good, "digits-v2")}
    for name, content in list(files.items()):
        print(f"{name}: accuracy {accuracy(content, held_x, held_y):.1%} on {HELD_OUT} held-out digits")
    for name, script in (("v3-slow.tar.gz", "v3_slow.py"), ("v4-errs.tar.gz", "v4_errs.py")):
        source = (Path(__file__).parent / script).read_bytes()
        files[name] = packed({"model.py": source, "v2.onnx": files["v2.onnx"]})
    files["corrupt.onnx"] = files["v2.onnx"][: len(files["v2.onnx"]) // 2]
    held_out = {"images": held_x.astype(int).tolist(), "labels": held_y.tolist()}
    files["heldout.json"] = json.dumps(held_out, separators=(",", ":")).encode()
    for name, content in files.items():
        if len(content) > MAX_BYTES:
            raise SystemExit(f"{name} has {len(content)} bytes: more than the {MAX_BYTES} that fit a ConfigMap")
        (out / name).write_bytes(content)
        print(f"{name}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
