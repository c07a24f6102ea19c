"""Classification of sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils import assert_all_finite, compute_class_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

from fastrnn import _checks
from fastrnn._types import Array, ArrayLike, ClassWeight, SequencesLike
from fastrnn.models.callback import Callback
from fastrnn.models.fitted import FittedClassifier
from fastrnn.sklearn._estimator import SequenceEstimator


class SequenceClassifier(ClassifierMixin, SequenceEstimator, FittedClassifier):  # type: ignore[misc]
    """A sequence classifier: recurrent layers, a linear map of the last step, softmax.

    The loss is cross-entropy, or binary cross-entropy where there are several labels; the optimizer
    is Adam.

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
    return_sequences : bool
        Whether there is a target, and so a prediction, for each step of a sequence.
    max_epochs : int
        Number of passes of `fit` through the data.
    batch_size : int
    lr : float
        Learning rate: in `fit` the initial one, which decays to 0 along a half cosine over
        `max_epochs`; in `partial_fit` constant.
    clip_norm : float
        Maximum global norm of the gradients.
    standardize : bool
        Whether each feature is scaled to mean 0 and standard deviation 1 over all steps of all
        sequences in `fit` (or in the first `partial_fit`). Constant ones are only centred.
    early_stopping : bool
        Whether some sequences are held out, and training ends once their score (the accuracy) has
        not improved by `tol` in more than `n_iter_no_change` epochs in a row. The weights of the
        best epoch are kept.
    validation_fraction : float
        Of the sequences that are held out, each class in its share.
    n_iter_no_change : int
    tol : float
    warm_start : bool
        Whether `fit` continues with the weights of the fit before, for `max_epochs` more. Data are
        scaled as in the first fit.
    class_weight : dict, "balanced" or None
        Weight of each class in the loss; "balanced" for n / (classes * count of the class).
    matmul_precision : {"float32", "bfloat16"}
        For float32 data; as in :class:`fastrnn.RNN`, of all layers.
    random_state : int, RandomState or None
        For the initial weights, dropout, the order of the data, and which are held out.
    verbose : int
        As in :meth:`fastrnn.Sequential.fit`; 0 is silent.

    Attributes
    ----------
    classes_ : (C,) array
        The classes, sorted; for several labels their numbers.
    net_ : fastrnn.Sequential
    loss_curve_ : list of float
        Training loss of each epoch.
    n_iter_ : int
        Epochs of the last `fit`.
    validation_scores_ : list of float or None
        Accuracy on the sequences held out, after each epoch of the last `fit` with early stopping.
    best_validation_score_ : float or None
        That of the weights that were kept.
    n_features_in_ : int
        F; for a two-dimensional X its columns, T.
    feature_names_in_ : array of str
        Where X had columns with names.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.sklearn import SequenceClassifier
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.normal(size=(T, 2)) for T in rng.integers(5, 15, 200)]  # of differing lengths
    >>> y = ["up" if x[-1, 0] > 0 else "down" for x in X]
    >>> model = SequenceClassifier(hidden_size=16, random_state=0).fit(X, y)
    >>> model.predict_proba(X[:5]).shape
    (5, 2)
    >>> model.score(X, y) > 0.9
    True

    A class for each step:

    >>> steps = [np.where(np.cumsum(x[:, 0]) > 0, "above", "below") for x in X]
    >>> model = SequenceClassifier(hidden_size=16, return_sequences=True, random_state=0)
    >>> [len(of) for of in model.fit(X, steps).predict(X[:3])] == [len(x) for x in X[:3]]
    True

    Out of the notebook: a service needs the file and ``pip install fastrnn``, no scikit-learn.

    >>> import os, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> model.save(os.path.join(folder.name, "model.safetensors"))
    >>> served = fastrnn.load(os.path.join(folder.name, "model.safetensors"))
    >>> served.classes_.tolist()
    ['above', 'below']
    >>> stream = served.stream()  # reads one step at a time, unscaled
    >>> probabilities = [stream.step(x_t) for x_t in X[0]]
    >>> np.array_equal(probabilities, model.predict_proba(X[:1])[0])
    True
    >>> folder.cleanup()
    """

    _KIND = "SequenceClassifier"

    def __init__(
        self,
        cell: str = "gru",
        *,
        hidden_size: int = 64,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        return_sequences: bool = False,
        max_epochs: int = 50,
        batch_size: int = 32,
        lr: float = 5e-3,
        clip_norm: float = 1.0,
        standardize: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        warm_start: bool = False,
        class_weight: ClassWeight | None = None,
        matmul_precision: str = "float32",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            cell, hidden_size=hidden_size, num_layers=num_layers, bidirectional=bidirectional,
            dropout=dropout, return_sequences=return_sequences, max_epochs=max_epochs,
            batch_size=batch_size, lr=lr, clip_norm=clip_norm, standardize=standardize,
            early_stopping=early_stopping, validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change, tol=tol, warm_start=warm_start,
            matmul_precision=matmul_precision, random_state=random_state, verbose=verbose,
        )  # fmt: skip
        self.class_weight = class_weight

    @property
    def _loss(self) -> str:
        return "binary_cross_entropy" if self._several else "cross_entropy"

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
            Classes, numbers or strings; or 0 and 1 for each of K labels. With `return_sequences`,
            classes (n, T), or a list of (T_i,).
        sample_weight : (n,) array-like, optional
            Of each sequence, in scaling and loss: where all fit into one batch, as good as so many
            repetitions. Sequences of weight 0 are left out.
        callbacks : sequence of Callback, optional
            As in :meth:`fastrnn.Sequential.fit`. The logs hold ``"loss"`` and, with
            `early_stopping`, ``"validation_score"``.

        Returns
        -------
        SequenceClassifier
            Itself.

        Raises
        ------
        ValueError, TypeError
            If settings or data do not fit; nothing is changed then.
        """
        return self._fit(X, y, sample_weight, callbacks=callbacks, partly=False, classes=None)

    def partial_fit(
        self,
        X: SequencesLike,
        y: SequencesLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train for one more epoch, on these sequences; return the estimator.

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
        return self._fit(X, y, sample_weight, partly=True, classes=classes)

    def _target(self, y: Any, X: Any) -> Array:
        y = self._each_step(y, X) if self._per_step else self._one_each(y, X)
        if not self._per_step and y.ndim == 2 and y.shape[1] > 1:
            return self._indicators(y)
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        target: Array = y
        return target

    @staticmethod
    def _indicators(y: Array) -> Array:
        """Return 0 and 1 for each label of each sequence."""
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        if type_of_target(y) != "multilabel-indicator":
            raise ValueError(
                "y: expected a class for each sequence, or 0 and 1 for each label; set "
                "return_sequences=True for a class for each step"
            )
        indicators = _checks.numeric(y, "y")
        if not np.isin(indicators, (0, 1)).all():
            found = np.unique(indicators).tolist()
            raise ValueError(f"y: expected 0 and 1 for each label, got {found}")
        return indicators

    def _encoded(
        self, y: Array, weight: Array | None, fresh: bool, classes: Any = None, **options: Any
    ) -> tuple[Array, int, Array | None]:
        several = y.ndim == 2
        if several != self._several and not fresh:
            raise ValueError("y: expected classes or labels, as in the fit before")
        if several:
            return self._encoded_labels(y, weight, fresh)
        known = np.unique(y if classes is None else classes) if fresh else self.classes_
        if classes is not None and not np.array_equal(np.unique(classes), known):
            raise ValueError(f"classes: expected those of the first call, {known}")
        target = np.searchsorted(known, y).clip(max=len(known) - 1)
        if (known[target] != y).any():
            unknown = y[known[target] != y].tolist()[0]
            raise ValueError(f"y: expected classes among {known}, got {unknown!r}")
        self.classes_, self._several = known, False
        if self.class_weight is not None:
            weight = self._of_class(target, weight)[target] * (1.0 if weight is None else weight)
        return target, len(known), weight

    def _encoded_labels(
        self, y: Array, weight: Array | None, fresh: bool
    ) -> tuple[Array, int, Array | None]:
        if self.class_weight is not None:
            raise ValueError("class_weight: expected None where y has several labels")
        K = y.shape[1] if fresh else len(self.classes_)
        _checks.expect_shape(y, "y", ("n", K))
        self.classes_, self._several = np.arange(K), True
        return y.astype(self._inputs.dtype), K, weight

    def _of_class(self, target: Array, weight: Array | None) -> Array:
        """Return the weight of each class."""
        known = self.classes_
        if isinstance(self.class_weight, str) and self.class_weight == "balanced":
            counts = np.bincount(target, weight, len(known))
            return np.asarray(counts.sum() / (len(known) * np.where(counts > 0, counts, np.inf)))
        of_class: Array = compute_class_weight(self.class_weight, classes=known, y=known)
        return of_class

    def _score_of(self, outputs: Array, target: Array, weight: Array | None) -> float:
        if self._several:
            right = ((outputs > 0) == target).all(axis=1)
        else:
            right = outputs.argmax(axis=1) == target
        return float(np.average(right, weights=weight))

    def score(
        self, X: SequencesLike, y: SequencesLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return the accuracy, as scikit-learn's classifiers do; of steps with `return_sequences`.

        Of several labels, all have to be right.
        """
        if not self._per_step:
            return float(super().score(X, y, sample_weight))
        from sklearn.metrics import accuracy_score

        return float(accuracy_score(**self._of_steps(X, y, sample_weight)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
