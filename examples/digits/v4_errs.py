"""Version 4 of the recogniser: the network of version 2, and a mistake: it fails on one image in four.

It corrects the grey of a pixel by a table of 16 entries, but greys go from 0 to 16: an image that is black there is an error.
"""

import numpy as np
import onnxruntime

CORRECTED = np.arange(16, dtype=np.float32)
PIXEL = 28


class Model:
    """Answers like version 2, or fails."""

    inputs = (("image", "FP32", [-1, 64]),)
    outputs = (("label", "INT64", [-1]), ("probabilities", "FP32", [-1, 10]))

    def load(self, folder):
        self.network = onnxruntime.InferenceSession(folder / "v2.onnx", providers=["CPUExecutionProvider"])

    def predict(self, inputs):
        images = inputs["image"].copy()
        images[:, PIXEL] = CORRECTED[images[:, PIXEL].astype(int)]
        label, probabilities = self.network.run(["label", "probabilities"], {"image": images})
        return {"label": label, "probabilities": probabilities}
