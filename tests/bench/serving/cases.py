"""The models of the benchmark: files for every server, one request of one row, and the answer that it must get."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slipway_dev.cache import content_key, entry
from slipway_dev.python import REQUIREMENTS

Array = np.ndarray[Any, Any]
Model = Any  # of a library without types

_SEED = 7


@dataclass(frozen=True)
class Case:
    """One model and one request.

    `array` is the request's only input, FP32 or (scikit-learn and LightGBM, which compute so) FP64; `expected` are the
    values that one of the outputs must have.
    """

    name: str
    title: str
    runtime: str
    input: str
    file: Path
    peer_file: Path  # the same model in the form that the peers read
    array: Array
    expected: Array


def make(names: list[str]) -> list[Case]:
    """Answer the cases of these names, their files made once in the cache folder."""
    folder = entry("bench-models", content_key([Path(__file__), REQUIREMENTS]), _build)
    return [_read(folder / name) for name in names]


def _read(folder: Path) -> Case:
    about = json.loads((folder / "case.json").read_text())
    files = {key: folder / about.pop(key) for key in ("file", "peer_file")}
    return Case(**about, **files, array=np.load(folder / "array.npy"), expected=np.load(folder / "expected.npy"))


def _write(folder: Path, title: str, runtime: str, name: str, array: Array, expected: Array, file: str, peer: str = "") -> None:
    about = {"name": folder.name, "title": title, "runtime": runtime, "input": name, "file": file, "peer_file": peer or file}
    (folder / "case.json").write_text(json.dumps(about))
    np.save(folder / "array.npy", array)
    np.save(folder / "expected.npy", np.asarray(expected))


def _iris(folder: Path) -> None:
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    x, y = load_iris(return_X_y=True)
    _export(folder, LogisticRegression(max_iter=1000).fit(x, y), 4)
    array = x[:1].astype(np.float32)
    _write(folder, "iris, logistic regression (ONNX)", "onnx", "x", array, _run_onnx(folder, "x", array)[1], "model.onnx")


def _cnn(folder: Path) -> None:
    """LeNet's shape with padding: 16 and 32 filters of 3x3, each pooled, then 1568 x 10: 1.0 million multiply-adds."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(_SEED)
    weights = {"w1": (16, 1, 3, 3), "w2": (32, 16, 3, 3), "w3": (32 * 49, 10)}
    constants = [
        numpy_helper.from_array(random.normal(0, 0.1, shape).astype(np.float32), name) for name, shape in weights.items()
    ]
    node = helper.make_node
    convolve, pool = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        node("Conv", ["image", "w1"], ["c1"], **convolve),
        node("Relu", ["c1"], ["r1"]),
        node("MaxPool", ["r1"], ["p1"], **pool),
        node("Conv", ["p1", "w2"], ["c2"], **convolve),
        node("Relu", ["c2"], ["r2"]),
        node("MaxPool", ["r2"], ["p2"], **pool),
        node("Flatten", ["p2"], ["flat"]),
        node("MatMul", ["flat", "w3"], ["logits"]),
    ]
    tensor = helper.make_tensor_value_info
    inputs = [tensor("image", TensorProto.FLOAT, ["batch", 1, 28, 28])]
    outputs = [tensor("logits", TensorProto.FLOAT, ["batch", 10])]
    graph = helper.make_graph(nodes, "cnn", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx")
    # Grey values as clients send them: 0 to 255 scaled to 1, four decimals.
    array = (random.integers(0, 256, (1, 1, 28, 28)) / 255).round(4).astype(np.float32)
    _write(folder, "28x28 CNN (ONNX)", "onnx", "image", array, _run_onnx(folder, "image", array)[0], "model.onnx")


def _forest_model() -> tuple[Model, Array]:
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    x, y = load_digits(return_X_y=True)
    return RandomForestClassifier(500, random_state=_SEED).fit(x, y), x[:1]


def _forest(folder: Path) -> None:
    import joblib
    import skops.io

    model, array = _forest_model()
    skops.io.dump(model, folder / "model.skops")
    (folder / "peers").mkdir()  # a model folder of Slipway's holds one model
    joblib.dump(model, folder / "peers" / "model.joblib")
    title = "random forest, 500 trees (scikit-learn)"
    _write(folder, title, "sklearn", "x", array, model.predict(array), "model.skops", "peers/model.joblib")


def _forest_onnx(folder: Path) -> None:
    model, array = _forest_model()
    array = array.astype(np.float32)
    _export(folder, model, array.shape[1])
    expected = _run_onnx(folder, "x", array)[1]
    _write(folder, "the same forest exported (ONNX)", "onnx", "x", array, expected, "model.onnx")


def _xgboost(folder: Path) -> None:
    import xgboost
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    model = xgboost.XGBRegressor(n_estimators=100, max_depth=6, random_state=_SEED, n_jobs=1).fit(x, y)
    model.save_model(folder / "model.ubj")
    array = x[:1].astype(np.float32)
    _write(folder, "XGBoost, 100 trees", "xgboost", "x", array, model.predict(array), "model.ubj")


def _lightgbm(folder: Path) -> None:
    import lightgbm
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    model = lightgbm.LGBMRegressor(n_estimators=100, random_state=_SEED, n_jobs=1, verbose=-1).fit(x, y).booster_
    model.save_model(folder / "model.txt")
    _write(folder, "LightGBM, 100 trees", "lightgbm", "x", x[:1], model.predict(x[:1]), "model.txt")


BUILDERS: dict[str, Callable[[Path], None]] = {
    "iris": _iris,
    "cnn": _cnn,
    "forest": _forest,
    "forest-onnx": _forest_onnx,
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
}


def _build(folder: Path) -> None:
    for name, build in BUILDERS.items():
        (folder / name).mkdir()
        build(folder / name)


def _export(folder: Path, model: Model, features: int) -> None:
    """Write a classifier as ONNX: label and probabilities of an input named x."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    types = [("x", FloatTensorType([None, features]))]
    exported = to_onnx(model, initial_types=types, options={"zipmap": False}, target_opset=17)
    (folder / "model.onnx").write_bytes(exported.SerializeToString())


def _run_onnx(folder: Path, name: str, array: Array) -> list[Array]:
    import onnxruntime

    return onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"]).run(None, {name: array})
