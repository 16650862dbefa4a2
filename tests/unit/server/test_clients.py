"""Triton's public clients, which nobody here wrote, against a real server: REST and gRPC."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tests.unit.server.support import Server, TensorProto, helper, model, serving
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

DTYPES = [
    (np.bool_, TensorProto.BOOL), (np.uint8, TensorProto.UINT8), (np.int32, TensorProto.INT32), (np.int64, TensorProto.INT64),
    (np.float16, TensorProto.FLOAT16), (np.float32, TensorProto.FLOAT), (np.float64, TensorProto.DOUBLE),
    (np.object_, TensorProto.STRING),
]  # fmt: skip


def identities() -> bytes:
    """xK [N,2] -> yK [N,2] for each type K."""
    return model(
        [helper.make_node("Identity", [f"x{place}"], [f"y{place}"]) for place in range(len(DTYPES))],
        {f"x{place}": (kind, ["N", 2]) for place, (_, kind) in enumerate(DTYPES)},
        {f"y{place}": (kind, ["N", 2]) for place, (_, kind) in enumerate(DTYPES)},
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("clients"), identities()) as running:
        yield running


@pytest.fixture(scope="module", params=[tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def api(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def client(server: Server, api: Any) -> Iterator[Any]:
    with api.InferenceServerClient(f"127.0.0.1:{server.port}") as connected:
        yield connected


def arrays() -> list[np.ndarray[Any, Any]]:
    values = np.array([[0, 1], [1, 0], [2, 3]])
    return [np.array([["a", "\u00e9"]] * 3, object) if dtype is np.object_ else values.astype(dtype) for dtype, _ in DTYPES]


def inputs(api: Any, **form: Any) -> list[Any]:
    return [
        api.InferInput(f"x{place}", list(array.shape), np_to_triton_dtype(array.dtype)).set_data_from_numpy(array, **form)
        for place, array in enumerate(arrays())
    ]


def check(result: Any, places: range) -> None:
    for place in places:
        array = result.as_numpy(f"y{place}")
        if array.dtype == np.object_:  # bytes where they came as bytes, text where they came as JSON
            array = np.vectorize(lambda element: element.decode() if isinstance(element, bytes) else element)(array)
        np.testing.assert_array_equal(array, arrays()[place])


def test_health_and_metadata(client: Any, api: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("m")
    assert client.is_model_ready("m", "3")
    form: dict[str, Any] = {"as_json": True} if api is tritonclient.grpc else {}
    assert client.get_server_metadata(**form)["name"] == "slipway-server"
    metadata = client.get_model_metadata("m", **form)
    assert (metadata["name"], metadata["versions"], len(metadata["inputs"])) == ("m", ["3"], len(DTYPES))
    index = client.get_model_repository_index(**form)
    assert (index["models"] if form else index)[0]["state"] == "READY"


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_every_datatype_by_default(client: Any, api: Any, compression: str | None) -> None:
    how: dict[str, Any] = {"compression_algorithm": compression}
    if api is tritonclient.http:
        how = {"request_compression_algorithm": compression, "response_compression_algorithm": compression}
    result = client.infer("m", inputs(api), request_id="7", parameters={"a": "b"}, **(how if compression else {}))
    check(result, range(len(DTYPES)))
    response = result.get_response()
    assert (response["id"] if isinstance(response, dict) else response.id) == "7"


def test_chosen_outputs(client: Any, api: Any) -> None:
    result = client.infer("m", inputs(api), outputs=[api.InferRequestedOutput("y5"), api.InferRequestedOutput("y4")])
    check(result, range(4, 6))
    assert result.as_numpy("y0") is None


def test_json_both_ways(server: Server) -> None:
    api = tritonclient.http
    wanted = [api.InferRequestedOutput(f"y{place}", binary_data=place % 2 == 0) for place in range(len(DTYPES))]
    with api.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        for outputs in (wanted, [api.InferRequestedOutput(f"y{place}", binary_data=False) for place in range(len(DTYPES))]):
            check(client.infer("m", inputs(api, binary_data=False), outputs=outputs), range(len(DTYPES)))


def test_many_at_once(server: Server, api: Any) -> None:
    with api.InferenceServerClient(
        f"127.0.0.1:{server.port}", **({"concurrency": 4} if api is tritonclient.http else {})
    ) as client:
        if api is tritonclient.http:
            for pending in [client.async_infer("m", inputs(api)) for _ in range(8)]:
                check(pending.get_result(), range(len(DTYPES)))
        else:
            import queue

            done: queue.Queue[tuple[Any, Any]] = queue.Queue()
            for _ in range(8):
                client.async_infer("m", inputs(api), callback=lambda result, error: done.put((result, error)))
            for _ in range(8):
                result, error = done.get(timeout=20)
                assert error is None
                check(result, range(len(DTYPES)))


@pytest.mark.parametrize(
    ("name", "change", "status", "message"),
    [
        ("other", {}, ("404", "StatusCode.NOT_FOUND"), "model 'other' is not served here: this is 'm'"),
        ("m", {"model_version": "9"}, ("404", "StatusCode.NOT_FOUND"), "version '9' of 'm'"),
        ("m", {"outputs": "z"}, ("400", "StatusCode.INVALID_ARGUMENT"), "output 'z' is unknown"),
    ],
)
def test_mistakes_are_explained(client: Any, api: Any, name: str, change: Any, status: tuple[str, str], message: str) -> None:
    if "outputs" in change:
        change = {"outputs": [api.InferRequestedOutput(change["outputs"])]}
    with pytest.raises(InferenceServerException, match=message) as caught:
        client.infer(name, inputs(api), **change)
    assert caught.value.status() == status[api is tritonclient.grpc]
