"""Each format, loaded as the server loads it, answers as its own library does; what cannot be trusted or read is refused."""

import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import pandas as pd
import pytest
import sklearn.datasets
import xgboost
from onnx import TensorProto, helper
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from skops import io as skops_io
from tests.unit.server.support import environment, model, serving

from slipway_server import formats, loading
from slipway_server.batching import probe
from slipway_server.formats import Model, ModelInputError, ModelRunError
from slipway_server.tensors import Array
from slipway_server.termination import Reason, TerminalError

X, Y = sklearn.datasets.load_iris(return_X_y=True)
ROWS = X[::30]


def loaded(path: Path, format_name: str, trust: str = "Safe", threads: int = 1) -> Model:
    """As the server does it, but for the limits."""
    served = formats.load(formats.find(path, format_name, trust), format_name, threads, trust)
    loading.warm_up(served, path)
    return served


def ask(served: Model, *arrays: Any, outputs: Sequence[str] | None = None) -> dict[str, Array]:
    feeds = {spec.name: np.asarray(array, spec.datatype.dtype) for spec, array in zip(served.inputs, arrays, strict=True)}
    names = served.default_outputs if outputs is None else outputs
    answer = dict(zip(names, served.run(feeds, names, served.new_handle()), strict=True))
    for spec in served.outputs:  # what metadata says must be so
        if spec.name in answer:
            array = answer[spec.name]
            assert array.dtype == spec.datatype.dtype
            assert spec.dims is None or len(spec.dims) == array.ndim
            for want, have in zip(spec.dims or (), array.shape, strict=False):
                assert not isinstance(want, int) or want == have
    return answer


def refused(path: Path, format_name: str, reason: Reason, message: str, trust: str = "Safe") -> None:
    with pytest.raises(TerminalError) as caught:
        loaded(path, format_name, trust)
    assert caught.value.reason == reason
    assert re.search(message, caught.value.message), caught.value.message


# --- XGBoost ----------------------------------------------------------------------------------------------------------

