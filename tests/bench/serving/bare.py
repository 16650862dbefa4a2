"""The library's own call in a loop, the limit of every server: prints the calls a second.

usage: bare.py RUNTIME FILE INPUT ARRAY.npy SECONDS   (one thread; for RUNTIME see cases.py)
"""

import sys
import time
from collections.abc import Callable

import numpy as np


def _call(runtime: str, file: str, name: str, array: np.ndarray) -> Callable[[], object]:
    if runtime == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        names, feeds = [output.name for output in session.get_outputs()], {name: array}
        return lambda: session.run(names, feeds)
    if runtime == "sklearn":
        import joblib

        model = joblib.load(file)
        return lambda: model.predict(array)
    if runtime == "xgboost":
        import xgboost

        booster = xgboost.Booster(model_file=file)
        booster.set_param({"nthread": 1})
        return lambda: booster.inplace_predict(array)
    import lightgbm

    trees = lightgbm.Booster(model_file=file)
    return lambda: trees.predict(array, num_threads=1)


def main() -> None:
    runtime, file, name, array, seconds = sys.argv[1:]
    call = _call(runtime, file, name, np.load(array))
    call()
    calls, began = 0, time.perf_counter()
    end = began + float(seconds)
    while time.perf_counter() < end:
        call()
        calls += 1
    print(calls / (time.perf_counter() - began))


main()
