"""Messages of the gRPC service against Triton's own message classes, and the frames around them."""

import gzip
import zlib
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.server.test_tensors import arrays
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult
from tritonclient.grpc import service_pb2 as triton
from tritonclient.grpc._utils import _get_inference_request

from slipway_server.protocol.grpc import GrpcCodec, GrpcService, encode_message, frame, status_of, unframe
from slipway_server.tensors import DATATYPES, RequestError, Signature, TensorSpec, to_elements

FIELDS = {
    "BOOL": "bool", "INT8": "int", "INT16": "int", "INT32": "int", "INT64": "int64", "UINT8": "uint", "UINT16": "uint",
    "UINT32": "uint", "UINT64": "uint64", "FP32": "fp32", "FP64": "fp64", "BYTES": "bytes",
}  # fmt: skip


def signature(name: str, rank: int = 1) -> Signature:
    dims = (None,) * rank
    return Signature(
        "m", "3", "p", (TensorSpec("x", DATATYPES[name], dims),), tuple(TensorSpec(y, DATATYPES[name], dims) for y in "yz")
    )


def triton_request(array: np.ndarray[Any, Any], name: str, outputs: list[str] | None = None) -> triton.ModelInferRequest:
    """What Triton's client sends."""
    given_input = InferInput("x", list(array.shape), name).set_data_from_numpy(array)
    wanted = None if outputs is None else [InferRequestedOutput(output) for output in outputs]
    return _get_inference_request("m", [given_input], "", "id 7", wanted, 0, False, False, 0, None, {"a": "b", "c": 1.5})


@pytest.mark.parametrize("name", DATATYPES)
@given(data=st.data())
@settings(max_examples=30)
def test_triton_clients_tensors_come_back(name: str, data: st.DataObject) -> None:
    array = data.draw(arrays(name))
    codec = GrpcCodec(signature(name, array.ndim))
    inference = codec.decode(triton_request(array, name, ["z", "y"]).SerializeToString())
    assert (inference.outputs, inference.id) == (("z", "y"), "id 7")
    np.testing.assert_array_equal(inference.feeds["x"], array)
    answer = triton.ModelInferResponse.FromString(codec.encode(inference, [array, inference.feeds["x"]]))
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "3", "id 7")
    expected = np.array([*to_elements(array), b""], object)[:-1].reshape(array.shape) if name == "BYTES" else array
    for output in ("z", "y"):
        result = InferResult(answer).as_numpy(output)
        assert result is not None
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("name", FIELDS)
@given(data=st.data())
@settings(max_examples=30)
def test_typed_contents_are_answered_typed(name: str, data: st.DataObject) -> None:
    array = data.draw(arrays(name))
    request = triton.ModelInferRequest(model_name="m", model_version="3")
    sent = request.inputs.add(name="x", datatype=name, shape=array.shape)
    field = f"{FIELDS[name]}_contents"
    values = to_elements(array) if name == "BYTES" else array.reshape(-1).tolist()
    getattr(sent.contents, field).extend(values)
    codec = GrpcCodec(signature(name, array.ndim))
    inference = codec.decode(request.SerializeToString())
    np.testing.assert_array_equal(inference.feeds["x"], array)
    assert inference.feeds["x"].dtype == array.dtype
    answer = triton.ModelInferResponse.FromString(codec.encode(inference, [array, array]))
    assert not answer.raw_output_contents
    for output in answer.outputs:
        assert (output.datatype, list(output.shape)) == (name, list(array.shape))
        assert list(getattr(output.contents, field)) == values
        assert len(output.contents.ListFields()) == 1


@pytest.mark.parametrize("name", ["FP64", "INT32", "FP16"])
def test_inputs_of_any_number_take_what_is_sent(name: str) -> None:
    array = np.array([1, 2], DATATYPES[name].dtype)
    for numbers in (True, False):
        spec = TensorSpec("x", DATATYPES["FP32"], (None,), numbers=numbers)
        codec = GrpcCodec(Signature("m", "3", "p", (spec,), (spec,)))
        message = triton_request(array, name).SerializeToString()
        if numbers:
            assert codec.decode(message).feeds["x"].tolist() == [1, 2]
        else:
            with pytest.raises(RequestError, match=f"datatype {name}, expected FP32"):
                codec.decode(message)


