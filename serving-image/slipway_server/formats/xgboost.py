"""XGBoost by the C interface of its library.

Not by its Python package, whose import takes 2.5 s and 120 MB (scipy, pandas, scikit-learn) and whose `inplace_predict`
takes 35 us more a run; the C interface is documented and kept stable (https://xgboost.readthedocs.io/en/stable/dev/c__api_8h.html).
"""

import ctypes
import json
import math
import re
import threading
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from slipway_server.formats import Model, ModelInputError, ModelMemoryError, ModelRunError, RunHandle, out_of_memory
from slipway_server.tensors import DATATYPES, Array, TensorSpec
from slipway_server.termination import Reason, TerminalError

_FP32 = DATATYPES["FP32"]
_INT64 = DATATYPES["INT64"]
_OPTIONS = {
    "type": 0,  # the objective's own prediction
    "training": False,
    "iteration_begin": 0,
    "iteration_end": 0,  # all, or as many as early stopping found best
    "strict_shape": False,
}


_PLACE = re.compile(r"^\[[\d:]+\] (\S+:\d+: )?")  # the time, and a line of their source


def _library() -> ctypes.CDLL:
    spec = find_spec("xgboost")
    assert spec is not None  # noqa: S101
    assert spec.origin is not None  # noqa: S101
    library = ctypes.CDLL(str(Path(spec.origin).parent / "lib" / "libxgboost.so"))
    pointer = ctypes.c_void_p
    library.XGBGetLastError.restype = ctypes.c_char_p
    library.XGBoosterPredictFromDense.argtypes = [pointer, ctypes.c_char_p, ctypes.c_char_p, pointer, pointer, pointer, pointer]
    library.XGBoosterPredictFromDMatrix.argtypes = [pointer, pointer, ctypes.c_char_p, pointer, pointer, pointer]
    library.XGDMatrixCreateFromDense.argtypes = [ctypes.c_char_p, ctypes.c_char_p, pointer]
    library.XGDMatrixFree.argtypes = [pointer]
    return library


_LIB = _library()


class _XGBoostError(Exception):
    """What the library says of a call that failed."""


def _call(status: int) -> None:
    if status:
        text = _LIB.XGBGetLastError().decode(errors="replace").partition("Stack trace")[0]
        raise _XGBoostError(_PLACE.sub("", " ".join(text.split()))[:400])


class _OfThread(threading.local):
    """What each thread keeps for its calls: a proxy, which takes the library 20 us to make, and places for results."""

    def __init__(self) -> None:
        self.proxy = ctypes.c_void_p()
        self._shape, self._rank, self._values = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64(), ctypes.c_void_p()
        self.results = ctypes.byref(self._shape), ctypes.byref(self._rank), ctypes.byref(self._values)
        _call(_LIB.XGProxyDMatrixCreate(ctypes.byref(self.proxy)))

    def answer(self) -> Array:
        """A copy of the last result."""
        shape = self._shape[: self._rank.value]
        return np.frombuffer(ctypes.string_at(self._values, 4 * math.prod(shape)), np.float32).reshape(shape)