TREES = {"max_depth": 3, "nthread": 1}
OBJECTIVES = {
    "logistic": ({"objective": "binary:logistic"}, Y > 0),
    "regression": ({"objective": "reg:squarederror"}, X[:, 0]),
    "softprob": ({"objective": "multi:softprob", "num_class": 3}, Y),
    "softmax": ({"objective": "multi:softmax", "num_class": 3}, Y),
    "dart": ({"objective": "binary:logistic", "booster": "dart"}, Y > 0),
    "linear": ({"objective": "reg:squarederror", "booster": "gblinear"}, X[:, 0]),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("suffix", [".json", ".ubj"])
def test_a_booster_gives_what_its_objective_gives(tmp_path: Path, name: str, suffix: str) -> None:
    parameters, target = OBJECTIVES[name]
    booster = xgboost.train(TREES | parameters, xgboost.DMatrix(X, target), 5)
    booster.save_model(tmp_path / f"model{suffix}")
    served = loaded(tmp_path, "XGBoost")
    holes = np.where(ROWS > 6, np.nan, ROWS)
    for rows in (ROWS, holes, ROWS[:1]):
        np.testing.assert_array_equal(ask(served, rows)["predict"], booster.predict(xgboost.DMatrix(rows)))
    assert served.row_wise
    assert served.any_name
    assert served.inputs[0].shape == [-1, 4]


@pytest.mark.parametrize("classes", [2, 3])
def test_a_classifier_of_xgboost_gives_classes_and_on_demand_probabilities(tmp_path: Path, classes: int) -> None:
    target = np.minimum(Y, classes - 1)
    classifier = xgboost.XGBClassifier(n_estimators=5, max_depth=3).fit(X, target)
    classifier.save_model(tmp_path / "model.ubj")
    served = loaded(tmp_path, "XGBoost")
    assert served.default_outputs == ("predict",)
    answer = ask(served, ROWS, outputs=["predict_proba", "predict"])
    np.testing.assert_array_equal(answer["predict"], classifier.predict(ROWS))
    np.testing.assert_allclose(answer["predict_proba"], classifier.predict_proba(ROWS), rtol=1e-6)


def test_runs_of_several_threads_do_not_mix(tmp_path: Path) -> None:
    booster = xgboost.train(TREES | {"objective": "reg:squarederror"}, xgboost.DMatrix(X, X[:, 0]), 5)
    booster.save_model(tmp_path / "model.json")
    lightgbm.train({"verbose": -1}, lightgbm.Dataset(X, Y), 5).save_model(tmp_path / "model.txt")
    for format_name in ("XGBoost", "LightGBM"):
        served = loaded(tmp_path, format_name)
        alone = [ask(served, X[place : place + 5])["predict"] for place in range(100)]
        same: list[bool] = []

        def again(start: int, served: Model = served, alone: list[Array] = alone, same: list[bool] = same) -> None:
            same.extend(np.array_equal(ask(served, X[place : place + 5])["predict"], alone[place]) for place in range(start, 100))

        threads = [threading.Thread(target=again, args=(start,)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(same) == 394
        assert all(same)


# --- LightGBM ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "target"),
    [({"objective": "binary"}, Y > 0), ({"objective": "multiclass", "num_class": 3}, Y), ({"objective": "regression"}, X[:, 0])],
    ids=["binary", "multiclass", "regression"],
)
@pytest.mark.parametrize("suffix", [".txt", ".lgb"])
def test_lightgbm(tmp_path: Path, parameters: dict[str, Any], target: Array, suffix: str) -> None:
    booster = lightgbm.train(parameters | {"verbose": -1, "num_threads": 1}, lightgbm.Dataset(X, target), 5)
    booster.save_model(tmp_path / f"model{suffix}")
    served = loaded(tmp_path, "LightGBM")
    for rows in (ROWS, np.where(ROWS > 6, np.nan, ROWS), ROWS[:1]):
        np.testing.assert_array_equal(ask(served, rows)["predict"], booster.predict(rows))
    assert served.row_wise


@pytest.mark.parametrize(
    ("format_name", "name", "content"),
    [
        ("XGBoost", "model.json", b"{}"),
        ("XGBoost", "model.json", b"not JSON"),
        ("XGBoost", "model.ubj", b"\xff" * 100),
        ("LightGBM", "model.txt", b""),
        ("LightGBM", "model.txt", b"tree\nversion=v4\n"),
        ("SKLearn", "model.skops", b"PK no zip"),
    ],
)
def test_files_that_are_not_models(tmp_path: Path, format_name: str, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path, format_name, Reason.MODEL_CORRUPT, f"{name} is not a sound")


# --- scikit-learn -----------------------------------------------------------------------------------------------------

FRAME = pd.DataFrame(
    {
        "age": [20.0, 30, 40, 50, 60, np.nan] * 5,
        "city": ["Bonn", "Köln", "Bonn", "Ulm", "Ulm", "Köln"] * 5,
        "size": [1.0, 2, 3, 4, 5, 6] * 5,
    }
)
LABELS = np.array(["no", "yes", "no", "yes", "yes", "no"] * 5)


def skops(folder: Path, estimator: Any) -> Model:
    skops_io.dump(estimator, folder / "model.skops")
    return loaded(folder, "SKLearn")


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(max_iter=500),
        RandomForestClassifier(5, n_jobs=2),
        HistGradientBoostingClassifier(max_iter=5),
        make_pipeline(StandardScaler(), LogisticRegression()),
        LinearRegression(),
        KMeans(3, n_init=1),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_estimators(tmp_path: Path, estimator: Any) -> None:
    estimator.fit(X, Y)
    served = skops(tmp_path, estimator)
    assert served.default_outputs == ("predict",)
    assert served.inputs[0].shape == [-1, 4]
    for name in (spec.name for spec in served.outputs):
        np.testing.assert_allclose(ask(served, ROWS, outputs=[name])[name], getattr(estimator, name)(ROWS), rtol=1e-9)
    if hasattr(estimator, "predict_proba"):
        assert "predict_proba" in {spec.name for spec in served.outputs}
    assert served.row_wise
    if not isinstance(estimator, HistGradientBoostingClassifier | RandomForestClassifier):  # these can
        with pytest.raises(ModelInputError, match="NaN"):
            ask(served, np.full((1, 4), np.nan))


def test_a_pipeline_of_named_columns_takes_one_input_a_column(tmp_path: Path) -> None:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = make_column_transformer((numbers, ["age", "size"]), (OneHotEncoder(), ["city"]))
    estimator = make_pipeline(columns, LogisticRegression()).fit(FRAME, LABELS)
    served = skops(tmp_path, estimator)
    described = [(spec.name, spec.datatype.name, spec.shape) for spec in served.inputs]
    assert described == [("age", "FP64", [-1]), ("city", "BYTES", [-1]), ("size", "FP64", [-1])]
    answer = ask(served, FRAME["age"], FRAME["city"], FRAME["size"], outputs=["predict", "predict_proba"])
    assert answer["predict"].tolist() == estimator.predict(FRAME).tolist()
    np.testing.assert_allclose(answer["predict_proba"], estimator.predict_proba(FRAME))
    assert served.row_wise  # warmed up and probed with cities that it knows
    with pytest.raises(ModelInputError, match="unknown categories"):
        ask(served, [1.0], ["Rom"], [1.0])


def test_named_columns_of_numbers_are_one_input(tmp_path: Path) -> None:
    frame = FRAME[["age", "size"]]
    columns = make_column_transformer((SimpleImputer(), ["age"]), remainder="passthrough")
    estimator = make_pipeline(columns, LogisticRegression()).fit(frame, LABELS)
    served = skops(tmp_path, estimator)
    assert [(spec.datatype.name, spec.shape) for spec in served.inputs] == [("FP64", [-1, 2])]
    assert ask(served, frame)["predict"].tolist() == estimator.predict(frame).tolist()


def test_columns_without_names_are_numbered(tmp_path: Path) -> None:
    table = FRAME[["city", "size"]].to_numpy(object)
    columns = make_column_transformer((OneHotEncoder(), [0]), (StandardScaler(), [1]))
    estimator = make_pipeline(columns, LogisticRegression()).fit(table, LABELS)
    served = skops(tmp_path, estimator)
    assert [(spec.name, spec.datatype.name) for spec in served.inputs] == [("x0", "BYTES"), ("x1", "FP64")]
    assert ask(served, table[:, 0], table[:, 1])["predict"].tolist() == estimator.predict(table).tolist()


def test_documents(tmp_path: Path) -> None:
    texts = ["good day", "bad night", "good night", "bad day"]
    estimator = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0])
    served = skops(tmp_path, estimator)
    assert [(spec.datatype.name, spec.shape) for spec in served.inputs] == [("BYTES", [-1])]
    assert ask(served, texts)["predict"].tolist() == [1, 0, 1, 0]