def test_half_precision_has_no_typed_contents() -> None:
    inputs = (TensorSpec("x", DATATYPES["FP32"], (None,)),)
    outputs = (TensorSpec("y", DATATYPES["FP32"], (None,)), TensorSpec("z", DATATYPES["BF16"], (None,)))
    codec = GrpcCodec(Signature("m", "3", "p", inputs, outputs))
    request = triton.ModelInferRequest(model_name="m")
    sent = request.inputs.add(name="x", datatype="FP32", shape=[1])
    sent.contents.fp32_contents.append(1.5)
    inference = codec.decode(request.SerializeToString())
    half = np.array([0.5], ml_dtypes.bfloat16)
    answer = triton.ModelInferResponse.FromString(codec.encode(inference, [inference.feeds["x"], half]))
    assert list(answer.raw_output_contents) == [b"\0\0\xc0\x3f", b"\0\x3f"]
    request.outputs.add(name="y")
    assert codec.decode(request.SerializeToString()).binary == (False,)


def test_fields_in_pieces_and_unpacked_are_read_too() -> None:
    codec = GrpcCodec(signature("FP32"))
    request = triton.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=[2])
    head = request.SerializeToString()
    for contents in (
        b"\x35\0\0\x80\x3f\x35\0\0\0\x40",
        b"\x32\x04\0\0\x80\x3f\x32\x04\0\0\0\x40",
        b"\x35\0\0\x80\x3f\x32\x04\0\0\0\x40",
    ):
        tensor = head[head.index(b"\x2a") + 2 :] + b"\x2a" + bytes([len(contents)]) + contents
        message = head[: head.index(b"\x2a") + 1] + bytes([len(tensor)]) + tensor
        assert codec.decode(message).feeds["x"].tolist() == [1, 2]


def test_the_field_of_the_datatype_is_read_whatever_else_is_set() -> None:
    request = triton.ModelInferRequest(model_name="m")
    sent = request.inputs.add(name="x", datatype="FP32", shape=[1])
    sent.contents.MergeFrom(triton.InferTensorContents(int_contents=[7], fp32_contents=[1.5], fp64_contents=[2.5]))
    assert GrpcCodec(signature("FP32")).decode(request.SerializeToString()).feeds["x"].tolist() == [1.5]


def mistake(change: Any) -> bytes:
    request = triton_request(np.array([1.5], np.float32), "FP32")
    change(request)
    return request.SerializeToString()


def typed(request: triton.ModelInferRequest, **contents: Any) -> None:
    del request.raw_input_contents[:]
    request.inputs[0].contents.MergeFrom(triton.InferTensorContents(**contents))


@pytest.mark.parametrize(
    ("message", "status", "text"),
    [
        (b"\xff", 400, "is not a inference.ModelInferRequest"),
        (b"\xff" * 200_000, 400, "is not a inference.ModelInferRequest"),
        (b"", 404, "model '' is not served here: this is 'm'"),
        (b"\x2a\0" * 70_000, 413, "more than 65536 fields"),  # inputs without a thing in them
        (b"\x7b\x7c\x78\x01\x7d1234\x7912345678" + b"\x32\0" * 70_000, 413, "more than 65536 fields"),
        (mistake(lambda r: setattr(r, "model_version", "4")), 404, "version '4' of 'm'"),
        (mistake(lambda r: r.inputs.add(name="x")), 400, "raw_input_contents has 1 tensors, expected 2"),
        (mistake(lambda r: setattr(r.inputs[0], "name", "y")), 400, "input 'y' is unknown, expected inputs: 'x'"),
        (mistake(lambda r: setattr(r.inputs[0], "datatype", "FP64")), 400, "datatype FP64, expected FP32"),
        (mistake(lambda r: r.inputs[0].shape.append(1)), 400, r"shape \[1, 1\], expected \[-1\]"),
        (mistake(lambda r: r.raw_input_contents.__setitem__(0, b"123")), 400, "input 'x': 3 bytes, expected 4"),
        (mistake(lambda r: r.raw_input_contents.pop()), 400, "input 'x': data has 0 elements, expected 1"),
        (mistake(lambda r: typed(r, fp32_contents=[1, 2])), 400, "8 bytes, expected 4|2 elements, expected 1"),
        (mistake(lambda r: typed(r, fp64_contents=[1])), 400, "data has 0 elements, expected 1"),
        (mistake(lambda r: r.inputs[0].contents.fp32_contents.append(1)), 400, "contents and raw_input_contents"),
        (mistake(lambda r: r.outputs.add(name="q")), 400, "output 'q' is unknown, expected outputs: 'y', 'z'"),
        (mistake(lambda r: [r.outputs.add(name="y"), r.outputs.add(name="y")]), 400, "twice"),
        (
            mistake(
                lambda r: r.outputs.add(name="y").parameters["classification"].MergeFrom(triton.InferParameter(int64_param=3))
            ),
            400,
            "'classification' is not served",
        ),
        (
            mistake(lambda r: r.inputs[0].parameters["shared_memory_region"].MergeFrom(triton.InferParameter(string_param="r"))),
            400,
            "shared memory is not served",
        ),
    ],
)
def test_mistakes(message: bytes, status: int, text: str) -> None:
    with pytest.raises(RequestError, match=text) as caught:
        GrpcCodec(signature("FP32")).decode(message)
    assert caught.value.status == status


