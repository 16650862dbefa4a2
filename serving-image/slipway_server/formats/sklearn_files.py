"""scikit-learn's files: skops, and pickle and joblib, which run code."""

import warnings
from pathlib import Path
from typing import Any

from slipway_server import logs
from slipway_server.formats import one_line, out_of_memory
from slipway_server.formats.sklearn_imports import sparingly
from slipway_server.termination import Reason, TerminalError

with sparingly():
    import sklearn
    from sklearn.base import BaseEstimator

_CURE = "save it again with the versions of this image, and set its sha256"


def read(path: Path, trust: str) -> Any:
    """The estimator in a file. Raises TerminalError: ModelCorrupt, UnsupportedModel, UntrustedModel, OutOfMemory."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator = _read(path, trust)
        except TerminalError:
            raise
        except MemoryError:
            raise out_of_memory(path) from None
        except ModuleNotFoundError as error:
            cure = "serve it from an image of your own, FROM this one, that has it"
            raise TerminalError(Reason.UNSUPPORTED_MODEL, f"{path.name} needs the package {error.name}: {cure}") from None
        except Exception as error:
            message = f"{path.name} is not a sound {path.suffix[1:]} file of scikit-learn {sklearn.__version__}"
            raise TerminalError(Reason.MODEL_CORRUPT, f"{message} ({type(error).__name__}: {one_line(error)}): {_CURE}") from None
    for warning in {str(warning.message): warning for warning in caught}.values():
        logs.warning("loading the model", cause=one_line(Warning(warning.message)))
    if not isinstance(estimator, BaseEstimator):
        kind = type(estimator).__name__
        raise TerminalError(Reason.UNSUPPORTED_MODEL, f"{path.name} holds a {kind}: save a fitted estimator or pipeline")
    return estimator


def _read(path: Path, trust: str) -> Any:
    if path.suffix == ".skops":
        from slipway_server.formats import skops

        return skops.read(path, trust)
    with sparingly():  # a pickle that holds something of pandas imports it by itself
        import joblib
    return joblib.load(path)
