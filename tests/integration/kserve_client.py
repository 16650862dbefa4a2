"""The KServe SDK's inference clients behind a pipe; test_kserve_client.py runs it in the environment that has the SDK.

Each line of stdin is a JSON object, one call: `client` (v1, v2 or grpc), `port`, `method` of the client and its `arguments`.
With `requests`, the parts of InferRequests, the method is called once for each, all at once. Each answer is a line of JSON on
stdout: `value` (a list of them for requests) and the HTTP `headers`, or `error` (the status, or an exception's type) and its
`text`. Elements of BYTES travel as hexadecimal digits.
"""

import asyncio
import json
import sys
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, InferResponse, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from kserve.utils.numpy_codec import to_np_dtype

TIMEOUT_SECONDS = 20


def tensor(given: dict[str, Any]) -> InferInput:
    """An input in one of the SDK's forms: `binary`, `json`, `array` (the SDK chooses between these) or `list` (gRPC: typed)."""
    datatype, values = given["datatype"], given["values"]
    array = np.array(values, to_np_dtype(datatype))
    if datatype == "BYTES":
        array.reshape(-1)[:] = [bytes.fromhex(element) for element in array.reshape(-1)]
    made = InferInput(given["name"], list(array.shape), datatype)
    match given["form"]:
        case "array":
            made.data = array
        case "list":
            flat = array.reshape(-1).tolist()
            made.data = [element.decode() for element in flat] if datatype == "BYTES" else flat
        case form:
            made.set_data_from_numpy(array, binary_data=form == "binary")
    return made


def request(given: dict[str, Any]) -> InferRequest:
    return InferRequest(
        given.get("model", "m"),
        [tensor(each) for each in given["inputs"]],
        request_id=given.get("id"),
        model_version=given.get("version"),
        parameters=given.get("parameters"),
        request_outputs=[RequestedOutput(*each) for each in given.get("outputs", ())] or None,
    )


def plain(value: Any) -> Any:
    """What a client answered, in JSON's types."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    if not isinstance(value, InferResponse):
        return value
    outputs = {
        each.name: {
            "datatype": each.datatype,
            "shape": list(each.shape),
            "raw": each._raw_data is not None,  # the SDK says nowhere else how a gRPC answer came
            "values": in_hex(each.as_numpy().tolist()) if each.datatype == "BYTES" else each.as_numpy().tolist(),
        }
        for each in value.outputs
    }
    return {"model": value.model_name, "version": value.model_version, "id": value.id, "outputs": outputs}


def in_hex(value: Any) -> Any:
    if isinstance(value, list):
        return [in_hex(element) for element in value]
    return (value.encode() if isinstance(value, str) else value).hex()


async def called(client: Any, call: dict[str, Any], arguments: dict[str, Any]) -> Any:
    method = getattr(client, call["method"])
    if "requests" not in call:
        return await method(**arguments)
    name = "infer_request" if call["client"] == "grpc" else "data"
    return await asyncio.gather(*[method(**arguments, **{name: request(each)}) for each in call["requests"]])


async def answer(call: dict[str, Any]) -> dict[str, Any]:
    arguments = call.get("arguments", {})
    headers: dict[str, str] = {}
    try:
        if call["client"] == "grpc":
            options = [tuple(each) for each in call["channel_args"]] if "channel_args" in call else None
            address = f"127.0.0.1:{call['port']}"
            async with InferenceGRPCClient(address, channel_args=options, timeout=TIMEOUT_SECONDS) as client:
                value = await called(client, call, arguments)
        else:
            if call["method"] == "infer":
                arguments |= {"response_headers": headers}
            arguments |= {"base_url": f"http://127.0.0.1:{call['port']}{call.get('path', '')}"}
            async with InferenceRESTClient(RESTConfig(protocol=call["client"], timeout=TIMEOUT_SECONDS)) as client:
                value = await called(client, call, arguments)
    except httpx.HTTPStatusError as error:
        return {"error": str(error.response.status_code), "text": str(error)}
    except grpc.RpcError as error:
        return {"error": error.code().name, "text": error.details()}
    except Exception as error:  # the SDK could not read the answer, or had no such request
        return {"error": type(error).__name__, "text": str(error)}
    return {"value": plain(value), "headers": headers}


async def main() -> None:
    for line in sys.stdin:
        print(json.dumps(await answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
