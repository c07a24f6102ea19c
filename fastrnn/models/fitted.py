"""Fitted estimators of sequences: prediction, streams and files. Without scikit-learn."""

from __future__ import annotations

import copy
import os
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self, overload

import numpy as np

from fastrnn import _checks
from fastrnn._files import model_file
from fastrnn._types import Array, HasArray, SequencesLike
from fastrnn.layers import Normalization, Sigmoid, Softmax
from fastrnn.layers.row_map import RowMap
from fastrnn.models import architecture, class_labels, sequences
from fastrnn.models.prediction_stream import PredictionStream
from fastrnn.models.sequences import Inputs
from fastrnn.models.sequential import Sequential


class FittedModel(model_file.Model):
    """What an estimator of sequences has learned, and all that prediction needs.

    The estimators of ``fastrnn.sklearn`` add training to it. Where scikit-learn is not installed,
    ``fastrnn.load`` returns it alone.

    Parameters
    ----------
    **settings
        The estimator's constructor's arguments; they are kept for the next file.
    """

    #: What files call it: the estimator's class. Each class that a file can hold has its own.
    _KIND: ClassVar[str]

    net_: Sequential
    n_features_in_: int
    feature_names_in_: Array
    loss_curve_: list[float]
    n_iter_: int
    validation_scores_: list[float] | None
    best_validation_score_: float | None
    _inputs: Inputs
    _per_step: bool = False
    #: Whether predictions are numbers, without an axis.
    _single: bool = False

    def __init__(self, **settings: Any) -> None:
        self._settings = settings

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the settings of the estimator that was saved."""
        return dict(self._settings)

    def _expect_fitted(self) -> None:
        """Raise if it is not fitted; what a file gave always is."""

    @abstractmethod
    def _decoded(self, outputs: Array) -> Array:
        """Return the predictions that the network's outputs (n, outputs) stand for."""

    @abstractmethod
    def _head(self) -> RowMap:
        """Return the layer that makes what a stream gives of the network's outputs, in float64."""

    @abstractmethod
    def _described(self, tensors: dict[str, Array]) -> dict[str, Any]:
        """Return what a file holds about the targets; add arrays to `tensors`."""

    @abstractmethod
    def _restore_targets(self, described: dict[str, Any], tensors: dict[str, Array]) -> None:
        """Take over what :meth:`_described` returned; its arrays are taken out of `tensors`."""

    @overload
    def predict(self, X: HasArray) -> Array: ...

    @overload
    def predict(self, X: SequencesLike) -> Array | list[Array]: ...

    def predict(self, X: HasArray | SequencesLike) -> Array | list[Array]:
        """Return a prediction for each sequence.

        Parameters
        ----------
        X : as in ``fit``

        Returns
        -------
        array, or list of arrays
            Of a classifier the most likely class of each sequence, (n,), or 0 and 1 for each of K
            labels, (n, K). Of a regressor (n,) or (n, K), as the targets were. With
            `return_sequences`, one for each step: (n, T) or (n, T, K), or, for a list, a list of
            (T_i,) or (T_i, K).
        """
        outputs, x = self._outputs(X)
        return self._apart(self._decoded(outputs), x)

    def stream(self, batch_size: int = 1) -> PredictionStream:
        """Return a stream, which predicts after each step; many streams can share a model.

        It takes features as they come, unscaled, and returns what ``predict_proba``, or
        ``predict`` of a regressor, returns for the steps since the start or the last ``reset``: the
        same bits.

        Parameters
        ----------
        batch_size : int
            Sequences stepped together.

        Returns
        -------
        PredictionStream

        Raises
        ------
        ValueError
            If the model is bidirectional: it needs whole sequences.
        """
        self._expect_fitted()
        return PredictionStream(
            self.net_, self._inputs, _checks.size(batch_size, "batch_size"),
            names=None if self._inputs.table else self._names(), head=self._head(),
            single=self._single,
        )  # fmt: skip

    def _names(self) -> list[str] | None:
        names = getattr(self, "feature_names_in_", None)
        return None if names is None else names.tolist()

    def _quantized(self, calibration: Any) -> Self:
        """Return the model with int8 weights; `calibration` is as X."""
        from fastrnn.models import quantization

        self._expect_fitted()
        if calibration is not None:
            calibration = self._inputs.scaled(self._checked(calibration))
        other = copy.copy(self)
        other.net_ = quantization.quantize_sequential(self.net_, calibration)
        return other

    def _checked(self, X: Any) -> Any:
        """Return sequences, unscaled, as the estimator that was fitted takes them."""
        x, _ = sequences.checked(X, self, reset=False, as_table=self._inputs.table)
        return x

    def _outputs(self, X: Any) -> tuple[Array, Any]:
        """Return the network's outputs, as :meth:`_outputs_of`, and the inputs."""
        self._expect_fitted()
        x = self._checked(X)
        # An array may be mapped from a file: it is scaled part by part.
        parts = sequences.parts(x)
        outputs = [self._outputs_of(self.net_, self._inputs.scaled(part)) for part in parts]
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs), x

    @staticmethod
    def _outputs_of(net: Sequential, x: Any) -> Array:
        """Return a network's outputs, (n, outputs) float64; those of all steps one by one."""
        y = net.predict(x)
        y = np.concatenate(y) if isinstance(y, list) else y
        outputs: Array = y.reshape(-1, y.shape[-1]).astype(np.float64)
        return outputs

    def _apart(self, values: Array, x: Any) -> Array | list[Array]:
        """Return values of all steps as those of each sequence; others unchanged."""
        if not self._per_step:
            return values
        if isinstance(x, np.ndarray):
            return values.reshape(*x.shape[:2], *values.shape[1:])
        return np.split(values, np.cumsum(sequences.steps(x))[:-1])

    # Files.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that prediction needs to a safetensors file, for ``fastrnn.load``.

        The file is replaced atomically and holds no code: network, scaling, classes, number and
        names of features, and the settings, in which a ``RandomState`` becomes None. ``load``
        returns an estimator again, or, where scikit-learn is not installed, an object with all
        methods but those that train or score. Predictions have the same bits. The steps of a
        pipeline that come before the estimator are not in its file.

        Parameters
        ----------
        path : str or path-like

        Raises
        ------
        NotFittedError
            If it is not fitted.
        TypeError
            If its class is derived from the library's own, or settings or classes are of a type
            that no file can hold.
        """
        self._expect_fitted()
        if "_KIND" not in vars(type(self)):
            raise TypeError(
                f"save: expected {self._KIND}, got {type(self).__name__}, a class derived from it, "
                "which no file can hold"
            )
        tensors = {f"net.{name}": array for name, array in self.net_.arrays().items()}
        tensors |= self._inputs.norm.buffers()
        header = {
            "settings": _plain(self.get_params()),
            "net": architecture.describe(self.net_.layers),
            "per_step": self._per_step,
            "table": self._inputs.table,
            "n_features_in": self.n_features_in_,
            "feature_names_in": self._names(),
            "targets": self._described(tensors),
            "loss_curve": self.loss_curve_,
            "n_iter": self.n_iter_,
            "validation_scores": self.validation_scores_,
            "best_validation_score": self.best_validation_score_,
        }
        model_file.write(path, self._KIND, header, tensors)

    @classmethod
    def _from_file(cls, model: dict[str, Any], tensors: dict[str, Array]) -> Self:
        settings = dict(model["settings"])
        if isinstance(settings.get("class_weight"), list):
            settings["class_weight"] = dict(settings["class_weight"])
        self = cls(**settings)
        norm = {name: tensors.pop(name) for name in ("mean", "deviation")}
        weights = {n.removeprefix("net."): tensors.pop(n) for n in [*tensors] if n[:4] == "net."}
        self.net_ = net = Sequential(architecture.restore(model["net"], weights))
        F = net.features_in
        self._per_step = _checks.flag(model["per_step"], "per_step")
        table = _checks.flag(model["table"], "table")
        self.n_features_in_ = n = _checks.size(model["n_features_in"], "n_features_in")
        names = model["feature_names_in"]
        if net.per_sequence is self._per_step or F is None or (1 if table else n) != F:
            raise ValueError(f"net: expected one of {n} features that fits the rest of the file")
        self._inputs = Inputs(table, norm_from(norm, F, net.dtype))
        if names is not None:
            if len(names) != n or not all(isinstance(name, str) for name in names):
                raise ValueError(f"feature_names_in: expected {n} str, got {names!r}")
            self.feature_names_in_ = np.array(names, object)
        self._restore_targets(model["targets"], tensors)
        if tensors:
            raise ValueError(f"tensors: unexpected {sorted(tensors)}")
        self.loss_curve_ = [*map(float, model["loss_curve"])]
        self.n_iter_ = _checks.size(model["n_iter"], "n_iter")
        scores, best = model["validation_scores"], model["best_validation_score"]
        self.validation_scores_ = None if scores is None else [*map(float, scores)]
        self.best_validation_score_ = None if best is None else float(best)
        return self


class FittedClassifier(FittedModel):
    """A fitted :class:`fastrnn.sklearn.SequenceClassifier`, for prediction.

    Attributes
    ----------
    classes_ : (C,) array
        As the estimator's, with its dtype; and so are ``n_features_in_``, ``feature_names_in_``,
        ``net_`` and what tells of the training.
    """

    _KIND = "SequenceClassifier"

    classes_: Array
    _several: bool = False

    @overload
    def predict_proba(self, X: HasArray) -> Array: ...

    @overload
    def predict_proba(self, X: SequencesLike) -> Array | list[Array]: ...

    def predict_proba(self, X: HasArray | SequencesLike) -> Array | list[Array]:
        """Return the probability of each class.

        Parameters
        ----------
        X : as in ``fit``

        Returns
        -------
        (n, C) array
            In the order of ``classes_``; of several labels, (n, K). With `return_sequences`,
            (n, T, C), or, for a list, a list of (T_i, C).
        """
        outputs, x = self._outputs(X)
        return self._apart(self._head()(outputs), x)

    def _head(self) -> RowMap:
        return Sigmoid() if self._several else Softmax()

    def _decoded(self, outputs: Array) -> Array:
        decoded = (outputs > 0).astype(int) if self._several else self.classes_[outputs.argmax(1)]
        return np.asarray(decoded)

    def _described(self, tensors: dict[str, Array]) -> dict[str, Any]:
        return {"several": self._several, **class_labels.described(self.classes_, "classes_")}

    def _restore_targets(self, described: dict[str, Any], tensors: dict[str, Array]) -> None:
        self._several = _checks.flag(described["several"], "several")
        self.classes_ = class_labels.restored(described, "classes", self.net_.features_out)


class FittedRegressor(FittedModel):
    """A fitted :class:`fastrnn.sklearn.SequenceRegressor`, for prediction.

    It has the estimator's ``n_features_in_``, ``feature_names_in_``, ``net_`` and what tells of the
    training.
    """

    _KIND = "SequenceRegressor"

    _target_norm: Normalization

    def _head(self) -> RowMap:
        norm = Normalization(self._target_norm.features, invert=True, dtype=np.float64)
        norm.load_state_dict(self._target_norm.state_dict())
        return norm

    def _decoded(self, outputs: Array) -> Array:
        y = self._target_norm.inverse(outputs)
        return y[..., 0] if self._single else y

    def _described(self, tensors: dict[str, Array]) -> dict[str, Any]:
        tensors |= {f"target.{n}": array for n, array in self._target_norm.buffers().items()}
        return {"single": self._single}

    def _restore_targets(self, described: dict[str, Any], tensors: dict[str, Array]) -> None:
        K = self.net_.features_out
        self._single = _checks.flag(described["single"], "single")
        if self._single and K > 1:
            raise ValueError(f"single: expected False where there are {K} targets")
        norm = {name: tensors.pop(f"target.{name}") for name in ("mean", "deviation")}
        self._target_norm = norm_from(norm, K, np.dtype(np.float64), "target.")


def norm_from(
    arrays: Mapping[str, Array], features: int, dtype: np.dtype[Any], prefix: str = ""
) -> Normalization:
    """Return the normalization of a file, which holds `arrays` by these names, with a prefix."""
    for name, array in arrays.items():
        _checks.expect_dtype(array, prefix + name, np.dtype(np.float64))
        _checks.expect_shape(array, prefix + name, (features,))
        if not np.isfinite(array).all() or (name == "deviation" and not (array > 0).all()):
            raise ValueError(f"{prefix + name}: expected finite numbers, and deviations above 0")
    norm = Normalization(features, dtype=dtype)
    norm.load_state_dict(arrays)
    return norm


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as a file holds them."""
    plain = dict(settings)
    if isinstance(plain.get("class_weight"), Mapping):
        # As pairs: JSON would turn labels that are numbers into str.
        plain["class_weight"] = [*plain["class_weight"].items()]
    if isinstance(plain.get("random_state"), np.random.RandomState):
        plain["random_state"] = None
    for name, value in plain.items():
        if not isinstance(value, str | int | float | list | np.generic | None):
            raise TypeError(
                f"{name}: expected a number, a str or None, which a file can hold, got "
                f"{type(value).__name__}"
            )
    return plain
