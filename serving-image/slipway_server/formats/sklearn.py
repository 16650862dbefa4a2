"""scikit-learn: estimators, and pipelines with their preprocessing."""

import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from slipway_server.formats import SAFE, Model, ModelInputError, ModelMemoryError, ModelRunError, RunHandle, one_line
from slipway_server.formats.sklearn_files import read
from slipway_server.formats.sklearn_forest import quicken
from slipway_server.formats.sklearn_imports import sparingly
from slipway_server.formats.sklearn_parts import parts
from slipway_server.tensors import DATATYPES, Array, TensorSpec, datatype_of

with sparingly():
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import FeatureUnion, Pipeline

_FP64 = DATATYPES["FP64"]
_BYTES = DATATYPES["BYTES"]
_METHODS = ("predict", "predict_proba", "decision_function")
_limited = threading.local()
# They are fitted on frames and asked with arrays, in the order of the columns.
warnings.filterwarnings("ignore", "X does not have valid feature names")


class SklearnModel(Model):
    """A Model on an estimator.

    Inputs: FP64 [N, features] where every column is numeric; otherwise one input a column, [N], by the names of the frame
    that it was fitted on (x0, x1, ... for one without names), BYTES for text and FP64 for the rest; BYTES [N] for what
    reads documents. Outputs: `predict`, and if a request names them `predict_proba` and `decision_function`, where the
    estimator has them; `transform` of one that only transforms. One that answers for several targets has an output
    `predict_proba_0`, ... for each.
    """

    platform = "sklearn"

    def __init__(self, estimator: Any, threads: int) -> None:
        self._estimator = estimator
        self.concurrency = threads  # each run has one thread
        jobs = {name: 1 for name, value in estimator.get_params().items() if name.rpartition("__")[2] == "n_jobs" and value}
        estimator.set_params(**jobs)
        quicken(estimator)
        columns = _Columns(estimator)
        self._pandas: Any = None
        self._names = columns.names
        self._documents = columns.documents
        if columns.by_name:
            import pandas

            self._pandas = pandas
        if columns.documents:
            self.inputs = (TensorSpec("input", _BYTES, ("rows",)),)
        elif not columns.texts or (len(columns.texts) == columns.count and not columns.named):
            self.inputs = (_input("input", bool(columns.texts), ("rows", columns.count)),)
        else:
            self.inputs = tuple(
                _input(name, place in columns.texts, ("rows",), columns.texts.get(place))
                for place, name in enumerate(self._names)
            )
            self.known_texts = {self._names[place]: texts for place, texts in columns.texts.items() if texts}
        self.any_name = len(self.inputs) == 1
        self._as_columns = len(self.inputs) > 1 or (bool(columns.texts) and columns.named)
        methods = [name for name in _METHODS if hasattr(estimator, name)]
        self._methods = {name: name for name in methods or ["transform"]}
        self.outputs = self._probed_outputs()
        self.default_outputs = (self.outputs[0].name,)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], handle: RunHandle) -> list[Array]:
        """One array for each name in `outputs`. Raises ModelInputError or ModelRunError, or one of its kinds."""
        if not hasattr(_limited, "done"):  # OpenMP's setting is of the thread that made it
            _limited.done = threadpool_limits(1)
        try:
            return [_array(self._ask(name, self._table(feeds))) for name in outputs]
        except MemoryError:
            raise ModelMemoryError("out of memory") from None
        except (ValueError, TypeError) as error:  # unknown categories, NaN: what scikit-learn's checks refuse
            raise ModelInputError(one_line(error)) from None
        except Exception as error:
            raise ModelRunError(f"{type(error).__name__}: {one_line(error)}") from None

    def _ask(self, output: str, table: Any) -> Any:
        method, _, target = output.partition("_proba_")
        if target:
            return self._estimator.predict_proba(table)[int(target)]
        return getattr(self._estimator, method)(table)

    def _table(self, feeds: Mapping[str, Array]) -> Any:
        if self._documents:
            return next(iter(feeds.values())).tolist()
        if self._as_columns:
            if self._pandas is not None:
                return self._pandas.DataFrame({name: feeds[name] for name in self._names})
            return np.stack([feeds[name].astype(object) for name in self._names], 1)
        (rows,) = feeds.values()
        rows = rows if rows.dtype == object else rows.astype(np.float64, copy=False)
        return rows if self._pandas is None else self._pandas.DataFrame(rows, columns=self._names)

    def _probed_outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs as they come for two rows of zeros; where the estimator refuses these, as far as its classes tell."""
        feeds: dict[str, Array] = {}
        for spec in self.inputs:
            shape = [2, *(dim if isinstance(dim, int) else 1 for dim in (spec.dims or ())[1:])]
            texts = self.known_texts.get(spec.name, ("0",))
            feeds[spec.name] = np.full(shape, texts[0], object) if spec.datatype is _BYTES else np.zeros(shape)
        specs: list[TensorSpec] = []
        for method in self._methods:
            try:
                answer = getattr(self._estimator, method)(self._table(feeds))
            except Exception:
                classes = np.asarray(getattr(self._estimator, "classes_", np.zeros(0))) if method == "predict" else np.zeros(0)
                specs.append(TensorSpec(method, datatype_of(classes), None))
                continue
            if isinstance(answer, list):
                specs += [_spec(f"{method}_{place}", _array(one)) for place, one in enumerate(answer)]
            else:
                specs.append(_spec(method, _array(answer)))
        return tuple(specs)


class _Columns:
    """What can be known of the columns that an estimator was fitted on.

    `texts` has the places of those that hold text, each with texts that are known to occur in it.
    """

    def __init__(self, estimator: Any) -> None:
        names: Sequence[Any] | None = getattr(estimator, "feature_names_in_", None)
        self.named = names is not None
        self.texts: dict[int, list[str]] = {}
        self.documents = False
        self.count: int | None = getattr(estimator, "n_features_in_", None)
        self._look(estimator, list(range(self.count or 0)))
        self.names = list(map(str, names)) if names is not None else [f"x{place}" for place in range(self.count or 0)]
        transformers = [part for part in parts(estimator) if isinstance(part, ColumnTransformer)]
        self.by_name = self.named and bool(transformers)

    def _look(self, step: Any, places: Sequence[int]) -> None:
        if isinstance(step, Pipeline):
            for _, part in step.steps:
                self._look(part, places)
                if not _keeps_columns(part):
                    return
        elif isinstance(step, FeatureUnion):
            for _, part in step.transformer_list:
                self._look(part, places)
        elif isinstance(step, ColumnTransformer):
            for name, part, _ in step.transformers_:
                chosen = step._transformer_to_input_indices.get(name, [])  # pyright: ignore[reportPrivateUsage]
                self._look(part, [places[place] for place in chosen if place < len(places)])
        elif hasattr(step, "best_estimator_"):
            self._look(step.best_estimator_, places)
        elif _reads_documents(step):
            self.documents = not places
            self.texts |= {place: [] for place in places}
        else:
            for place, values in zip(places, _known_values(step), strict=False):
                if values.dtype.kind in "OUT" and any(isinstance(value, str) for value in values.tolist()):
                    self.texts[place] = [value for value in values.tolist() if isinstance(value, str)] or self.texts.get(
                        place, []
                    )


def _known_values(step: Any) -> list[Array]:
    """For each column of an encoder or an imputer, values that occur in it."""
    categories = getattr(step, "categories_", None)
    if isinstance(categories, list):
        return [np.asarray(values) for values in categories]
    statistics = getattr(step, "statistics_", None)
    return [] if statistics is None else [np.asarray([value], object) for value in np.asarray(statistics).tolist()]


def _keeps_columns(step: Any) -> bool:
    return step in ("passthrough", None) or hasattr(step, "statistics_")


def _reads_documents(step: Any) -> bool:
    return hasattr(step, "build_analyzer")  # CountVectorizer, TfidfVectorizer, HashingVectorizer


def _input(name: str, text: bool, dims: tuple[int | str | None, ...], known: Sequence[str] | None = None) -> TensorSpec:
    return TensorSpec(name, _BYTES if text else _FP64, dims, numbers=not text, sample=known[0] if known else "")


def _spec(name: str, array: Array) -> TensorSpec:
    return TensorSpec(name, datatype_of(array), ("rows", *array.shape[1:]))


def _array(answer: Any) -> Array:
    """A dense array of a type that the protocol has."""
    if hasattr(answer, "toarray"):
        answer = answer.toarray()
    array = np.asarray(answer)
    return array.astype(object) if array.dtype.kind in "UST" else array


def load(path: Path, threads: int, trust: str = SAFE) -> SklearnModel:
    """Loads an estimator for `threads` runs at once. Raises TerminalError as `sklearn_files.read` does."""
    return SklearnModel(read(path, trust), threads)