def test_what_only_transforms(tmp_path: Path) -> None:
    encoder = OneHotEncoder().fit(FRAME[["city"]].to_numpy(object))
    served = skops(tmp_path, encoder)
    answer = ask(served, [["Ulm"], ["Bonn"]])
    assert answer["transform"].tolist() == [[0, 0, 1], [1, 0, 0]]


def test_several_targets(tmp_path: Path) -> None:
    targets = np.stack([Y, Y > 0], 1)
    estimator = DecisionTreeClassifier(max_depth=3).fit(X, targets)
    served = skops(tmp_path, estimator)
    assert [spec.name for spec in served.outputs] == ["predict", "predict_proba_0", "predict_proba_1"]
    answer = ask(served, ROWS, outputs=["predict_proba_1", "predict"])
    np.testing.assert_array_equal(answer["predict"], estimator.predict(ROWS))
    np.testing.assert_array_equal(answer["predict_proba_1"], estimator.predict_proba(ROWS)[1])


def double(values: Any) -> Any:
    return 2 * values


def test_skops_with_a_type_that_may_run_code(tmp_path: Path) -> None:
    estimator = make_pipeline(FunctionTransformer(double), LogisticRegression(max_iter=500)).fit(X, Y)
    skops_io.dump(estimator, tmp_path / "model.skops")
    refused(tmp_path, "SKLearn", Reason.UNTRUSTED_MODEL, r"double.*trust: Unsafe")
    served = loaded(tmp_path, "SKLearn", "Unsafe")
    assert ask(served, ROWS)["predict"].tolist() == estimator.predict(ROWS).tolist()


