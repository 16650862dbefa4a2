"""The bundled model server of Slipway: fetches a model, proves that it loads, serves it over V2."""

import os

__version__ = "0.1.0"

# Both must be set before the libraries load, so here. Official onnxruntime builds since 1.29 send usage events to their
# vendor and keep a device id in the home folder unless told not to. OpenBLAS would start a thread for each CPU of the
# node, which nothing here uses.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
