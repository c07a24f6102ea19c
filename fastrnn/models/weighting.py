"""Weights of classes in a loss."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array
from fastrnn.losses import BinaryCrossEntropy, CrossEntropy, Loss

NAME = "class_weight"


def class_weights(
    class_weight: str | Mapping[int, float] | None, target: Array, classes: int
) -> Array | None:
    """Return the weight of each example.

    Parameters
    ----------
    class_weight : "balanced", mapping of int to float, or None
        "balanced": n / (number of classes that occur * examples of the class), as in scikit-learn
        (King and Zeng 2001). A mapping has the weights of some classes; those of the others are 1,
        as in Keras.
    target : (n,) array of int
        Classes, in 0..classes-1.
    classes : int
        C, the number of classes.

    Returns
    -------
    (n,) array of float64, or None for `class_weight` None

    Raises
    ------
    ValueError, TypeError
        If `class_weight` is neither of these, a class is not in 0..C-1, or a weight is negative or
        not finite.
    """
    if class_weight is None:
        return None
    if isinstance(class_weight, Mapping):
        weights = np.ones(classes)
        for key, value in class_weight.items():
            label = _checks.size(key, f"{NAME} {key!r}", 0, classes - 1)
            weights[label] = _checks.not_negative(value, f"{NAME}[{label}]")
        return weights[target]
    if not isinstance(class_weight, str):
        kind = type(class_weight).__name__
        raise TypeError(f"{NAME}: expected 'balanced' or a dict of class to weight, got {kind}")
    _checks.choice(class_weight, NAME, ("balanced",))
    counts = np.bincount(target, minlength=classes)
    present: Array = len(target) / (max(np.count_nonzero(counts), 1) * counts.clip(min=1))
    return present[target]


def of_targets(
    class_weight: str | Mapping[int, float], loss: Loss, target: Array, outputs: int, counted: Array
) -> Array:
    """Return the weights of targets that a loss has checked; 0 where they are not `counted`.

    Parameters
    ----------
    class_weight : "balanced" or mapping of int to float
    loss : Loss
    target : array
        From ``loss.checked_target``.
    outputs : int
        O, the size of the model's last axis.
    counted : array of bool
        In the shape of the targets, without the axis of outputs.
    """
    if isinstance(loss, CrossEntropy):
        labels, classes = target[counted], outputs
    elif isinstance(loss, BinaryCrossEntropy) and outputs == 1:
        values = target[..., 0][counted]
        if not ((values == 0) | (values == 1)).all():
            raise ValueError(f"{NAME}: expected targets that are 0 or 1")
        labels, classes = values.astype(np.intp), 2
    else:
        raise ValueError(
            f"{NAME}: expected cross_entropy, or binary_cross_entropy of one output, as the loss, "
            f"got {loss!r}"
        )
    weights = np.zeros(counted.shape)
    weights[counted] = class_weights(class_weight, labels, classes)
    return weights
