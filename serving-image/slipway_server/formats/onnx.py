"""ONNX by onnxruntime."""

import ctypes
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as states  # pyright: ignore[reportAttributeAccessIssue]

from slipway_server import logs
from slipway_server.formats import (
    Model,
    ModelCancelledError,
    ModelInputError,
    ModelMemoryError,
    ModelRunError,
    RunHandle,
    out_of_memory,
)
from slipway_server.tensors import DATATYPES, Array, TensorSpec
from slipway_server.termination import Reason, TerminalError

_SILENT = 4  # only what ends the process: the messages of failed runs quote values of the request
onnxruntime.set_default_logger_severity(_SILENT)

_TYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_ZIPMAP = re.compile(r"seq\(map\((int64|string),tensor\(float\)\)\)")
_ONNX_BF16 = 16  # TensorProto.BFLOAT16
_GPU = "CUDAExecutionProvider"
_PROVIDERS = [name for name in (_GPU, "CPUExecutionProvider") if name in onnxruntime.get_available_providers()]
if _GPU in _PROVIDERS:
    onnxruntime.preload_dlls(directory="")  # CUDA's libraries are packages beside it, where the loader does not look
_OUT_OF_MEMORY = (
    "bad_alloc",
    "Failed to allocate memory",
    "Resource temporarily unavailable",
)  # the last: a thread's stack
_PLACE = re.compile(r"Load model from .*? failed:|/\S*onnxruntime_src/.*?\) (?=[A-Z])")  # on this machine, and in their source
_TOO_NEW = ("is not a registered function/op", "opset", "Unsupported model IR version", "is under development")
_ERRORS = (
    states.Fail,
    states.InvalidArgument,
    states.InvalidGraph,
    states.InvalidProtobuf,
    states.NoSuchFile,
    states.NotImplemented,
    states.RuntimeException,
    states.EPFail,
    RuntimeError,
    ValueError,
)


class _Handle:
    """A RunHandle: onnxruntime looks at its flag between two nodes of the graph."""

    def __init__(self) -> None:
        self.options = onnxruntime.RunOptions()

    def cancel(self) -> None:
        self.options.terminate = True

    def reset(self) -> None:
        self.options.terminate = False


class OnnxModel(Model):
    """A Model on an onnxruntime session.

    The probabilities of a classifier that was exported with a ZipMap, a map from class to number for each row, are served
    as FP32 [N, classes], in ascending order of the classes.
    """

    def __init__(self, session: onnxruntime.InferenceSession, threads: int) -> None:
        self._session = session
        gpu = _GPU in session.get_providers()
        self.platform = "onnxruntime_onnx_gpu" if gpu else "onnxruntime_onnx"
        self.in_place = not gpu  # the loop has better to do than to wait for it
        self.inputs = tuple(_spec("input", node) for node in session.get_inputs())
        self.outputs = tuple(_spec("output", node) for node in session.get_outputs())
        self.default_outputs = tuple(spec.name for spec in self.outputs)
        self.concurrency = threads  # the session's threads help all runs; a run that has no work for them uses only its own
        self._maps = {node.name for node in session.get_outputs() if node.type.startswith("seq(map(")}
        self._needs_values = any(spec.datatype.name == "BF16" for spec in (*self.inputs, *self.outputs))

    def new_handle(self) -> _Handle:
        """A handle for one run at a time."""
        return _Handle()

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], handle: RunHandle) -> list[Array]:
        """One array for each name in `outputs`. Raises ModelInputError or ModelRunError, or one of its kinds."""
        assert isinstance(handle, _Handle)  # noqa: S101
        try:
            if self._needs_values:
                return self._run_values(feeds, outputs, handle)
            answer: Sequence[Any] = self._session.run(outputs, feeds, handle.options)
        except states.InvalidArgument as error:
            raise ModelInputError(_text(error)) from None
        except MemoryError:
            raise ModelMemoryError("out of memory") from None
        except _ERRORS as error:
            text = _text(error)
            if "terminate flag" in text:
                raise ModelCancelledError(text) from None
            raise (ModelMemoryError if _is_out_of_memory(text) else ModelRunError)(text) from None
        if self._maps:
            return [_table(one) if name in self._maps else one for name, one in zip(outputs, answer, strict=True)]
        return answer  # pyright: ignore[reportReturnType]

    def _run_values(self, feeds: Mapping[str, Array], outputs: Sequence[str], handle: _Handle) -> list[Array]:
        """A run of a model with BF16, which numpy has by ml_dtypes only and onnxruntime's usual interface not at all."""
        values = {name: _to_value(array) for name, array in feeds.items()}
        return [_from_value(value) for value in self._session.run_with_ort_values(outputs, values, handle.options)]


