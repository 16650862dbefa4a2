"""Forests of scikit-learn, all of whose trees are followed in one call.

scikit-learn calls one tree after the other: for one row and 500 trees that takes 14 ms, here 0.05-0.1 ms.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from slipway_server.formats.sklearn_imports import sparingly
from slipway_server.formats.sklearn_parts import parts
from slipway_server.tensors import Array

with sparingly():
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor
    from sklearn.tree._tree import Tree  # pyright: ignore[reportMissingModuleSource]

_CLASSIFIERS = (ExtraTreesClassifier, RandomForestClassifier)
_REGRESSORS = (ExtraTreesRegressor, RandomForestRegressor)
_MAX_NODES = 1 << 20  # they are held a second time: 64 bytes each, and 8 for each class
_BLOCK = 1 << 20  # numbers of 4 bytes: the working space of a run


def quicken(estimator: Any) -> None:
    """Gives every forest that is a part of `estimator`, but none of a subclass, the methods of a Forest."""
    for part in parts(estimator):
        if type(part) not in (*_CLASSIFIERS, *_REGRESSORS):
            continue
        trees = [one.tree_ for one in part.estimators_]
        features = part.n_features_in_
        large = sum(tree.node_count for tree in trees) > _MAX_NODES or len(trees) * (features + 1) > _BLOCK
        if large or {(tree.n_features, tree.value.shape[1:]) for tree in trees} != {(features, trees[0].value.shape[1:])}:
            continue
        forest = Forest(part, trees)
        own = {"predict": forest.predict}
        if isinstance(part, _CLASSIFIERS):
            own["predict_proba"] = forest.predict_proba
        vars(part).update(own)


class Forest:
    """Methods of a forest, with the same answers to the last bit.

    For arrays of numbers, that is: whatever else comes, and what scikit-learn refuses, is passed on to its own methods.
    All trees are made one, whose uppermost nodes ask for the number of a tree: that is another feature of each row, and
    the rows are repeated for every tree.
    """

    def __init__(self, forest: Any, trees: Sequence[Any]) -> None:
        self._forest = forest
        self._features: int = forest.n_features_in_
        self._missing: bool = forest.estimators_[0].__sklearn_tags__().input_tags.allow_nan
        self._numbers = np.arange(len(trees), dtype=np.float32)[:, np.newaxis]
        self._rows = _BLOCK // (len(trees) * (self._features + 1))
        self._classes: list[Any] = []
        if isinstance(forest, _CLASSIFIERS):
            self._classes = [forest.classes_] if forest.n_outputs_ == 1 else forest.classes_
        self._tree = _joined(trees, self._features)

    def predict_proba(self, rows: Any) -> Any:
        """FP64 [N, classes], for several targets a list of such."""
        means = self._means(rows)
        if means is None:
            return type(self._forest).predict_proba(self._forest, rows)
        shares = [means[:, place, : len(classes)] for place, classes in enumerate(self._classes)]
        return shares[0] if len(shares) == 1 else shares

    def predict(self, rows: Any) -> Any:
        """The mean, or the class with the highest: [N], for several targets [N, targets]."""
        means = self._means(rows)
        if means is None:
            return type(self._forest).predict(self._forest, rows)
        if not self._classes:
            return means[:, 0, 0] if means.shape[1] == 1 else means[:, :, 0]
        chosen = [classes.take(np.argmax(means[:, place, : len(classes)], axis=1)) for place, classes in enumerate(self._classes)]
        return chosen[0] if len(chosen) == 1 else np.stack(chosen, 1).astype(self._classes[0].dtype, copy=False)

    def _means(self, rows: Any) -> Any:
        """FP64 [N, targets, classes] over the trees; None for what is not to be answered here."""
        if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "fiu" or rows.ndim != 2:
            return None
        if not len(rows) or rows.shape[1] != self._features:
            return None
        rows = rows.astype(np.float32, copy=False)
        if not np.isfinite(rows).all() and (not self._missing or np.isinf(rows).any()):
            return None
        if len(rows) <= self._rows:
            return self._block(rows)
        starts = range(0, len(rows), self._rows)
        return np.concatenate([self._block(rows[start : start + self._rows]) for start in starts])

    def _block(self, rows: Array) -> Array:
        trees, count = len(self._numbers), len(rows)
        repeated = np.empty((trees, count, self._features + 1), np.float32)
        repeated[:, :, :-1] = rows
        repeated[:, :, -1] = self._numbers
        answers = self._tree.predict(repeated.reshape(trees * count, -1))
        answers = answers.reshape(trees, count, self._tree.n_outputs, -1)
        # Added up in scikit-learn's order, which numpy keeps if there are several sums, but not for one.
        sums = np.add.reduce(answers) if answers[0].size > 1 else np.add.accumulate(answers)[-1]
        return sums / trees


def _joined(trees: Sequence[Any], features: int) -> Any:
    """One tree of `features` + 1 features, the last of which is the number of the tree to follow."""
    count = len(trees)
    starts = count - 1 + np.cumsum([0, *(tree.node_count for tree in trees)])
    nodes = np.concatenate([_nodes(trees[0])[:1].repeat(count - 1), *(_nodes(tree) for tree in trees)])
    for start, end in pairwise(starts):
        own = nodes[start:end]
        inner = own["left_child"] != -1
        own["left_child"][inner] += start
        own["right_child"][inner] += start
    free = iter(range(count - 1))

    def choose(first: int, end: int) -> int:
        """The node that leads to the trees from `first` to before `end`."""
        if end - first == 1:
            return int(starts[first])
        place, middle = next(free), (first + end) // 2
        node = nodes[place : place + 1]
        node["feature"], node["threshold"] = features, middle - 0.5
        node["left_child"], node["right_child"] = choose(first, middle), choose(middle, end)
        return place

    choose(0, count)
    values = np.concatenate([np.zeros((count - 1, *trees[0].value.shape[1:])), *(tree.value for tree in trees)])
    tree = Tree(features + 1, np.asarray(trees[0].n_classes, np.intp), trees[0].n_outputs)
    tree.__setstate__({"max_depth": 0, "node_count": len(nodes), "nodes": nodes, "values": values})
    return tree


def _nodes(tree: Any) -> Any:
    return tree.__getstate__()["nodes"]
