"""KServe's Python server with one model: its model servers are not published as packages.

usage: kserve_server.py --runtime onnx|sklearn|xgboost|lightgbm --file FILE --model_name NAME --http_port N --grpc_port N
"""

import argparse
import asyncio
import logging
from collections.abc import Callable
from typing import Any

import uvloop
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer, model_server
from kserve.utils.numpy_codec import from_np_dtype
from kserve.utils.utils import generate_uuid


def _load(runtime: str, file: str) -> Callable[[InferRequest], dict[str, Any]]:
    """Answer a function from a request to arrays by output name, as KServe's own servers call the libraries."""
    if runtime == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]

        def run(request: InferRequest) -> dict[str, Any]:
            feeds = {tensor.name: tensor.as_numpy() for tensor in request.inputs}
            return dict(zip(names, session.run(names, feeds), strict=True))

        return run
    if runtime == "sklearn":
        import joblib

        model = joblib.load(file)
        return lambda request: {"output-0": model.predict(request.inputs[0].as_numpy())}
    if runtime == "xgboost":
        import xgboost

        booster = xgboost.Booster(model_file=file)
        booster.set_param({"nthread": 1})
        return lambda request: {"output-0": booster.predict(xgboost.DMatrix(request.inputs[0].as_numpy(), nthread=1))}
    import lightgbm

    trees = lightgbm.Booster(model_file=file)
    return lambda request: {"output-0": trees.predict(request.inputs[0].as_numpy(), num_threads=1)}


class OneModel(Model):
    """A model by one of the libraries; every output is answered, in the form that the request wants."""

    def __init__(self, name: str, runtime: str, file: str) -> None:
        super().__init__(name)
        self._run = _load(runtime, file)
        self.ready = True

    def predict(self, payload: InferRequest, headers: dict[str, str] | None = None, **_: object) -> InferResponse:
        outputs = []
        for name, array in self._run(payload).items():
            output = InferOutput(name, list(array.shape), from_np_dtype(array.dtype))
            output.set_data_from_numpy(array, binary_data=payload.use_binary_outputs)
            outputs.append(output)
        return InferResponse(
            response_id=payload.id or generate_uuid(),
            model_name=self.name,
            infer_outputs=outputs,
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


def main() -> None:
    parser = argparse.ArgumentParser(parents=[model_server.parser])
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--file", required=True)
    options = parser.parse_args()
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.set_event_loop(asyncio.new_event_loop())  # KServe asks for one before it runs one
    server = ModelServer()
    for name in ("uvicorn.access", "kserve.trace"):  # a line a request each
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = False
        logging.getLogger(name).setLevel(logging.ERROR)
    server.start([OneModel(options.model_name, options.runtime, options.file)])


main()