@pytest.mark.parametrize(("field", "value"), [("left_child", 10**6), ("right_child", 0), ("feature", 99), ("feature", -7)])
def test_skops_with_a_tree_that_points_out_of_itself(tmp_path: Path, field: str, value: int) -> None:
    estimator = DecisionTreeClassifier().fit(X, Y)
    state = estimator.tree_.__getstate__()
    state["nodes"][field][0] = value
    estimator.tree_.__setstate__(state)
    skops_io.dump(estimator, tmp_path / "model.skops")
    refused(tmp_path, "SKLearn", Reason.MODEL_CORRUPT, "a node of a tree")


@pytest.mark.parametrize(("field", "value"), [("left", 10**6), ("right", 0), ("feature_idx", 99)])
def test_skops_with_a_histogram_tree_that_points_out_of_itself(tmp_path: Path, field: str, value: int) -> None:
    estimator = HistGradientBoostingClassifier(max_iter=2).fit(X, Y)
    estimator._predictors[1][2].nodes[field][0] = value
    skops_io.dump(estimator, tmp_path / "model.skops")
    refused(tmp_path, "SKLearn", Reason.MODEL_CORRUPT, "a node of a tree")


class Bomb(BaseEstimator):
    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.marker),)


@pytest.mark.parametrize("suffix", [".pkl", ".pickle", ".joblib"])
def test_a_pickle_is_not_opened_without_consent(tmp_path: Path, suffix: str) -> None:
    marker = tmp_path / "ran"
    (tmp_path / f"model{suffix}").write_bytes(pickle.dumps(Bomb(str(marker))))
    refused(tmp_path, "SKLearn", Reason.UNTRUSTED_MODEL, "save the model with skops, or set model.trust: Unsafe")
    assert not marker.exists()
    refused(tmp_path, "SKLearn", Reason.UNSUPPORTED_MODEL, "holds a NoneType", "Unsafe")
    assert marker.exists()
    (tmp_path / f"model{suffix}").write_bytes(pickle.dumps(LogisticRegression(max_iter=500).fit(X, Y)))
    assert ask(loaded(tmp_path, "SKLearn", "Unsafe"), ROWS)["predict"].tolist() == [0, 0, 1, 1, 2]


def test_a_model_of_another_version_is_loaded_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = pickle.dumps(LinearRegression().fit(X, Y)).replace(sklearn.__version__.encode(), b"0.1.2")
    (tmp_path / "model.pkl").write_bytes(content)
    loaded(tmp_path, "SKLearn", "Unsafe")
    (record,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert "from version 0.1.2" in str(record.__dict__["fields"]["cause"])


def test_a_pickle_that_needs_what_is_not_here(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"cno_such_package\nThing\n.")
    refused(tmp_path, "SKLearn", Reason.UNSUPPORTED_MODEL, "needs the package no_such_package", "Unsafe")


# --- ONNX -------------------------------------------------------------------------------------------------------------


def written(folder: Path, content: bytes) -> Model:
    (folder / "model.onnx").write_bytes(content)
    return loaded(folder, "ONNX")


def test_bfloat16(tmp_path: Path) -> None:
    served = written(
        tmp_path,
        model(
            [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT), helper.make_node("Identity", ["x"], ["z"])],
            {"x": (TensorProto.BFLOAT16, ["N", 2])},
            {"y": (TensorProto.FLOAT, ["N", 2]), "z": (TensorProto.BFLOAT16, ["N", 2])},
        ),
    )
    answer = ask(served, [[1.5, -2], [0.25, 3]])
    assert answer["y"].tolist() == [[1.5, -2], [0.25, 3]]
    assert answer["z"].astype(float).tolist() == [[1.5, -2], [0.25, 3]]
    assert served.row_wise


