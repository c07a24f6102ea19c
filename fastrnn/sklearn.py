"""scikit-learn estimators for classification and regression of sequences.

They work in pipelines, grid searches, cross-validation and everywhere else that scikit-learn takes
estimators. Requires scikit-learn: ``pip install 'fastrnn[sklearn]'``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array
from fastrnn.models import estimators
from fastrnn.models.sequential import Sequential
from fastrnn.optim import Adam

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils import (
        assert_all_finite,
        check_array,
        check_random_state,
        compute_class_weight,
    )
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import (
        check_consistent_length,
        check_is_fitted,
        column_or_1d,
        validate_data,
    )
except ImportError:
    raise ImportError(
        "fastrnn.sklearn needs scikit-learn: pip install 'fastrnn[sklearn]'"
    ) from None


#: float32 is kept, everything else becomes float64, as elsewhere in scikit-learn.
_DTYPES = [np.float64, np.float32]


@dataclass(frozen=True)
class _Inputs:
    """Properties of the inputs to `fit`.

    Attributes
    ----------
    features : int
        F, over time.
    dtype : dtype
    table : bool
        Whether they were given as a table (n, T).
    mean, deviation : (F,) array
    """

    features: int
    dtype: np.dtype[Any]
    table: bool
    mean: Array
    deviation: Array

    @classmethod
    def of(cls, sequences: Any, table: bool, standardize: bool) -> Self:
        F = sequences[0].shape[1]
        scale = np.zeros(F), np.ones(F)
        if standardize:
            scale = _scale(np.concatenate(list(sequences)))
        return cls(F, sequences[0].dtype, table, *scale)

    def scaled(self, sequences: Any) -> Any:
        F = sequences[0].shape[1]
        if self.features != F:
            raise ValueError(f"X: expected {self.features} features over time, as in fit, got {F}")
        if isinstance(sequences, list):
            return [((x - self.mean) / self.deviation).astype(self.dtype) for x in sequences]
        return ((sequences - self.mean) / self.deviation).astype(self.dtype)


class _SequenceEstimator(BaseEstimator):  # type: ignore[misc]
    """The base of both estimators: standardised inputs, a network and its training."""

    #: The loss, for :meth:`fastrnn.Sequential.compile`.
    _loss: str

    net_: Sequential
    loss_curve_: list[float]
    n_features_in_: int
    _inputs: _Inputs

    def __init__(
        self,
        cell: str = "gru",
        *,
        hidden_size: int = 64,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        max_epochs: int = 50,
        batch_size: int = 32,
        lr: float = 5e-3,
        clip_norm: float = 1.0,
        standardize: bool = True,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.clip_norm = clip_norm
        self.standardize = standardize
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _train(
        self, X: Any, y: Array, outputs: int, sample_weight: Array | None, epochs: int | None
    ) -> None:
        """Train from scratch for `epochs`; with None, train the network for one more epoch."""
        batch_size = _checks.size(self.batch_size, "batch_size")
        by: Any = {
            "sample_weight": sample_weight,
            "batch_size": batch_size,
            "verbose": self.verbose,
        }
        for_partial_fit = Adam(self.lr, clip_norm=self.clip_norm)
        if epochs is None and hasattr(self, "net_"):
            # Continue with the state of its Adam, and the current settings.
            adam: Any = self.net_.optimizer
            adam.lr, adam.clip_norm = for_partial_fit.lr, for_partial_fit.clip_norm
            history = estimators.to_the_end(self.net_.fit(X, y, **by))
            self.loss_curve_ += history.history["loss"]
            return
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        F, dtype = X[0].shape[1], X[0].dtype
        net = estimators.last_step_net(
            (), self.cell, F, self.hidden_size, outputs, num_layers=self.num_layers,
            bidirectional=self.bidirectional, dropout=self.dropout, dtype=dtype, seed=seed,
        )  # fmt: skip
        if epochs is None:
            net.compile(for_partial_fit, self._loss)
            history = net.fit(X, y, **by)
        else:
            adam = estimators.adam(self.lr, self.clip_norm, len(y), batch_size, epochs)
            net.compile(adam, self._loss)
            history = net.fit(X, y, epochs=epochs, **by)
            # This optimizer's state is twice the size of the weights, and no longer needed.
            net.compile(for_partial_fit, self._loss)
        self.loss_curve_ = [*estimators.to_the_end(history).history["loss"]]
        self.net_ = net

    def _outputs(self, X: Any) -> Array:
        """Return the network's outputs, (n, outputs) float64."""
        check_is_fitted(self, "net_")
        sequences, _ = self._checked(X, reset=False)
        outputs: Array = self.net_.predict(self._inputs.scaled(sequences)).astype(np.float64)
        return outputs

    def _checked(self, X: Any, *, reset: bool) -> tuple[Any, bool]:
        """Return `X` as (n, T, F) or a list of (T_i, F), and whether it is a table (n, T).

        With `reset`, scikit-learn records the table's columns.
        """
        sequences = _sequences(X)
        if sequences is None and getattr(X, "ndim", 2) >= 3:
            sequences = check_array(X, dtype=_DTYPES, allow_nd=True, estimator=self)
            _checks.expect_shape(sequences, "X", ("n", "T", "F"))
        if sequences is not None:
            return sequences, False
        if reset or self._inputs.table:
            # scikit-learn checks that a table has the columns of the one fitted.
            return validate_data(self, X, dtype=_DTYPES, reset=reset)[:, :, None], True
        return check_array(X, dtype=_DTYPES, estimator=self)[:, :, None], True

    def _fit_inputs(self, X: Any, *, reset: bool) -> tuple[Any, _Inputs]:
        """Return `X` as the network takes it, and the properties that `predict` requires."""
        sequences, table = self._checked(X, reset=reset)
        inputs = _Inputs.of(sequences, table, self.standardize) if reset else self._inputs
        return inputs.scaled(sequences), inputs

    def _keep(self, inputs: _Inputs) -> None:
        self._inputs = inputs
        if not inputs.table:
            self.n_features_in_ = inputs.features

    def _weights(self, sample_weight: Any, n: int) -> Array | None:
        if sample_weight is None:
            return None
        w = np.asarray(sample_weight)
        w = np.full(n, w) if w.ndim == 0 else w
        w = _checks.shaped(w, "sample_weight", np.dtype(np.float64), (n,))
        if not (np.isfinite(w).all() and (w >= 0).all() and w.any()):
            raise ValueError("sample_weight: expected finite numbers >= 0, and not all zero")
        return w


