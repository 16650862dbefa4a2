"""Model formats: one module a format, whose `load` answers a Model. This one names them and imports no runtime."""

import ctypes
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from slipway_server.termination import Reason, TerminalError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from slipway_server.tensors import TensorSpec

    Array = npt.NDArray[np.generic]

SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "ONNX": (".onnx", ".ort"),
    "SKLearn": (".skops", ".joblib", ".pkl", ".pickle"),
    "XGBoost": (".json", ".ubj"),
    "LightGBM": (".txt", ".lgb", ".model"),
    "Python": (".py",),
}
"""Formats that this image serves, and the extensions of their files, the usual one first."""
TREE = "model"
"""The folder in the model folder that holds a model of several files."""
SAFE = "Safe"
UNSAFE = "Unsafe"
_PICKLES = (".joblib", ".pkl", ".pickle")
_NAMED = 5  # candidates that a message names


class ModelInputError(Exception):
    """The model refused the values of a request: the caller's fault."""


class ModelRunError(Exception):
    """The model failed on a request that it should have answered: the model's fault."""


class ModelMemoryError(ModelRunError):
    """The run needed more memory than there is."""


class ModelCancelledError(ModelRunError):
    """The run was stopped through its handle."""


class RunHandle(Protocol):
    """Stops the run that it was given to, from another thread."""

    def cancel(self) -> None:
        """Makes the run raise ModelCancelledError soon, if the runtime can; does nothing if there is no run."""
        ...

    def reset(self) -> None:
        """Makes the handle fit for another run after `cancel`."""
        ...


class NoHandle:
    """The RunHandle of runtimes that cannot be stopped: their runs end when they end."""

    def cancel(self) -> None:
        """Does nothing."""

    def reset(self) -> None:
        """Does nothing."""


_NO_HANDLE = NoHandle()


class Model:
    """A loaded model, the base of each format's. `run` may be called from `concurrency` threads at once."""

    platform: str
    """What metadata calls the runtime."""
    inputs: "Sequence[TensorSpec]"
    """Every input, all of them required."""
    outputs: "Sequence[TensorSpec]"
    """Every output."""
    default_outputs: tuple[str, ...]
    """What is answered when a request names no outputs."""
    any_name = False
    """The only input takes whatever name the caller uses: the format has no names."""
    in_place = True
    """A run is computation and nothing else, so that a short one may be made on the event loop."""
    concurrency = 1
    """Runs at once, each in a thread; one more may be in place."""
    row_wise: bool | None = None
    """Whether an answer's row depends on the same row of the request alone, so that requests can share a run. None: to be
    found out by batching.probe."""
    known_texts: "Mapping[str, Sequence[str]]" = MappingProxyType({})
    """For inputs of BYTES: texts that the model is known to accept."""
    explains = False

    def new_handle(self) -> RunHandle:
        """A handle for one run at a time."""
        return _NO_HANDLE

    def run(self, feeds: "Mapping[str, Array]", outputs: Sequence[str], handle: RunHandle) -> "list[Array]":
        """One array for each name in `outputs`, in their order. Raises ModelInputError or ModelRunError."""
        raise NotImplementedError

    def explain(self, feeds: "Mapping[str, Array]") -> "dict[str, Array]":
        """Named arrays that explain the answer to `feeds`. Raises ModelInputError or ModelRunError."""
        raise NotImplementedError


def check(name: str) -> None:
    """Raises TerminalError(UnsupportedModel) unless this image serves the format."""
    if name not in SUFFIXES:
        raise TerminalError(Reason.UNSUPPORTED_MODEL, f"format {name} is not served by this image: use {', '.join(SUFFIXES)}")


def file_name(format_name: str, suffix: str) -> str:
    """What a model file is called in the model folder: with its own extension if the format has it."""
    suffixes = SUFFIXES[format_name]
    return "model" + (suffix if suffix in suffixes else suffixes[0])


def files_in(folder: Path, format_name: str) -> list[Path]:
    """The model files of a format in a model folder."""
    return [file for suffix in SUFFIXES[format_name] if (file := folder / f"model{suffix}").is_file()]


def find(folder: Path, format_name: str, trust: str = SAFE) -> Path:
    """The one model file of a folder that `fetch` wrote, alone in it or in its tree; the file's folder for Python.

    Raises TerminalError: UnsupportedModel, ModelNotFound, UntrustedModel.
    """
    check(format_name)
    tree = folder / TREE
    files = files_in(folder, format_name) or (_in_tree(tree, format_name) if tree.is_dir() else [])
    if len(files) != 1:
        wanted = " or ".join(f"model{suffix}" for suffix in SUFFIXES[format_name])
        where = "in this folder or anywhere below" if tree.is_dir() else "in it: run fetch first"
        found = ", ".join(str(file.relative_to(folder)) for file in files[:_NAMED])
        more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
        raise TerminalError(
            Reason.MODEL_NOT_FOUND,
            f"{tree if tree.is_dir() else folder} holds {f'several models ({found}{more})' if files else 'no model'}, "
            f"not one: {format_name} needs one file {wanted} {where}",
        )
    (file,) = files
    if file.suffix in _PICKLES and trust != UNSAFE:
        raise TerminalError(
            Reason.UNTRUSTED_MODEL,
            f"{file.name}: loading a pickle runs whatever code it holds: save the model with skops, "
            f"or set model.trust: {UNSAFE} if you trust its author",
        )
    return file.parent if format_name == "Python" else file


def _in_tree(tree: Path, format_name: str) -> list[Path]:
    """The files of a format in a folder of many files: those named model.* rather than others, and of these the uppermost.

    One of another name is taken where nothing competes with it.
    """
    suffixes = SUFFIXES[format_name]
    files = sorted(file for file in tree.rglob("*") if file.suffix in suffixes and file.name[0] not in "._" and file.is_file())
    named = [file for file in files if file.stem == "model"]
    if format_name == "Python" or named:
        files = named
    top = min((len(file.parts) for file in files), default=0)
    uppermost = [file for file in files if len(file.parts) == top]
    return uppermost if len(uppermost) == 1 else files


def prepare(format_name: str, path: Path) -> None:
    """Imports what `load` will need, so that its memory is the model's alone."""
    check(format_name)
    import_module(f"slipway_server.formats.{format_name.lower()}")
    if path.suffix == ".skops":  # the others of its format do without
        import_module("slipway_server.formats.skops")


def load(path: Path, format_name: str, threads: int, trust: str = SAFE) -> Model:
    """Loads the model at what `find` found, `threads` threads for its runs together.

    Raises TerminalError: ModelCorrupt, UnsupportedModel, UntrustedModel, OutOfMemory.
    """
    check(format_name)
    module = import_module(f"slipway_server.formats.{format_name.lower()}")
    model = module.load(path, threads, trust) if format_name == "SKLearn" else module.load(path, threads)
    # What parsing took goes back to the system: 55-90 MB for forests of 20-40 MB, in 7 ms.
    ctypes.CDLL(None).malloc_trim(0)
    return model


def out_of_memory(path: Path) -> TerminalError:
    """The error for a model that the container's memory does not hold."""
    return TerminalError(
        Reason.OUT_OF_MEMORY,
        f"{path.name} ({path.stat().st_size >> 20} MiB) needs more memory to load than the container has: raise its memory limit",
    )


def one_line(error: BaseException, characters: int = 400) -> str:
    """A library's message without line breaks, cut."""
    return " ".join(str(error).split())[:characters]