@pytest.mark.parametrize("labels", [Y, np.array(["c", "a", "b"])[Y]], ids=["numbers", "text"])
def test_the_maps_of_a_classifier_are_a_table(tmp_path: Path, labels: Array) -> None:
    from skl2onnx import to_onnx

    estimator = LogisticRegression(max_iter=500).fit(X, labels)
    exported: Any = to_onnx(estimator, X[:1].astype(np.float32))
    served = written(tmp_path, exported.SerializeToString())
    label, table = ask(served, ROWS).values()
    assert label.tolist() == estimator.predict(ROWS).tolist()
    np.testing.assert_allclose(table, estimator.predict_proba(ROWS), atol=1e-5)
    assert served.row_wise


def test_weights_in_files_of_their_own(tmp_path: Path) -> None:
    weights = onnx.numpy_helper.from_array(np.arange(600, dtype=np.float32).reshape(300, 2), "w")
    content = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": (TensorProto.FLOAT, ["N", 300])},
        {"y": (TensorProto.FLOAT, ["N", 2])},
        [weights],
    )
    (tmp_path / "model").mkdir()
    onnx.save_model(
        onnx.load_from_string(content), tmp_path / "model" / "model.onnx", save_as_external_data=True, location="weights.bin"
    )
    assert (tmp_path / "model" / "weights.bin").stat().st_size == 2400
    served = loaded(tmp_path, "ONNX")
    assert ask(served, np.eye(300)[7:8])["y"].tolist() == [[14, 15]]


def test_read_only_arrays(tmp_path: Path) -> None:
    shape = (TensorProto.FLOAT, ["N", 2])
    served = written(tmp_path, model([helper.make_node("Neg", ["x"], ["y"])], {"x": shape}, {"y": shape}))
    rows = np.frombuffer(np.array([[1, 2]], np.float32).tobytes(), np.float32).reshape(1, 2)
    assert served.run({"x": rows}, ["y"], served.new_handle())[0].tolist() == [[-1, -2]]


def unary(operator: str, dims: Any = ("N", 3), out: Any = ("N", 3), **attributes: Any) -> bytes:
    return model(
        [helper.make_node(operator, ["x"], ["y"], **attributes)],
        {"x": (TensorProto.FLOAT, list(dims))},
        {"y": (TensorProto.FLOAT, list(out))},
    )


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (unary("Sigmoid"), None),
        (unary("Softmax", axis=1), None),
        (unary("Softmax", axis=0), "depends on the other rows"),
        (unary("ReduceMean", out=(1, 3), axes=[0]), "do not all begin"),
        (unary("Neg", (2, 3), (2, 3)), "do not all begin"),
        (unary("Transpose", ("N", "M"), ("M", "N")), "have not one row|depends on the other"),
        (unary("Sign", ("N", "M"), ("N", "M")), None),
        (unary("Neg", ("N", "C", "H", "W"), ("N", "C", "H", "W")), None),
    ],
)  # fmt: skip
def test_what_may_share_a_run_is_found_out(tmp_path: Path, content: bytes, cause: str | None) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    told = probe(formats.load(tmp_path / "model.onnx", "ONNX", 1))
    assert (told is None) == (cause is None), told
    assert cause is None or re.search(cause, told or "")


def test_answers_that_never_differ_prove_nothing(tmp_path: Path) -> None:
    content = model(
        [helper.make_node("Mul", ["x", "zero"], ["y"])],
        {"x": (TensorProto.FLOAT, ["N", 3])},
        {"y": (TensorProto.FLOAT, ["N", 3])},
        [helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])],
    )
    (tmp_path / "model.onnx").write_bytes(content)
    assert "do not differ" in str(probe(formats.load(tmp_path / "model.onnx", "ONNX", 1)))


