"""scikit-learn's files: skops, whose types are checked before anything is built; pickle and joblib, which run code."""

import sys
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from slipway_server import logs
from slipway_server.formats import SAFE, one_line, out_of_memory
from slipway_server.termination import Reason, TerminalError


@contextmanager
def without_pandas() -> Generator[None]:
    """scikit-learn imports pandas if it is there, 0.6 s and 35 MB, and works without until a frame is made."""
    absent = "pandas" not in sys.modules
    if absent:
        sys.modules["pandas"] = None  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        if absent:
            del sys.modules["pandas"]


with without_pandas():
    import sklearn
    from sklearn.base import BaseEstimator

TRUSTED = (
    # What skops does not trust by itself and is here: data and arithmetic, nothing that calls what the file names.
    "numpy.dtype",
    "sklearn._loss.loss.HalfTweedieLoss",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.feature_selection._univariate_selection.chi2",
    "sklearn.feature_selection._univariate_selection.f_classif",
    "sklearn.feature_selection._univariate_selection.f_regression",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    *(
        f"sklearn.gaussian_process.kernels.{name}"
        for name in ("ConstantKernel", "DotProduct", "Matern", "Product", "RBF", "RationalQuadratic", "Sum", "WhiteKernel")
    ),
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    # Not trusted by skops because their nodes point to others unchecked: _check_trees checks them.
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)
_CURE = "save it again with the versions of this image, and set its sha256"


def read(path: Path, trust: str) -> Any:
    """The estimator in a file. Raises TerminalError: ModelCorrupt, UnsupportedModel, UntrustedModel, OutOfMemory."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator = _read_skops(path, trust) if path.suffix == ".skops" else _read_pickle(path)
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


def _read_skops(path: Path, trust: str) -> Any:
    with without_pandas():
        from skops import io

    foreign = io.get_untrusted_types(file=path)
    unknown = [name for name in foreign if name not in TRUSTED]
    if unknown and trust == SAFE:
        raise TerminalError(
            Reason.UNTRUSTED_MODEL,
            f"{path.name} holds types that may run code: {', '.join(unknown)[:1000]}: "
            "build the model without them, or set model.trust: Unsafe if you trust its author",
        )
    estimator = io.load(path, trusted=foreign)
    if trust == SAFE:
        _check_trees(estimator)
    return estimator


def _read_pickle(path: Path) -> Any:
    with without_pandas():  # a pickle that holds something of pandas imports it by itself
        import joblib
    return joblib.load(path)


def _check_trees(estimator: Any) -> None:
    """Raises ValueError unless every node of every tree points to later nodes of the tree and to features that exist:
    the libraries follow them unchecked, out of the array or in a circle."""
    from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting
    from sklearn.tree._tree import Tree  # pyright: ignore[reportMissingModuleSource]

    for part in parts(estimator):
        if isinstance(part, Tree):
            left, right, feature = part.children_left, part.children_right, part.feature
            _check_nodes(left == -1, left, right, feature, part.n_features)
        elif isinstance(part, BaseHistGradientBoosting):
            rounds: list[list[Any]] = part._predictors  # pyright: ignore[reportPrivateUsage]
            for predictor in (one for row in rounds for one in row):
                nodes = predictor.nodes
                leaf = nodes["is_leaf"] != 0
                _check_nodes(leaf, nodes["left"], nodes["right"], nodes["feature_idx"], part.n_features_in_)
                split = nodes[~leaf & (nodes["is_categorical"] != 0)]
                if split.size and split["bitset_idx"].max() >= len(predictor.raw_left_cat_bitsets):
                    raise ValueError("a node of a tree points out of its categories")


def _check_nodes(leaf: Any, left: Any, right: Any, feature: Any, features: int) -> None:
    count = len(leaf)
    place = np.arange(count)[~leaf]
    for child in (left[~leaf].astype(np.int64), right[~leaf].astype(np.int64)):
        if not count or ((child <= place) | (child >= count)).any():
            raise ValueError("a node of a tree points out of the tree")
    if ((feature[~leaf] < 0) | (feature[~leaf] >= features)).any():
        raise ValueError("a node of a tree asks for a feature that does not exist")


def parts(root: Any) -> Iterator[Any]:
    """Everything that an estimator is made of, itself first."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        part = waiting.pop()
        if id(part) in seen or isinstance(part, (str, bytes, int, float, type(None))):
            continue
        seen.add(id(part))
        yield part
        if isinstance(part, dict):
            waiting += [*part.keys(), *part.values()]
        elif isinstance(part, (list, tuple, set, frozenset)):
            waiting += part
        elif isinstance(part, np.ndarray):
            if part.dtype == object:
                waiting += part.ravel().tolist()
        else:
            waiting += getattr(part, "__dict__", {}).values()