class XGBoostModel(Model):
    """A Model on a booster.

    Outputs: `predict`, what the objective gives (FP32 [N], or [N, K] for K classes or targets). A file that
    `XGBClassifier.save_model` wrote answers as that class does: `predict` is the class (INT64 [N]), `predict_proba` FP32 [N, K].
    A missing value is NaN.
    """

    platform = "xgboost_xgboost"
    row_wise = True  # boosters have no other way
    default_outputs = ("predict",)

    def __init__(self, booster: ctypes.c_void_p) -> None:
        self._booster = booster
        self._mine = _OfThread()
        config = json.loads(_text(_LIB.XGBoosterSaveJsonConfig, booster))["learner"]
        features = ctypes.c_uint64()
        _call(_LIB.XGBoosterGetNumFeature(booster, ctypes.byref(features)))
        self.any_name = True
        self.inputs = (TensorSpec("input", _FP32, ("rows", features.value or None), numbers=True),)
        self._options = json.dumps(_OPTIONS | {"missing": math.nan}).encode()
        self._matrix_options = json.dumps(_OPTIONS).encode()
        # Linear boosters cannot predict from an array, only from a DMatrix, and that is not safe in two threads.
        self._matrix_lock = threading.Lock() if config["gradient_booster"]["name"] == "gblinear" else None
        self._classifies = '"classifier"' in _attribute(booster, "scikit_learn")
        first = _INT64 if self._classifies else _FP32
        zeros = np.zeros((2, features.value or 1), np.float32)
        try:
            answer = self._predict(zeros)
        except _XGBoostError as error:
            raise TerminalError(Reason.MODEL_CORRUPT, f"the model loads, but fails its first run ({error})") from None
        wide = None if answer.ndim == 1 else answer.shape[1]
        outputs = [TensorSpec("predict", first, ("rows",) if wide is None or self._classifies else ("rows", wide))]
        if self._classifies:
            objective = config["objective"]["name"]
            if objective != "multi:softmax":  # it gives classes only
                outputs.append(TensorSpec("predict_proba", _FP32, ("rows", 2 if wide is None else wide)))
        self.outputs = tuple(outputs)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], handle: RunHandle) -> list[Array]:
        """One array for each name in `outputs`. Raises ModelInputError or ModelRunError."""
        (rows,) = feeds.values()
        try:
            answer = self._predict(rows)
        except _XGBoostError as error:
            text = str(error)
            if "bad_alloc" in text:
                raise ModelMemoryError("out of memory") from None
            raise (ModelInputError if "feature" in text.lower() else ModelRunError)(text) from None
        if not self._classifies:
            return [answer] * len(outputs)
        return [self._classes(answer) if name == "predict" else _probabilities(answer) for name in outputs]

    def _classes(self, answer: Array) -> Array:
        if len(self.outputs) == 1:
            return answer.astype(np.int64)
        return answer.argmax(1) if answer.ndim == 2 else (answer > 0.5).astype(np.int64)  # pyright: ignore[reportOperatorIssue]

    def _predict(self, rows: Array) -> Array:
        rows = np.ascontiguousarray(rows, np.float32)
        place = rows.__array_interface__["data"][0]
        array = b'{"data":[%d,true],"shape":[%d,%d],"typestr":"<f4","version":3}' % (place, *rows.shape)
        # The answer lies in memory of this thread's own, until its next call: copied here.
        if self._matrix_lock is None:
            mine = self._mine
            _call(_LIB.XGBoosterPredictFromDense(self._booster, array, self._options, mine.proxy, *mine.results))
            return mine.answer()
        matrix = ctypes.c_void_p()
        _call(_LIB.XGDMatrixCreateFromDense(array, b'{"missing":NaN,"nthread":1}', ctypes.byref(matrix)))
        try:
            with self._matrix_lock:
                _call(_LIB.XGBoosterPredictFromDMatrix(self._booster, matrix, self._matrix_options, *self._mine.results))
                return self._mine.answer()
        finally:
            _LIB.XGDMatrixFree(matrix)


def load(path: Path, threads: int) -> XGBoostModel:
    """Loads a model, `threads` threads a run. Raises TerminalError: ModelCorrupt, UnsupportedModel, OutOfMemory."""
    booster = ctypes.c_void_p()
    try:
        _call(_LIB.XGBoosterCreate(None, ctypes.c_uint64(0), ctypes.byref(booster)))
        _call(_LIB.XGBoosterLoadModel(booster, str(path).encode()))
        for name, value in (("nthread", str(threads)), ("device", "cpu"), ("verbosity", "0")):
            _call(_LIB.XGBoosterSetParam(booster, name.encode(), value.encode()))
        return XGBoostModel(booster)
    except _XGBoostError as error:
        if "bad_alloc" in str(error):
            raise out_of_memory(path) from None
        cure = "save it again with Booster.save_model (JSON or UBJ), and set its sha256"
        raise TerminalError(Reason.MODEL_CORRUPT, f"{path.name} is not a sound XGBoost model ({error}): {cure}") from None


def _probabilities(answer: Array) -> Array:
    return answer if answer.ndim == 2 else np.stack((1 - answer, answer), 1)  # pyright: ignore[reportOperatorIssue]


def _text(function: Any, booster: ctypes.c_void_p) -> str:
    length, text = ctypes.c_uint64(), ctypes.c_char_p()
    _call(function(booster, ctypes.byref(length), ctypes.byref(text)))
    return (text.value or b"").decode()


def _attribute(booster: ctypes.c_void_p, name: str) -> str:
    text, found = ctypes.c_char_p(), ctypes.c_int()
    _call(_LIB.XGBoosterGetAttr(booster, name.encode(), ctypes.byref(text), ctypes.byref(found)))
    return (text.value or b"").decode() if found.value else ""
