"""LightGBM by the C interface of its library.

Not by its Python package, whose import takes 3 s and 120 MB (scipy, pandas, scikit-learn) and whose `predict` takes twice
the time for a row; the C interface is documented (https://lightgbm.readthedocs.io/en/stable/C-API.html).
"""

import ctypes
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from slipway_server.formats import Model, ModelMemoryError, ModelRunError, RunHandle, out_of_memory
from slipway_server.tensors import DATATYPES, Array, TensorSpec
from slipway_server.termination import Reason, TerminalError

_FP64 = DATATYPES["FP64"]
_FLOAT64, _ROW_MAJOR, _NORMAL, _ALL_TREES = 1, 1, 0, -1  # constants of the C interface


def _library() -> ctypes.CDLL:
    spec = find_spec("lightgbm")
    assert spec is not None  # noqa: S101
    assert spec.origin is not None  # noqa: S101
    try:
        library = ctypes.CDLL(str(Path(spec.origin).parent / "lib" / "lib_lightgbm.so"))
    except OSError as error:
        cure = "the image must have libgomp.so.1 where the loader looks for libraries"
        raise TerminalError(Reason.UNSUPPORTED_MODEL, f"LightGBM's library cannot be loaded ({error}): {cure}") from None
    pointer, number = ctypes.c_void_p, ctypes.c_int
    library.LGBM_GetLastError.restype = ctypes.c_char_p
    library.LGBM_BoosterPredictForMat.argtypes = [
        pointer, pointer, number, ctypes.c_int32, ctypes.c_int32, number, number, number, number, ctypes.c_char_p,
        pointer, pointer,
    ]  # fmt: skip
    return library


_LIB = _library()
_Log = ctypes.CFUNCTYPE(None, ctypes.c_char_p)
_SILENT = _Log(lambda text: None)  # kept: the library holds no reference
_LIB.LGBM_RegisterLogCallback(_SILENT)


class _LightGBMError(Exception):
    """What the library says of a call that failed."""


def _call(status: int) -> None:
    if status:
        raise _LightGBMError(" ".join(_LIB.LGBM_GetLastError().decode(errors="replace").split())[:400])


class LightGBMModel(Model):
    """A Model on a booster: FP64 [N, features] to `predict`, FP64 [N], or [N, K] for K classes, as Booster.predict gives.

    A missing value is NaN.
    """

    platform = "lightgbm_lightgbm"
    any_name = True
    row_wise = True  # boosters have no other way
    default_outputs = ("predict",)

    def __init__(self, booster: ctypes.c_void_p, threads: int) -> None:
        self._booster = booster
        self._parameters = f"num_threads={threads}".encode()
        features, width = ctypes.c_int(), ctypes.c_int64()
        _call(_LIB.LGBM_BoosterGetNumFeature(booster, ctypes.byref(features)))
        _call(_LIB.LGBM_BoosterCalcNumPredict(booster, 1, _NORMAL, 0, _ALL_TREES, ctypes.byref(width)))
        self._width = width.value
        self.inputs = (TensorSpec("input", _FP64, ("rows", features.value), numbers=True),)
        self.outputs = (TensorSpec("predict", _FP64, ("rows",) if self._width == 1 else ("rows", self._width)),)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], handle: RunHandle) -> list[Array]:
        """One array for each name in `outputs`. Raises ModelRunError, or one of its kinds."""
        (rows,) = feeds.values()
        rows = np.ascontiguousarray(rows, np.float64)
        count, features = rows.shape
        answer = np.empty(count * self._width)
        written = ctypes.c_int64()
        try:
            _call(
                _LIB.LGBM_BoosterPredictForMat(
                    self._booster, rows.__array_interface__["data"][0], _FLOAT64, count, features, _ROW_MAJOR, _NORMAL, 0,
                    _ALL_TREES, self._parameters, ctypes.byref(written), answer.__array_interface__["data"][0],
                )
            )  # fmt: skip
        except _LightGBMError as error:
            raise (ModelMemoryError if "bad_alloc" in str(error) else ModelRunError)(str(error)) from None
        return [answer if self._width == 1 else answer.reshape(count, self._width)] * len(outputs)


def load(path: Path, threads: int) -> LightGBMModel:
    """Loads a model, `threads` threads a run. Raises TerminalError: ModelCorrupt, OutOfMemory."""
    booster, iterations = ctypes.c_void_p(), ctypes.c_int()
    try:
        _call(_LIB.LGBM_SetMaxThreads(threads))  # for loading too, which would take all of the node's
        _call(_LIB.LGBM_BoosterCreateFromModelfile(str(path).encode(), ctypes.byref(iterations), ctypes.byref(booster)))
        return LightGBMModel(booster, threads)
    except _LightGBMError as error:
        if "bad_alloc" in str(error):
            raise out_of_memory(path) from None
        cure = "save it again with Booster.save_model, and set its sha256"
        raise TerminalError(Reason.MODEL_CORRUPT, f"{path.name} is not a sound LightGBM model ({error}): {cure}") from None
