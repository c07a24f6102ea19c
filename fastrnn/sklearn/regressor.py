"""Regression of sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils import check_array

from fastrnn import _checks
from fastrnn._types import Array, ArrayLike, SequencesLike
from fastrnn.layers import Normalization
from fastrnn.models.callback import Callback
from fastrnn.models.fitted import FittedRegressor
from fastrnn.sklearn._estimator import SequenceEstimator


class SequenceRegressor(RegressorMixin, SequenceEstimator, FittedRegressor):  # type: ignore[misc]
    """A sequence regressor: recurrent layers, and a linear map of the last step.

    The loss is the mean squared error of standardised targets; the optimizer is Adam.

    Parameters
    ----------
    cell, hidden_size, num_layers, bidirectional, dropout, return_sequences
        As in :class:`SequenceClassifier`.
    max_epochs, batch_size, lr, clip_norm, standardize, validation_fraction, n_iter_no_change, tol
        Likewise.
    warm_start, matmul_precision, random_state, verbose
        Likewise.
    early_stopping : bool
        Likewise; the score is R^2.

    Attributes
    ----------
    net_ : fastrnn.Sequential
    loss_curve_ : list of float
        Training loss of each epoch.
    n_iter_ : int
        Epochs of the last `fit`.
    validation_scores_ : list of float or None
        R^2 of the sequences held out, after each epoch of the last `fit` with early stopping.
    best_validation_score_ : float or None
        That of the weights that were kept.
    n_features_in_ : int
        F; for a two-dimensional X its columns, T.
    feature_names_in_ : array of str
        Where X had columns with names.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.sklearn import SequenceRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 10, 2))  # 200 sequences of 10 steps and 2 features
    >>> y = X[:, -3:, 0].sum(axis=1)
    >>> model = SequenceRegressor(hidden_size=16, random_state=0).fit(X, y)
    >>> model.predict(X[:5]).shape
    (5,)
    >>> model.score(X, y) > 0.9
    True
    """

    _KIND = "SequenceRegressor"
    _loss = "mse"

    def fit(
        self,
        X: SequencesLike,
        y: SequencesLike,
        sample_weight: ArrayLike | None = None,
        *,
        callbacks: Sequence[Callback] | None = None,
    ) -> Self:
        """Train from scratch; with `warm_start`, from the weights of the fit before.

        Parameters
        ----------
        X : (n, T, F) or (n, T) array-like, or list of (T_i, F) or (T_i,) array-like
            Without F, there is one feature over time. Names of columns are kept and compared: of
            the frames in a list, which are features, or of a frame for (n, T), which are steps, and
            differ in numbers only. A frame that has a row for each step is for
            :func:`fastrnn.sklearn.from_frame`.
        y : (n,) or (n, K) array-like
            With `return_sequences`, (n, T) or (n, T, K), or a list of (T_i,) or (T_i, K).
        sample_weight : (n,) array-like, optional
            Of each sequence, in scaling and loss: where all fit into one batch, as good as so many
            repetitions. Sequences of weight 0 are left out.
        callbacks : sequence of Callback, optional
            As in :meth:`fastrnn.Sequential.fit`. The logs hold ``"loss"`` and, with
            `early_stopping`, ``"validation_score"``.

        Returns
        -------
        SequenceRegressor
            Itself.

        Raises
        ------
        ValueError, TypeError
            If settings or data do not fit; nothing is changed then.
        """
        return self._fit(X, y, sample_weight, callbacks=callbacks, partly=False)

    def partial_fit(
        self, X: SequencesLike, y: SequencesLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train for one more epoch, on these sequences; return the estimator.

        X, y and `sample_weight` are as in :meth:`fit`; data are scaled as in the first call.
        """
        return self._fit(X, y, sample_weight, partly=True)

    def _target(self, y: Any, X: Any) -> Array:
        y = self._each_step(y, X) if self._per_step else self._one_each(y, X)
        if y.dtype.kind in "Mm":  # of which scikit-learn would make nanoseconds
            raise TypeError(f"y: expected real numbers, got dtype {y.dtype}")
        if y.dtype.kind in "SUO":
            try:
                y = y.astype(np.float64)
            except (TypeError, ValueError) as error:
                raise type(error)(f"y: expected real numbers: {error}") from None
        target: Array = check_array(
            y, ensure_2d=False, dtype=np.float64, input_name="y", estimator=self
        )
        return target

    def _encoded(
        self, y: Array, weight: Array | None, fresh: bool, **options: Any
    ) -> tuple[Array, int, Array | None]:
        rows = y.reshape(len(y), -1)
        if fresh:
            norm = Normalization(dtype=np.float64)
            self._target_norm = norm.adapt(rows, sample_weight=weight)
            self._single = y.ndim == 1
        K = self._target_norm.features or 0
        _checks.expect_shape(rows, "y", (len(y), K))
        return self._target_norm(rows).astype(self._inputs.dtype), K, weight

    def _score_of(self, outputs: Array, target: Array, weight: Array | None) -> float:
        from sklearn.metrics import r2_score

        return float(r2_score(target, outputs, sample_weight=weight))

    def score(
        self, X: SequencesLike, y: SequencesLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return R^2, as scikit-learn's regressors do; with `return_sequences`, of all steps."""
        if not self._per_step:
            return float(super().score(X, y, sample_weight))
        from sklearn.metrics import r2_score

        return float(r2_score(**self._of_steps(X, y, sample_weight)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