def test_numbers_outside_the_range_of_a_narrow_type() -> None:
    request = triton.ModelInferRequest(model_name="m")
    tensor = request.inputs.add(name="x", datatype="UINT8", shape=[1])
    tensor.contents.uint_contents.append(256)
    with pytest.raises(RequestError, match="input 'x': data holds a number outside the range of UINT8"):
        GrpcCodec(signature("UINT8")).decode(request.SerializeToString())


# --- the other calls --------------------------------------------------------------------------------------------------


def call(method: str, request: Any, ready: bool = True) -> Any:
    service = GrpcService("m", "3", "0.1.0")
    answer = service.unary(method, request.SerializeToString(), signature("FP32") if ready else None)
    return getattr(triton, f"{method}Response").FromString(answer)


def test_calls_before_and_after_ready() -> None:
    for ready in (False, True):
        assert call("ServerLive", triton.ServerLiveRequest(), ready).live
        assert call("ServerReady", triton.ServerReadyRequest(), ready).ready is ready
        assert call("ModelReady", triton.ModelReadyRequest(name="m"), ready).ready is ready
        assert call("ServerMetadata", triton.ServerMetadataRequest(), ready).name == "slipway-server"
        index = call("RepositoryIndex", triton.RepositoryIndexRequest(), ready).models
        assert [(entry.name, entry.version, entry.state) for entry in index] == [("m", "3", "READY" if ready else "UNAVAILABLE")]
    assert not call("RepositoryIndex", triton.RepositoryIndexRequest(ready=True), ready=False).models
    metadata = call("ModelMetadata", triton.ModelMetadataRequest(name="m", version="3"))
    assert (metadata.name, list(metadata.versions), metadata.platform) == ("m", ["3"], "p")
    assert [(x.name, x.datatype, list(x.shape)) for x in metadata.inputs] == [("x", "FP32", [-1])]
    assert [x.name for x in metadata.outputs] == ["y", "z"]


@pytest.mark.parametrize(
    ("method", "request_", "ready", "status"),
    [
        ("ModelMetadata", triton.ModelMetadataRequest(name="m"), False, 503),
        ("ModelMetadata", triton.ModelMetadataRequest(name="n"), True, 404),
        ("ModelReady", triton.ModelReadyRequest(name="m", version="2"), True, 404),
        ("ModelStatistics", triton.ModelStatisticsRequest(), True, 501),
        ("../x", triton.ServerLiveRequest(), True, 501),
    ],
)
def test_calls_that_fail(method: str, request_: Any, ready: bool, status: int) -> None:
    with pytest.raises(RequestError) as caught:
        call(method, request_, ready)
    assert caught.value.status == status
    assert status_of(status) == {503: 14, 404: 5, 501: 12}[status]


# --- frames -----------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=3000))
@settings(max_examples=30)
def test_frames_come_back(message: bytes) -> None:
    assert unframe(frame(message), None, 3000) == message
    assert unframe(frame(message, compress=True), b"gzip", 3000) == message
    deflated = zlib.compress(message)
    assert unframe(b"\x01" + len(deflated).to_bytes(4, "big") + deflated, b"deflate", 3000 + 100) == message
    assert unframe(frame(message), b"gzip", 3000) == message  # a message may go uncompressed in a compressed call


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (b"", None, 400),
        (b"\0\0\0\0", None, 400),
        (b"\0\0\0\0\x02a", None, 400),
        (b"\0\0\0\0\x01ab", None, 400),
        (frame(b"a") * 2, None, 400),
        (b"\x02\0\0\0\x01a", None, 400),
        (frame(b"a", compress=True), None, 400),
        (frame(b"a", compress=True), b"identity", 400),
        (frame(b"a", compress=True), b"snappy", 501),
        (b"\x01\0\0\0\x01a", b"gzip", 400),
        (frame(b"a" * 1001), None, 413),
        (frame(b"a" * 1_000_000, compress=True), b"gzip", 413),
        (b"\0\xff\xff\xff\xff", None, 400),
    ],
)
def test_frames_that_are_none(body: bytes, encoding: bytes | None, status: int) -> None:
    with pytest.raises(RequestError) as caught:
        unframe(body, encoding, 1000)
    assert caught.value.status == status


def test_messages_of_errors_are_percent_encoded() -> None:
    assert encode_message("input 'x': 100% wrong\n\u00e9") == b"input 'x': 100%25 wrong%0A%C3%A9"
    assert encode_message("\ud800") == b"?"


def test_gzip_of_a_frame_is_gzip() -> None:
    body = frame(b"a" * 100, compress=True)
    assert gzip.decompress(body[5:]) == b"a" * 100