# --- Python -----------------------------------------------------------------------------------------------------------

PYTHON = """
import json
import numpy as np
import helper_of_mine

class Model:
    inputs = [("x", "FP32", [-1, 2]), ("name", "BYTES", [-1])]

    def outputs(self):
        return [("y", "FP32", [-1]), ("greeting", "BYTES", [-1])]

    def load(self, folder):
        self.factor = json.loads((folder / "factor.json").read_text())

    def predict(self, inputs):
        x = inputs["x"]
        if (x < 0).any():
            raise ValueError("x must not be negative")
        if (x > 1000).any():
            raise KeyError("secret")
        if (x > 100).any():
            return {"y": x.sum(1)}
        return {"y": helper_of_mine.times(x.sum(1), self.factor), "greeting": ["hi " + name for name in inputs["name"]]}

    def explain(self, inputs):
        return {"weights": np.ones(2)}
"""


def python(folder: Path, content: str) -> Path:
    tree = folder / "model"
    tree.mkdir(parents=True, exist_ok=True)
    (tree / "model.py").write_text(content)
    (tree / "factor.json").write_text("3")
    (tree / "helper_of_mine.py").write_text("def times(a, b):\n    return a * b\n")
    return folder


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """What importing a user's module leaves behind is undone."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


@pytest.mark.usefixtures("untouched")
def test_python(tmp_path: Path) -> None:
    served = loaded(python(tmp_path, PYTHON), "Python")
    assert [(spec.name, spec.datatype.name, spec.shape) for spec in served.inputs] == [
        ("x", "FP32", [-1, 2]), ("name", "BYTES", [-1]),
    ]  # fmt: skip
    answer = ask(served, [[1, 2], [3, 4]], ["a", "b"])
    assert answer["y"].tolist() == [9, 21]
    assert answer["greeting"].tolist() == ["hi a", "hi b"]
    assert served.explains
    assert served.explain({})["weights"].tolist() == [1, 1]
    assert not served.in_place
    assert not served.row_wise  # only where the class says so
    with pytest.raises(ModelInputError, match="must not be negative"):
        ask(served, [[-1, 2]], ["a"])
    with pytest.raises(ModelRunError, match=r"KeyError in model.py:20") as caught:
        ask(served, [[2000, 2]], ["a"])
    assert "secret" not in str(caught.value)
    with pytest.raises(ModelRunError, match="no output 'greeting'"):
        ask(served, [[200, 2]], ["a"])


ROW_WISE = """
class Model:
    row_wise = True
    inputs = outputs = [("x", "FP64", [-1])]
    def predict(self, inputs):
        return {"x": %s}
