"""skops files: their types are checked before anything is built, and their trees before anything follows them."""

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from slipway_server.formats import SAFE
from slipway_server.formats.sklearn_imports import sparingly
from slipway_server.formats.sklearn_parts import parts
from slipway_server.termination import Reason, TerminalError

with sparingly():
    import sklearn.utils
    from sklearn.base import BaseEstimator
    from sklearn.ensemble._forest import BaseForest
    from sklearn.ensemble._gb import BaseGradientBoosting
    from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting
    from sklearn.tree._tree import Tree  # pyright: ignore[reportMissingModuleSource]

    # skops trusts every estimator of scikit-learn, for which it imports all its modules: 0.4 s. _is_estimator tells as well.
    _all_estimators = sklearn.utils.all_estimators  # pyright: ignore[reportPrivateImportUsage]
    setattr(sklearn.utils, "all_estimators", list)  # noqa: B010
    from skops import io

    setattr(sklearn.utils, "all_estimators", _all_estimators)  # noqa: B010

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
_NOT_PUBLIC = {"tests", "externals", "setup", "conftest", "experimental", "estimator_checks"}  # as all_estimators has it


def read(path: Path, trust: str) -> Any:
    """The object in a file. Raises TerminalError(UntrustedModel), ValueError for a tree that points out of itself, and
    whatever skops raises of a broken file."""
    foreign = io.get_untrusted_types(file=path)
    unknown = [name for name in foreign if not _is_estimator(name) and name not in TRUSTED]
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


def _is_estimator(name: str) -> bool:
    """Whether a name is that of an estimator of scikit-learn, as sklearn.utils.all_estimators lists them."""
    place, _, kind = name.rpartition(".")
    if not place.startswith("sklearn.") or kind.startswith("_") or not _NOT_PUBLIC.isdisjoint(place.split(".")):
        return False
    try:
        with sparingly():
            known = getattr(import_module(place), kind, None)
            public = getattr(import_module(place.partition("._")[0]), kind, None)
    except ImportError:
        return False
    if not inspect.isclass(known) or known is not public or known.__module__ != place:
        return False
    return issubclass(known, BaseEstimator) and known is not BaseEstimator and not inspect.isabstract(known)


def _check_trees(estimator: Any) -> None:
    """Raises ValueError unless every node of every tree points to later nodes of the tree and to features that exist:
    the libraries follow them unchecked, out of the array or in a circle."""
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
        elif isinstance(part, (BaseForest, BaseGradientBoosting)) or hasattr(part, "tree_"):
            _check_widths(part)


def _check_widths(part: Any) -> None:
    """A request has the width that an estimator says, its trees are followed by the width that they say."""
    trees = [part] if hasattr(part, "tree_") else np.ravel(part.estimators_).tolist()
    for tree in trees:
        if not tree.tree_.n_features == tree.n_features_in_ == part.n_features_in_:
            raise ValueError("a node of a tree asks for a feature that does not exist")


def _check_nodes(leaf: Any, left: Any, right: Any, feature: Any, features: int) -> None:
    count = len(leaf)
    place = np.arange(count)[~leaf]
    for child in (left[~leaf].astype(np.int64), right[~leaf].astype(np.int64)):
        if not count or ((child <= place) | (child >= count)).any():
            raise ValueError("a node of a tree points out of the tree")
    if ((feature[~leaf] < 0) | (feature[~leaf] >= features)).any():
        raise ValueError("a node of a tree asks for a feature that does not exist")