def _sequences(X: Any) -> list[Array] | None:
    """Return sequences (T_i, F) of one dtype if X is a list of such or of (T_i,), else None."""
    if getattr(X, "ndim", 0) == 1 and X.dtype == object:
        X = list(X)  # an array of arrays, or a column of them
    if not isinstance(X, list | tuple) or not X:
        return None
    dimensions = {np.ndim(x) for x in X}
    if dimensions == {1} and len({len(x) for x in X}) == 1:
        return None  # a table (n, T) in rows
    if not dimensions <= {1, 2}:
        return None
    arrays = [_checks.numeric(x, f"X[{i}]") for i, x in enumerate(X)]
    _pins = _checks.pinned(arrays)
    all_float32 = all(a.dtype == np.float32 for a in arrays)
    sequences: list[Array] = []
    for i, a in enumerate(arrays):
        a = a.astype(np.float32 if all_float32 else np.float64)
        a = _checks.expect_shape(a[:, None] if a.ndim == 1 else a, f"X[{i}]", ("T", "F"))
        _checks.expect_shape(
            a, f"X[{i}]", ("T", sequences[0].shape[1] if sequences else a.shape[1])
        )
        if not np.isfinite(a).all():
            raise ValueError(f"X[{i}]: expected finite numbers, got NaN or infinity")
        sequences.append(a)
    return sequences


