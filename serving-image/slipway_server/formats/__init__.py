"""Model formats: one module a format, whose `load` answers a Model. This one names them and imports no runtime."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from slipway_server.termination import Reason, TerminalError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from slipway_server.tensors import TensorSpec

    Array = npt.NDArray[np.generic]

SUFFIXES: Mapping[str, tuple[str, ...]] = {"ONNX": (".onnx", ".ort")}
"""Formats that this image serves, and the extensions of their files, the usual one first."""


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
        """Makes the run raise ModelCancelledError soon; does nothing if there is none."""
        ...

    def reset(self) -> None:
        """Makes the handle fit for another run after `cancel`."""
        ...


class Model(Protocol):
    """A loaded model. `run` may be called from several threads at once."""

    @property
    def platform(self) -> str:
        """What metadata calls the runtime."""
        ...

    @property
    def inputs(self) -> Sequence["TensorSpec"]:
        """Every input, all of them required."""
        ...

    @property
    def outputs(self) -> Sequence["TensorSpec"]:
        """Every output."""
        ...

    def new_handle(self) -> RunHandle:
        """A handle for one run at a time."""
        ...

    def run(self, feeds: "Mapping[str, Array]", outputs: Sequence[str], handle: RunHandle) -> "list[Array]":
        """One array for each name in `outputs`, in their order. Raises ModelInputError or ModelRunError."""
        ...


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


def find(folder: Path, format_name: str) -> Path:
    """The one model file of a folder. Raises TerminalError: UnsupportedModel or ModelNotFound."""
    check(format_name)
    files = files_in(folder, format_name)
    if len(files) != 1:
        wanted = " or ".join(f"model{suffix}" for suffix in SUFFIXES[format_name])
        raise TerminalError(
            Reason.MODEL_NOT_FOUND,
            f"{folder} holds {len(files)} files named {wanted}, not one: run fetch into it first",
        )
    return files[0]
