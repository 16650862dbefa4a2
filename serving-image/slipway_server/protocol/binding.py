"""What all protocols share: JSON decoded with clear errors, and names of a request bound to the tensors of the model."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from slipway_server.protocol import CodecLimits
from slipway_server.tensors import MAX_RANK, Array, RequestError, Signature, TensorSpec


def nested(leaf: Any, depth: int) -> Any:
    """The type of `leaf` or of lists of it, up to `depth` levels (no more than a tensor may have), for a msgspec decoder.

    The decoder refuses other types and deeper lists at their first byte, so that neither costs memory.
    """
    of = leaf
    for _ in range(min(depth, MAX_RANK)):
        of = leaf | list[of]
    return of


def decode_json(decoder: msgspec.json.Decoder[Any], body: bytes | bytearray | memoryview, limits: CodecLimits) -> Any:
    """The decoded body. Raises msgspec.ValidationError on JSON of another form, RequestError on what is not JSON or is
    certain to hold more elements than the limit (they take 20 times their bytes as objects, so they are counted first)."""
    if not body:
        raise RequestError("the body is empty, expected a JSON object")
    if len(body) > 2 * limits.elements and bytes(body).count(b",") > limits.elements + 1024:
        raise RequestError(f"the body has more than {limits.elements} values: send fewer rows at once", 413)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise
    except RecursionError:
        raise RequestError("JSON is nested too deeply") from None
    except ValueError as error:  # malformed, or not UTF-8
        raise RequestError(str(error) if isinstance(error, msgspec.DecodeError) else "JSON is not UTF-8") from None


class Binding:
    """The inputs and outputs of a model by name."""

    def __init__(self, signature: Signature, limits: CodecLimits) -> None:
        self._limits = limits
        self._inputs = {spec.name: spec for spec in signature.inputs}
        self._only = signature.inputs[0] if signature.any_name and len(signature.inputs) == 1 else None
        self.outputs = {spec.name: spec for spec in signature.outputs}
        self.default_outputs = signature.default_outputs or tuple(self.outputs)
        # Only where two inputs share a named dimension can they disagree about it.
        names = [dim for spec in signature.inputs for dim in set(spec.dims or ()) if isinstance(dim, str)]
        self._shared = {dim for dim in names if names.count(dim) > 1}

    def input(self, name: str, feeds: Mapping[str, Array]) -> TensorSpec:
        """The input of that name. Raises RequestError if there is none, or if `feeds` has it already."""
        spec = self._inputs.get(name) or self._only
        if spec is None:
            raise RequestError(f"input '{name[:100]}' is unknown, expected inputs: {_names(self._inputs)}")
        if spec.name in feeds:
            raise RequestError(f"input '{name[:100]}' is given twice")
        return spec

    def check_feeds(self, feeds: Mapping[str, Array]) -> None:
        """Raises RequestError where an input is missing, shared dimensions differ, or there are too many elements."""
        if len(feeds) != len(self._inputs):
            missing = ", ".join(f"'{name}'" for name in self._inputs if name not in feeds)
            raise RequestError(f"input {missing} is missing, expected inputs: {_names(self._inputs)}")
        elements = 0
        for array in feeds.values():
            elements += array.size
        if elements > self._limits.elements:
            raise RequestError(
                f"the inputs have {elements} elements, the limit is {self._limits.elements}: send fewer rows at once", 413
            )
        if self._shared:
            self._check_shared_dimensions(feeds)

    def check_outputs(self, names: Sequence[str]) -> None:
        """Raises RequestError unless all these are outputs, each named once."""
        for name in names:
            if name not in self.outputs:
                raise RequestError(f"output '{name[:100]}' is unknown, expected outputs: {_names(self.outputs)}")
        if len(set(names)) != len(names):
            raise RequestError("outputs names one output twice")

    def _check_shared_dimensions(self, feeds: Mapping[str, Array]) -> None:
        seen: dict[str, tuple[str, int]] = {}
        for name, array in feeds.items():
            for dim, size in zip(self._inputs[name].dims or (), array.shape, strict=False):
                if dim not in self._shared:
                    continue
                other, expected = seen.setdefault(str(dim), (name, size))
                if size != expected:
                    raise RequestError(f"input '{name}': dimension {dim} is {size}, expected {expected} as in input '{other}'")


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