def _scale(rows: Array) -> tuple[Array, Array]:
    """Return mean and standard deviation of each column, in float64; 1 where it is 0."""
    deviation = rows.std(axis=0, dtype=np.float64)
    return rows.mean(axis=0, dtype=np.float64), np.where(deviation > 0, deviation, 1.0)


def _required(y: Any, estimator: Any) -> None:
    if y is None:
        raise ValueError(
            f"y: expected one for each sequence; {type(estimator).__name__} "
            "requires y to be passed, but the target y is None"
        )


class SequenceRegressor(RegressorMixin, _SequenceEstimator):  # type: ignore[misc]
    """A sequence regressor: recurrent layers, and a linear map of the last step.

    The loss is the mean squared error of standardised targets; the optimizer is Adam.

    Parameters are those of :class:`SequenceClassifier`, except `class_weight`.

    Attributes
    ----------
    net_ : fastrnn.Sequential
    loss_curve_ : list of float
        Training loss of each epoch.
    n_features_in_ : int
        F; for a two-dimensional X its columns, T.
    """

    _loss = "mse"
    _target_scale: tuple[Array, Array]
    _single: bool

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train from scratch.

        Parameters
        ----------
        X : (n, T, F) or (n, T) array-like, or list of (T_i, F) or (T_i,) array-like
            Without F, there is one feature over time.
        y : (n,) or (n, K) array-like
        sample_weight : (n,) array-like, optional

        Returns
        -------
        SequenceRegressor
            Itself.
        """
        return self._fit(X, y, sample_weight, _checks.size(self.max_epochs, "max_epochs"))

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one more epoch, on these sequences; otherwise as :meth:`fit`.

        Data are scaled as in the first call.
        """
        return self._fit(X, y, sample_weight, None)

    def _fit(self, X: Any, y: Any, sample_weight: Any, epochs: int | None) -> Self:
        reset = epochs is not None or not hasattr(self, "net_")
        _required(y, self)
        x, inputs = self._fit_inputs(X, reset=reset)
        y = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y", estimator=self)
        check_consistent_length(x, y)
        _pins = _checks.pinned(y)
        rows = y.reshape(len(y), -1)
        mean, deviation = scale = _scale(rows) if reset else self._target_scale
        _checks.expect_shape(rows, "y", (len(y), len(mean)))
        weight = self._weights(sample_weight, len(y))
        target = ((rows - mean) / deviation).astype(inputs.dtype)
        self._train(x, target, len(mean), weight, epochs)
        if reset:
            self._target_scale, self._single = scale, y.ndim == 1
        self._keep(inputs)
        return self

    def predict(self, X: Any) -> Array:
        """Return a prediction for each sequence.

        Parameters
        ----------
        X : as in :meth:`fit`

        Returns
        -------
        (n,) or (n, K) array
        """
        y = self._outputs(X)
        mean, deviation = self._target_scale
        y = y * deviation + mean
        return y[:, 0] if self._single else y

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class SequenceClassifier(ClassifierMixin, _SequenceEstimator):  # type: ignore[misc]
    """A sequence classifier: recurrent layers, a linear map of the last step, softmax.

    The loss is cross-entropy; the optimizer is Adam.

    Parameters
    ----------
    cell : {"gru", ...}
        The recurrent layer, in lower case.
    hidden_size, num_layers : int
    bidirectional : bool
        Whether sequences are also read backwards; the linear map takes the last steps of both
        directions.
    dropout : float
        Dropout probability between layers and before the linear map.
    max_epochs : int
        Number of passes of `fit` through the data.
    batch_size : int
    lr : float
        Learning rate: in `fit` the initial one, which decays to 0 along a half cosine; in
        `partial_fit` constant.
    clip_norm : float
        Maximum global norm of the gradients.
    standardize : bool
        Whether each feature is scaled to mean 0 and standard deviation 1 over all steps of all
        sequences in `fit` (or in the first `partial_fit`).
    random_state : int, RandomState or None
        For the initial weights, dropout and the order of the data.
    verbose : int
        As in :meth:`fastrnn.Sequential.fit`; 0 is silent.
    class_weight : dict, "balanced" or None
        Weight of each class in the loss; "balanced" for n / (classes * count of the class).

    Attributes
    ----------
    classes_ : (C,) array
        The classes, sorted.
    net_ : fastrnn.Sequential
    loss_curve_ : list of float
        Training loss of each epoch.
    n_features_in_ : int
        F; for a two-dimensional X its columns, T.
    """

    _loss = "cross_entropy"
    classes_: Array

    def __init__(
        self,
        cell: str = "gru",
        *,
        hidden_size: int = 64,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        max_epochs: int = 50,
        batch_size: int = 32,
        lr: float = 5e-3,
        clip_norm: float = 1.0,
        standardize: bool = True,
        class_weight: Any = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            cell, hidden_size=hidden_size, num_layers=num_layers, bidirectional=bidirectional,
            dropout=dropout, max_epochs=max_epochs, batch_size=batch_size, lr=lr,
            clip_norm=clip_norm, standardize=standardize, random_state=random_state,
            verbose=verbose,
        )  # fmt: skip
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train from scratch.

        Parameters
        ----------
        X : (n, T, F) or (n, T) array-like, or list of (T_i, F) or (T_i,) array-like
            Without F, there is one feature over time.
        y : (n,) array-like
            Classes: numbers or strings.
        sample_weight : (n,) array-like, optional

        Returns
        -------
        SequenceClassifier
            Itself.
        """
        epochs = _checks.size(self.max_epochs, "max_epochs")
        return self._fit(X, y, None, sample_weight, epochs)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train for one more epoch, on these sequences; otherwise as :meth:`fit`.

        Data are scaled as in the first call.

        Parameters
        ----------
        X, y, sample_weight
            As in :meth:`fit`.
        classes : array-like, optional
            All classes that may occur; required at the first call.
        """
        if classes is None and not hasattr(self, "net_"):
            raise ValueError("classes: expected all classes at the first call of partial_fit")
        return self._fit(X, y, classes, sample_weight, None)

    def _fit(self, X: Any, y: Any, classes: Any, sample_weight: Any, epochs: int | None) -> Self:
        reset = epochs is not None or not hasattr(self, "net_")
        _required(y, self)
        x, inputs = self._fit_inputs(X, reset=reset)
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        check_consistent_length(x, y)
        known = np.unique(y if classes is None else classes) if reset else self.classes_
        if classes is not None and not np.array_equal(np.unique(classes), known):
            raise ValueError(f"classes: expected those of the first call, {known}")
        target = np.searchsorted(known, y).clip(max=len(known) - 1)
        if (known[target] != y).any():
            unknown = y[known[target] != y].tolist()[0]
            raise ValueError(f"y: expected classes among {known}, got {unknown!r}")
        weight = self._weights(sample_weight, len(y))
        if self.class_weight is not None:
            of_class = compute_class_weight(self.class_weight, classes=known, y=y)
            weight = of_class[target] * (1.0 if weight is None else weight)
        self._train(x, target, len(known), weight, epochs)
        self.classes_ = known
        self._keep(inputs)
        return self

    def predict(self, X: Any) -> Array:
        """Return the most likely class of each sequence.

        Parameters
        ----------
        X : as in :meth:`fit`

        Returns
        -------
        (n,) array
        """
        outputs = self._outputs(X)
        predicted: Array = self.classes_[outputs.argmax(axis=1)]
        return predicted

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class.

        Parameters
        ----------
        X : as in :meth:`fit`

        Returns
        -------
        (n, C) array
            In the order of ``classes_``.
        """
        return estimators.softmax(self._outputs(X))
