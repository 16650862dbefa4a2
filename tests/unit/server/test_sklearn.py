"""scikit-learn: its forests answered by Slipway's own path, its imports kept few, and its types trusted as skops does."""

import copy
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import all_estimators
from skops import io as skops_io
from tests.unit.server.support import environment

from slipway_server import formats
from slipway_server.formats import skops
from slipway_server.formats.sklearn_forest import quicken
from slipway_server.termination import TerminalError

X, Y = sklearn.datasets.load_iris(return_X_y=True)
TARGETS = {
    "numbers": np.random.default_rng(1).normal(size=150),
    "pairs of numbers": np.random.default_rng(2).normal(size=(150, 2)),
    "classes": Y,
    "names": np.array(["setosa", "versicolor", "virginica"])[Y],
    "one class": np.zeros(150, int),
    "pairs of classes": np.stack([Y, Y > 0], 1),
}
METHODS = ("predict", "predict_proba")


def same(one: Any, other: Any) -> bool:
    """To the last bit."""
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


@settings(max_examples=30)
@given(
    target=st.sampled_from(sorted(TARGETS)),
    extra=st.booleans(),
    trees=st.integers(1, 12),
    depth=st.none() | st.integers(1, 4),
    missing=st.booleans(),
    rows=st.sampled_from([1, 2, 3, 40]),
    kind=st.sampled_from([np.float64, np.float32, np.int64]),
    seed=st.integers(0, 1000),
)
def test_a_forest_answers_as_scikit_learn_has_it(
    target: str, extra: bool, trees: int, depth: int | None, missing: bool, rows: int, kind: Any, seed: int
) -> None:
    kinds = (
        (RandomForestRegressor, ExtraTreesRegressor) if "numbers" in target else (RandomForestClassifier, ExtraTreesClassifier)
    )
    random = np.random.default_rng(seed)
    known = np.where(random.random(X.shape) < 0.1, np.nan, X) if missing else X
    forest = kinds[extra](trees, max_depth=depth, random_state=seed).fit(known, TARGETS[target])
    quick = copy.deepcopy(forest)
    quicken(quick)
    asked = (random.choice(X.ravel(), (rows, 4)) + random.normal(size=(rows, 4))).astype(kind)
    if missing and kind is not np.int64:
        asked[random.random(asked.shape) < 0.3] = np.nan
    for method in METHODS:
        if hasattr(forest, method):
            assert same(getattr(forest, method)(asked), getattr(quick, method)(asked))


def test_many_rows_are_answered_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slipway_server.formats.sklearn_forest._BLOCK", 5 * 5 * 7)
    forest = RandomForestClassifier(5, random_state=1).fit(X, Y)
    expected = forest.predict_proba(X)
    quicken(forest)
    assert same(forest.predict_proba(X), expected)


def test_a_forest_in_a_pipeline_is_quick_and_refuses_as_before() -> None:
    forest = RandomForestClassifier(5, random_state=1)
    pipeline = make_pipeline(StandardScaler(), forest).fit(X, Y)
    expected = pipeline.predict_proba(X)
    quicken(pipeline)
    forest.estimators_ = []  # nobody asks them any more
    assert same(pipeline.predict_proba(X), expected)
    for rows, message in ((np.full((1, 4), np.inf), "infinity"), (np.ones((1, 5)), "5 features"), (np.ones((0, 4)), "0 sample")):
        with pytest.raises(ValueError, match=message):
            RandomForestClassifier(2).fit(X, Y).predict(rows)
        quick = RandomForestClassifier(2).fit(X, Y)
        quicken(quick)
        with pytest.raises(ValueError, match=message):
            quick.predict(rows)


def test_the_estimators_of_scikit_learn_are_trusted_and_nothing_else() -> None:
    names = {f"{kind.__module__}.{kind.__name__}" for _, kind in all_estimators() if kind.__module__.startswith("sklearn.")}
    assert len(names) > 150
    assert not [name for name in names if not skops._is_estimator(name)]
    modules = [module for name, module in sys.modules.items() if name.startswith("sklearn.")]
    found = {f"{module.__name__}.{name}" for module in modules for name, _ in inspect.getmembers(module, callable)}
    assert {name for name in found if skops._is_estimator(name)} == names
    for name in ("os.system", "sklearn.nowhere.Thing", "sklearn..x", "sklearn.base.BaseEstimator", "sklearn.tests.test_base.A"):
        assert not skops._is_estimator(name)


@pytest.mark.parametrize("kind", [RandomForestClassifier, GradientBoostingRegressor])
def test_skops_with_trees_for_wider_rows_than_it_asks_for(tmp_path: Path, kind: Any) -> None:
    estimator = kind(n_estimators=2).fit(X, Y)
    estimator.n_features_in_ = 1
    for tree in np.ravel(estimator.estimators_):
        tree.n_features_in_ = 1
    skops_io.dump(estimator, tmp_path / "model.skops")
    with pytest.raises(TerminalError, match="a feature that does not exist"):
        formats.load(tmp_path / "model.skops", "SKLearn", 1)


DEFERRED = """
import sys
from pathlib import Path
from slipway_server import formats, loading
formats.prepare("SKLearn", Path(sys.argv[1]))
model = formats.load(Path(sys.argv[1]), "SKLearn", 1)
assert loading.warm_up(model, Path(sys.argv[1])) is None
print(*(name for name in ("pandas", "scipy.stats", "scipy.integrate", "sklearn.gaussian_process") if name in sys.modules))
from scipy import stats, integrate
from sklearn.metrics import auc, label_ranking_loss
from sklearn.metrics._ranking import rankdata
print(rankdata([3, 1, 2]).tolist(), auc([0, 1], [0, 1]), stats.norm.cdf(0), integrate.trapezoid([1, 1]))
"""


def test_what_serving_does_not_need_is_imported_when_it_is_asked(tmp_path: Path) -> None:
    skops_io.dump(make_pipeline(StandardScaler(), RandomForestClassifier(3)).fit(X, Y), tmp_path / "model.skops")
    command = [sys.executable, "-c", DEFERRED, str(tmp_path / "model.skops")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["", "[3.0, 1.0, 2.0] 0.5 0.5 1.0"]
