"""Python: a module `model.py` of the user's, with a class `Model`. Docs: the contract is in the docstring of PythonModel."""

import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from slipway_server.formats import Model, ModelInputError, ModelMemoryError, ModelRunError, RunHandle, one_line
from slipway_server.tensors import DATATYPES, Array, TensorSpec, datatype_of
from slipway_server.termination import Reason, TerminalError

FILE = "model.py"
_MAX_CONCURRENCY = 1024  # threads
_CONTRACT = "its class Model must have inputs and outputs, lists of (name, datatype, shape), and predict(inputs) -> outputs"


class PythonModel(Model):
    """A Model on an object of the user's class `Model`, in the module model.py, whose folder is on sys.path.

    `inputs` and `outputs`: attributes or methods, asked after `load`, for lists of (name, datatype, shape); a shape has -1 for
    what varies. `load(folder: Path)`, if there: reads what the model needs, once. `predict(inputs)`: arrays by name in,
    arrays (or what numpy makes arrays of) by name out. `explain(inputs)`, if there: named arrays. A ValueError of the two is
    the caller's fault (400, its text is the answer's), every other exception the model's (500). `concurrency`, if there: the
    number of threads that may be in the two at once, otherwise 1; more is for a model that waits, say for another service.
    `row_wise = True` allows requests to share a call: each row of the outputs then depends on that row of the inputs alone.
    """

    platform = "python"
    in_place = False  # it may wait for something else than the processor

    def __init__(self, instance: Any) -> None:
        self._instance = instance
        self.inputs = _specs(instance, "inputs")
        self.outputs = _specs(instance, "outputs")
        self._outputs = {spec.name: spec for spec in self.outputs}
        self.default_outputs = tuple(self._outputs)
        self.row_wise = None if getattr(instance, "row_wise", False) is True else False
        self.concurrency = _concurrency(instance)
        self.explains = callable(getattr(instance, "explain", None))

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], handle: RunHandle) -> list[Array]:
        """One array for each name in `outputs`. Raises ModelInputError or ModelRunError, or one of its kinds."""
        answer = _guarded(self._instance.predict, feeds)
        missing = [name for name in outputs if name not in answer]
        if missing:
            raise ModelRunError(f"predict gave no output '{missing[0]}'")
        return [self._checked(name, answer[name]) for name in outputs]

    def explain(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Named arrays. Raises ModelInputError or ModelRunError, or one of its kinds."""
        answer = _guarded(self._instance.explain, feeds)
        return {str(name): _servable(name, _array(name, value)) for name, value in answer.items()}

    def _checked(self, name: str, value: Any) -> Array:
        spec = self._outputs[name]
        array = _array(name, value)
        if array.dtype != spec.datatype.dtype:
            if not np.can_cast(array.dtype, spec.datatype.dtype, "same_kind"):
                raise ModelRunError(f"output '{name}' is {datatype_of(array).name}, declared as {spec.datatype.name}")
            array = array.astype(spec.datatype.dtype)
        dims = spec.dims or ()
        if len(dims) != array.ndim or any(want not in (None, have) for want, have in zip(dims, array.shape, strict=True)):
            raise ModelRunError(f"output '{name}' has the shape {list(array.shape)}, declared as {spec.shape}")
        return array


def _guarded(function: Callable[[dict[str, Array]], Any], feeds: Mapping[str, Array]) -> Mapping[str, Any]:
    name = getattr(function, "__name__", "it")
    try:
        answer = function(dict(feeds))
    except ValueError as error:
        raise ModelInputError(one_line(error)) from None
    except MemoryError:
        raise ModelMemoryError("out of memory") from None
    except BaseException as error:  # sys.exit and its like too: it is the request that ends, not the server
        place = traceback.extract_tb(error.__traceback__)[-1]
        # Not the exception's text: it may quote the request, and this one is logged.
        raise ModelRunError(f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}") from None
    if not isinstance(answer, Mapping):
        raise ModelRunError(f"{name} gave a {type(answer).__name__}, not arrays by name")
    return answer


def _array(name: object, value: Any) -> Array:
    try:
        array = np.asarray(value)
        if array.dtype.kind in "UST":  # from a list: numpy's own text and bytes lose the zeros that they end in
            array = np.asarray(value, object)
    except UnicodeError:  # text and bytes in one list
        array = np.asarray(value, object)
    except MemoryError:
        raise ModelMemoryError("out of memory") from None
    except Exception:  # of lists that are no array, or whatever the object's own conversion raises
        raise ModelRunError(f"output '{name}' is no array") from None
    return array


def _servable(name: object, array: Array) -> Array:
    if datatype_of(array).name == "BYTES" and array.dtype != object:
        raise ModelRunError(f"output '{name}' is of {array.dtype}, which the protocol has no datatype for")
    return array


def _specs(instance: Any, what: str) -> tuple[TensorSpec, ...]:
    try:
        declared = getattr(instance, what)
        listed = cast(Any, declared() if callable(declared) else declared)
        specs = tuple(
            TensorSpec(str(name), DATATYPES[datatype], tuple(None if dim == -1 else int(dim) for dim in shape), text=False)
            for name, datatype, shape in listed
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _wrong(f"Model.{what}: {type(error).__name__}: {one_line(error)}: {_CONTRACT}") from None
    if not specs or any(dim is not None and dim < 1 for spec in specs for dim in spec.dims or () if not isinstance(dim, str)):
        raise _wrong(f"Model.{what} is empty, or a dimension is neither -1 nor positive: {_CONTRACT}")
    return specs


def _concurrency(instance: Any) -> int:
    """Raises TerminalError(ModelCorrupt)."""
    number = getattr(instance, "concurrency", 1)
    if type(number) is not int or not 1 <= number <= _MAX_CONCURRENCY:
        raise _wrong(f"Model.concurrency is {repr(number)[:40]}, not a number from 1 to {_MAX_CONCURRENCY}")
    return number


def _wrong(message: str) -> TerminalError:
    return TerminalError(Reason.MODEL_CORRUPT, f"{FILE}: {message}")


def load(path: Path, threads: int) -> PythonModel:
    """Imports model.py of the folder `path`, makes its Model and loads it. Raises TerminalError: ModelCorrupt, OutOfMemory."""
    sys.path.insert(0, str(path))
    spec = importlib.util.spec_from_file_location("model", path / FILE)
    assert spec is not None  # noqa: S101
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.modules["model"] = module
    try:
        spec.loader.exec_module(module)
        instance = module.Model()
        if hasattr(instance, "load"):
            instance.load(path)
    except MemoryError:
        raise TerminalError(Reason.OUT_OF_MEMORY, f"{FILE} needs more memory to load: raise the memory limit") from None
    except ModuleNotFoundError as error:
        cure = "serve it from an image of your own, FROM this one, that has it"
        raise TerminalError(Reason.UNSUPPORTED_MODEL, f"{FILE} needs the package {error.name}: {cure}") from None
    except BaseException as error:  # sys.exit and its like too
        raise _wrong(f"{_origin(error, path)}{type(error).__name__}: {one_line(error)}") from None
    if not callable(getattr(instance, "predict", None)):
        raise _wrong(_CONTRACT)
    return PythonModel(instance)


def _origin(error: BaseException, folder: Path) -> str:
    """Where in the user's files it happened: the last such line."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: "
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(folder)]
    return f"{Path(own[-1].filename).relative_to(folder)}:{own[-1].lineno}: " if own else ""
