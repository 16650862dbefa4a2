"""Text without its accents."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from unidecode import unidecode


class Model:
    """See docs/serving.md, Python."""

    inputs = (("text", "BYTES", [-1]),)
    outputs = (("plain", "BYTES", [-1]), ("length", "INT32", [-1]))
    row_wise = True

    def predict(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Answer each text in ASCII, and its length."""
        plain = [unidecode(text) for text in inputs["text"]]
        return {"plain": plain, "length": np.array([len(text) for text in plain], np.int32)}

    def explain(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Answer which texts had accents."""
        return {"accents": [unidecode(text) != text for text in inputs["text"]]}