"""


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(("answer", "row_wise"), [("inputs['x'] * 2", True), ("inputs['x'] - inputs['x'].mean()", False)])
def test_python_that_says_its_rows_are_independent_is_probed(tmp_path: Path, answer: str, row_wise: bool) -> None:
    assert loaded(python(tmp_path, ROW_WISE % answer), "Python").row_wise is row_wise


@pytest.mark.usefixtures("untouched")
def test_python_that_may_be_called_several_times_at_once(tmp_path: Path) -> None:
    assert loaded(python(tmp_path, ROW_WISE % 1), "Python").concurrency == 1
    assert loaded(python(tmp_path, ROW_WISE % 1 + "    concurrency = 16\n"), "Python").concurrency == 16


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("content", "reason", "message"),
    [
        ("class Model:\n  def predict(self, inputs) -> ", Reason.MODEL_CORRUPT, "line 2: SyntaxError"),
        ("import helper_of_mine\nhelper_of_mine.times()", Reason.MODEL_CORRUPT, "model.py:2: TypeError"),
        ("x = 1", Reason.MODEL_CORRUPT, "has no attribute 'Model'"),
        ("class Model: pass", Reason.MODEL_CORRUPT, "must have inputs and outputs"),
        ("raise SystemExit(3)", Reason.MODEL_CORRUPT, "model.py:1: SystemExit"),
        ("import no_such_package", Reason.UNSUPPORTED_MODEL, "needs the package no_such_package"),
        (ROW_WISE.replace("FP64", "REAL") % 0, Reason.MODEL_CORRUPT, "Model.inputs: KeyError: 'REAL'"),
        (ROW_WISE.replace("-1", "0") % 0, Reason.MODEL_CORRUPT, "neither -1 nor positive"),
        (ROW_WISE % 0 + "    concurrency = 0\n", Reason.MODEL_CORRUPT, "concurrency is 0, not a number from 1 to 1024"),
    ],
)
def test_python_that_cannot_be_served(tmp_path: Path, content: str, reason: Reason, message: str) -> None:
    refused(python(tmp_path, content), "Python", reason, message)


# --- where the model is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format_name", "files", "found"),
    [
        ("ONNX", ["model.onnx"], "model.onnx"),
        ("ONNX", ["model/model.onnx", "model/weights.bin"], "model/model.onnx"),
        ("ONNX", ["model/net.onnx", "model/README.md"], "model/net.onnx"),
        ("ONNX", ["model/onnx/model.onnx", "model/onnx/model_fp16.onnx"], "model/onnx/model.onnx"),
        ("ONNX", ["model/model.onnx", "model/old/model.onnx"], "model/model.onnx"),
        ("ONNX", ["model/a.onnx", "model/b.onnx"], r"several models \(model/a.onnx, model/b.onnx\)"),
        ("ONNX", [f"model/{name}.onnx" for name in "abcdefg"], "model/e.onnx and 2 more"),
        ("ONNX", ["model/a.txt"], "holds no model, not one: ONNX needs one file model.onnx or model.ort"),
        ("ONNX", [], "run fetch first"),
        ("ONNX", ["model.onnx", "model.ort"], "several models"),
        ("ONNX", ["model/.hidden.onnx", "model/__MACOSX.onnx"], "no model"),
        ("XGBoost", ["model/config.json", "model/model.json"], "model/model.json"),
        ("XGBoost", ["model/config.json", "model/booster.json"], "several models"),
        ("Python", ["model.py"], ""),
        ("Python", ["model/model.py", "model/other.py", "model/pkg/model.py"], "model"),
        ("Python", ["model/main.py"], "no model"),
        ("SKLearn", ["model/model.skops"], "model/model.skops"),
        ("SKLearn", ["model/model.pkl"], "loading a pickle runs whatever code it holds"),
        ("Keras", [], "format Keras is not served by this image"),
    ],
)
def test_find(tmp_path: Path, format_name: str, files: list[str], found: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    try:
        outcome = str(formats.find(tmp_path, format_name).relative_to(tmp_path))
    except TerminalError as error:
        outcome = error.message
        assert re.search(found, outcome), outcome
    else:
        assert outcome == (found or ".")


PREPARED = """
import os, sys
from pathlib import Path
from slipway_server import formats
formats.prepare(sys.argv[1], Path(sys.argv[2]))
libraries = {"onnxruntime", "sklearn", "scipy", "pandas", "xgboost", "lightgbm"}
print(len(os.listdir("/proc/self/task")), *sorted(libraries & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("format_name", "path", "libraries"),
    [
        ("ONNX", "model.onnx", "onnxruntime"),
        ("XGBoost", "model.ubj", ""),
        ("LightGBM", "model.txt", ""),
        ("SKLearn", "model.skops", "scipy sklearn"),
        ("Python", ".", ""),
    ],
)
def test_what_a_format_imports(format_name: str, path: str, libraries: str) -> None:
    """No threads that nothing uses, no library of another format, no pandas before a model needs it."""
    command = [sys.executable, "-c", PREPARED, format_name, path]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"1 {libraries}".strip()


# --- through the server -----------------------------------------------------------------------------------------------


def tensor(name: str, datatype: str, values: Any) -> dict[str, Any]:
    array = np.asarray(values)
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": array.ravel().tolist()}


def test_trees_are_served(tmp_path: Path) -> None:
    """By whatever name the caller calls the only input."""
    booster = xgboost.train(TREES | {"objective": "binary:logistic"}, xgboost.DMatrix(X, Y > 0), 5)
    with serving(tmp_path, bytes(booster.save_raw("ubj")), "--format", "XGBoost", name="model.ubj") as server:
        answer = server.infer({"inputs": [tensor("anything", "FP32", ROWS)]}).json["outputs"][0]
        np.testing.assert_allclose(answer["data"], booster.predict(xgboost.DMatrix(ROWS)), rtol=1e-6)
        for datatype in ("FP64", "INT32", "UINT8"):  # whatever numbers callers have
            sent = ROWS if datatype == "FP64" else ROWS.astype(int)
            answer = server.infer({"inputs": [tensor("anything", datatype, sent)]}).json["outputs"][0]
            np.testing.assert_allclose(answer["data"], booster.predict(xgboost.DMatrix(sent)), rtol=1e-6)
        wrong = server.infer({"inputs": [tensor("anything", "BYTES", [["a"] * 4])]})
        assert (wrong.status, wrong.json["error"]) == (400, "input 'input': datatype BYTES, expected FP32")
        wrong = server.infer({"inputs": [tensor("anything", "FP32", ROWS[:, :3])]})
        assert wrong.status == 400
        assert "shape [5, 3], expected [-1, 4]" in wrong.json["error"]


def test_a_pipeline_is_served(tmp_path: Path) -> None:
    columns = make_column_transformer((OneHotEncoder(), ["city"]), (SimpleImputer(), ["age"]))
    estimator = make_pipeline(columns, LogisticRegression()).fit(FRAME[["age", "city"]], LABELS)
    with serving(tmp_path, skops_io.dumps(estimator), "--format", "SKLearn", name="model.skops") as server:
        feeds = [tensor("age", "FP64", [20.0, 30.0]), tensor("city", "BYTES", ["Bonn", "Köln"])]
        answer = server.infer({"inputs": feeds})
        assert answer.json["outputs"][0]["data"] == estimator.predict(FRAME[["age", "city"]][:2]).tolist()
        feeds[1] = tensor("city", "BYTES", ["Bonn", "Rom"])
        refused = server.infer({"inputs": feeds})
        assert refused.status == 400
        assert "unknown categories" in refused.json["error"]
        assert "Rom" not in server.log.read_text()


def test_a_pickle_without_consent_ends_the_server(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    content = pickle.dumps(Bomb(str(marker)))
    with serving(tmp_path, content, "--format", "SKLearn", name="model.pkl", wait="") as server:
        assert server.process.wait(20) == 1
    assert (tmp_path / "termination").read_text().startswith("UntrustedModel: model.pkl: ")
    assert not marker.exists()


def test_python_is_served(tmp_path: Path) -> None:
    python(tmp_path / "models", PYTHON)
    with serving(tmp_path, PYTHON.encode(), "--format", "Python", name="model/model.py") as server:
        feeds = [tensor("x", "FP32", [[1.0, 2.0]]), tensor("name", "BYTES", ["Ada"])]
        answers = {output["name"]: output["data"] for output in server.infer({"inputs": feeds}).json["outputs"]}
        assert answers == {"y": [9], "greeting": ["hi Ada"]}
        explained = server.infer({"inputs": feeds}, "/v2/models/m/explain")
        assert explained.json["outputs"][0]["data"] == [1, 1]
        for value, status in ((-1.0, 400), (2000.0, 500)):
            assert server.infer({"inputs": [tensor("x", "FP32", [[value, 2.0]]), feeds[1]]}).status == status
        assert "secret" not in server.log.read_text()