def load(path: Path, threads: int) -> OnnxModel:
    """Loads a model, `threads` threads a run. Raises TerminalError: ModelCorrupt, UnsupportedModel, OutOfMemory."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _SILENT
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # spinning burns the quota that others wait for
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=_PROVIDERS)
    except MemoryError:
        raise out_of_memory(path) from None
    except _ERRORS as error:
        text = _text(error)
        if _is_out_of_memory(text):
            raise out_of_memory(path) from None
        if isinstance(error, states.NotImplemented) or any(sign in text for sign in _TOO_NEW):
            message = f"{path.name}: onnxruntime {onnxruntime.__version__} cannot run it ({text}): "
            cure = "export it with standard operators of an older opset"
            raise TerminalError(Reason.UNSUPPORTED_MODEL, message + cure) from None
        message = f"{path.name} is not a sound ONNX model ({text}): export and upload it again, and set its sha256"
        raise TerminalError(Reason.MODEL_CORRUPT, message) from None
    if _GPU in _PROVIDERS and _GPU not in session.get_providers():
        logs.warning("no GPU can be used, the model runs on the CPU: has the pod nvidia.com/gpu in its resources?")
    return OnnxModel(session, threads)


def _spec(kind: str, node: onnxruntime.NodeArg) -> TensorSpec:
    if kind == "output" and _ZIPMAP.fullmatch(node.type):
        return TensorSpec(node.name, DATATYPES["FP32"], (None, None))
    if node.type not in _TYPES:
        raise TerminalError(
            Reason.UNSUPPORTED_MODEL,
            f"{kind} {node.name} has the type {node.type}, which V2 has no form for: export it with a type of the protocol",
        )
    # onnxruntime gives [] for a scalar and for an unknown rank alike: it checks the rank itself then. Exporters write 0
    # for "any".
    dims = tuple(dim if isinstance(dim, str) or (isinstance(dim, int) and dim > 0) else None for dim in node.shape)
    return TensorSpec(node.name, DATATYPES[_TYPES[node.type]], dims or None)


def _table(rows: Sequence[Mapping[Any, float]]) -> Array:
    """The values of maps with the same keys, FP32 [N, keys], in ascending order of the keys."""
    keys = sorted(rows[0]) if rows else []
    return np.array([[row[key] for key in keys] for row in rows], np.float32).reshape(len(rows), len(keys))


def _to_value(array: Array) -> Any:
    if array.dtype == DATATYPES["BF16"].dtype:
        bits = np.ascontiguousarray(array).view(np.uint16)
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_BF16)
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _from_value(value: Any) -> Array:
    if value.element_type() == _ONNX_BF16:
        content = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
        return np.frombuffer(content, DATATYPES["BF16"].dtype).reshape(value.shape())
    return value.numpy()


def _is_out_of_memory(text: str) -> bool:
    return any(sign in text for sign in _OUT_OF_MEMORY)


def _text(error: BaseException) -> str:
    """onnxruntime's message without prefixes, cut to what fits a line."""
    text = " ".join(str(error).split())
    if text.startswith("[ONNXRuntimeError]"):
        text = text.split(" : ", 2)[-1]
    return _PLACE.sub("", text)[:400]
