"""Small models of every format, trained here: files, rows to ask with, and what the library itself answers to them."""

import functools
import io
import re
import struct
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import numpy.typing as npt
import pandas
import skops.io
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from tests.e2e import models

Array = npt.NDArray[Any]
_CITIES = ("Bonn", "Łódź", "Oslo")


@dataclass(frozen=True)
class Trained:
    """A model: its file, inputs by name, outputs by name as they must be answered when none is asked for."""

    content: bytes
    inputs: dict[str, Array]
    outputs: dict[str, Array]


@functools.cache
def _rows() -> tuple[Array, Array]:
    rows = np.random.default_rng(0).normal(size=(200, 3))
    return rows, (rows[:, 0] + rows[:, 1] > 0).astype(np.int64)


def onnx() -> Trained:
    """Answer y = x, FP32."""
    rows = np.array([[1, 2, 3, 4], [0.5, -1, 0, 8]], np.float32)
    return Trained(models.onnx_file(1), {"x": rows}, {"y": rows})


@functools.cache
def xgboost_classifier(folder: Path) -> Trained:
    """Answer a classifier as UBJ; it answers classes."""
    rows, labels = _rows()
    model = xgboost.XGBClassifier(n_estimators=4, max_depth=2).fit(rows, labels)
    model.save_model(folder / "model.ubj")
    asked = rows[:6].astype(np.float32)
    return Trained((folder / "model.ubj").read_bytes(), {"input": asked}, {"predict": model.predict(asked).astype(np.int64)})


@functools.cache
def lightgbm_booster() -> Trained:
    """Answer a booster as text; it answers probabilities."""
    rows, labels = _rows()
    options = {"objective": "binary", "num_leaves": 7, "verbose": -1, "deterministic": True}
    model = lightgbm.train(options, lightgbm.Dataset(rows, labels), 5)
    asked = rows[:5]
    return Trained(model.model_to_string().encode(), {"input": asked}, {"predict": np.asarray(model.predict(asked))})


@functools.cache
def pipeline() -> Trained:
    """Answer, as skops, a classifier with its preprocessing: one column of text, one of numbers, by name."""
    rows, labels = _rows()
    table = pandas.DataFrame({"city": [_CITIES[at % 3] for at in range(len(rows))], "age": rows[:, 0]})
    steps = ColumnTransformer([("city", OneHotEncoder(), ["city"]), ("age", StandardScaler(), ["age"])])
    model = Pipeline([("columns", steps), ("model", LogisticRegression())]).fit(table, labels)
    asked = table.head(5)
    inputs = {"city": asked["city"].to_numpy(object), "age": asked["age"].to_numpy(np.float64)}
    return Trained(skops.io.dumps(model), inputs, {"predict": model.predict(asked)})


@functools.cache
def pickled() -> Trained:
    """Answer a classifier as joblib pickles it."""
    rows, labels = _rows()
    model = LogisticRegression().fit(rows, labels)
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    asked = rows[:5]
    return Trained(buffer.getvalue(), {"input": asked}, {"predict": model.predict(asked)})


def python() -> Trained:
    """Answer what the model in the folder `own` answers, which is no single file: text without its accents, and its length."""
    text, plain = np.array(["Łódź", "Oslo"], object), np.array(["Lodz", "Oslo"], object)
    return Trained(b"", {"text": text}, {"plain": plain, "length": np.array([4, 4], np.int32)})


def lightgbm_that_crashes() -> bytes:
    """Answer a LightGBM file whose first tree leads out of its array, which its library follows."""
    content = re.sub(rb"tree_sizes=.*\n", b"", lightgbm_booster().content)
    return re.sub(rb"left_child=-?\d+", b"left_child=1000000000", content, count=1)


def xgboost_that_crashes(content: bytes) -> bytes:
    """Answer a UBJ file whose first tree leads out of its array."""
    at = content.index(b"left_children[$l#L") + len(b"left_children[$l#L") + 8
    return content[:at] + struct.pack(">i", 1_000_000_000) + content[at + 4 :]


def packed(**files: bytes) -> bytes:
    """Answer a .tar.gz of files in a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"churn/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
