"""A model's load and first run, within limits: the process that is to serve makes them, its supervisor watches it."""

import os
import resource
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from slipway_server import formats, logs
from slipway_server.batching import probe
from slipway_server.formats import Model, ModelInputError, ModelMemoryError, ModelRunError
from slipway_server.tensors import Array, TensorSpec
from slipway_server.termination import Reason, TerminalError

_LEFT_FREE_BYTES = 8 << 20  # of the container's memory: what its other processes still need
_PROBED_SECONDS = 0.25  # a model whose run takes longer is not probed: that makes ten runs and more
_PARSED_BY_LIBRARIES = ("ONNX", "XGBoost", "LightGBM")


def load(path: Path, format_name: str, threads: int, trust: str, memory_bytes: int | None) -> Model:
    """Loads and warms a model, which may take `memory_bytes` (None: no limit). Raises TerminalError, whatever goes wrong.

    What kills or hangs the process is its parent's to tell: see workers.load_ended.
    """
    formats.prepare(format_name, path)
    try:
        with _limited(memory_bytes), _hushed(format_name):
            model = formats.load(path, format_name, threads, trust)
            objection = warm_up(model, path)
    except TerminalError:
        raise
    except MemoryError:
        raise _out_of_memory(path) from None
    except Exception as error:  # not why: a library's message may quote the file
        message = f"loading {path.name} raised {type(error).__name__}: the file is damaged or hostile: export it again"
        raise TerminalError(Reason.MODEL_LOAD_CRASHED, message) from None
    if objection:
        logs.warning("the model could not be warmed up: its first request will be slower", cause=objection)
    return model


@contextmanager
def _limited(memory_bytes: int | None) -> Generator[None]:
    """Sets limits for what runs within: private memory, as the kernel would kill where it is short, and core files."""
    wanted = {resource.RLIMIT_CORE: 0}
    if memory_bytes is not None:
        wanted[resource.RLIMIT_DATA] = _data_bytes() + max(0, memory_bytes - _LEFT_FREE_BYTES)
    before = {kind: resource.getrlimit(kind) for kind in wanted}
    for kind, limit in wanted.items():
        hard = before[kind][1]
        resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    try:
        yield
    finally:
        for kind, limits in before.items():
            resource.setrlimit(kind, limits)


def _data_bytes() -> int:
    """This process's private writable memory, which RLIMIT_DATA counts."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


@contextmanager
def _hushed(format_name: str) -> Generator[None]:
    """Drops what libraries in C print on stderr: of a broken file they print pieces of it."""
    if format_name not in _PARSED_BY_LIBRARIES:
        yield
        return
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def warm_up(model: Model, path: Path) -> str | None:
    """Runs the model on zeros, and on ones if zeros do not suit it, and finds out whether its requests may share runs.

    Returns what it objected to where neither suited it. Raises TerminalError: OutOfMemory, or ModelCorrupt when nothing of
    its inputs had to be guessed: such a model would fail on any request.
    """
    objection = ""
    for value in (0, 1):
        feeds = {spec.name: _filled(spec, value, model.known_texts.get(spec.name, ())) for spec in model.inputs}
        started = time.monotonic()
        try:
            model.run(feeds, [spec.name for spec in model.outputs], model.new_handle())
        except ModelMemoryError:
            raise _out_of_memory(path) from None
        except (ModelInputError, ModelRunError) as error:
            objection = str(error)
        else:
            _settle_batching(model, time.monotonic() - started)
            return None
    model.row_wise = False
    guessed = any(dim is None or isinstance(dim, str) for spec in model.inputs for dim in spec.dims or (None,))
    if guessed or any(spec.datatype.element is str for spec in model.inputs):
        return objection
    message = f"{path.name} loads, but fails its first run ({objection}): export it again and try it with its own runtime"
    raise TerminalError(Reason.MODEL_CORRUPT, message)


def _settle_batching(model: Model, run_seconds: float) -> None:
    cause = probe(model) if run_seconds < _PROBED_SECONDS else "a single run takes too long to try many"
    model.row_wise = cause is None
    if cause is None:
        logs.info("requests that wait together share a run")
    else:
        logs.info("each request has a run of its own", cause=cause)


def _filled(spec: TensorSpec, value: int, texts: Sequence[str]) -> Array:
    array = spec.filled(value)
    if texts and spec.datatype.element is str:
        array[...] = texts[value % len(texts)]
    return array


def _out_of_memory(path: Path) -> TerminalError:
    return TerminalError(
        Reason.OUT_OF_MEMORY, f"{path.name} needs more memory to load and run than the container has: raise its limit"
    )
