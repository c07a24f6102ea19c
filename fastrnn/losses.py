"""Losses: a number to bring down, and its gradient.

Each loss is a class, and under its lower-case name an instance with the defaults:
``losses.cross_entropy(logits, targets)`` is the value, and
``losses.cross_entropy.value_and_grad(logits, targets)`` the value and the gradient in one pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from fastrnn import _checks
from fastrnn._kernels import dispatch
from fastrnn._types import Array


class Loss(ABC):
    """The mean of a loss over all elements, or a weighted mean; not for direct use."""

    #: The kernel that computes it: see ``fastrnn._kernels.reference.losses``. Its options are
    #: `vars`.
    _kernel: ClassVar[str]

    def value_and_grad(self, output: Any, target: Any, weight: Any = None) -> tuple[float, Array]:
        """The loss, and its gradient with respect to `output`.

        Parameters
        ----------
        output : array-like
            Float64 stays, everything else becomes float32.
        target : array-like
            What `output` should be; the class says in which shape.
        weight : array-like, optional
            Finite weights >= 0, in the shape of the first axes of `target`, as many as wanted: one
            for each sequence (B,) or each step (B, T), say. The loss is then sum(w l) / sum(w),
            with l the mean over the other axes; where w is 0, neither output nor target counts,
            not even NaN. If all are 0, so are loss and gradient. Default: all the same.

        Returns
        -------
        value : float
        grad : array
            In the shape of `output`.
        """
        z, t = self.checked(output, target)
        return self.compute(z, t, None if weight is None else checked_weight(weight, t, z.dtype))

    def __call__(self, output: Any, target: Any, weight: Any = None) -> float:
        """The loss."""
        return self.value_and_grad(output, target, weight)[0]

    def checked(self, output: Any, target: Any) -> tuple[Array, Array]:
        """Both as arrays that :meth:`compute` takes."""
        z = _checks.floats(output, "output")
        if z.size == 0:
            shape = _checks.shape_text(z.shape)
            raise ValueError(f"output: expected shape (...) with all sizes >= 1, got {shape}")
        return z, self.checked_target(target, z.shape, z.dtype)

    @abstractmethod
    def checked_target(
        self, target: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str = "target"
    ) -> Array:
        """Targets as an array that :meth:`compute` takes, for an output of `shape` and `dtype`."""

    def compute(self, z: Array, t: Array, w: Array | None) -> tuple[float, Array]:
        """What :meth:`value_and_grad` does, of arrays that are checked; not for direct use.

        What is not finite gives NaN or infinity, as in torch, and not a warning.
        """
        z, t = np.ascontiguousarray(z), np.ascontiguousarray(t)
        grad = np.empty(z.shape, z.dtype)
        w = None if w is None else np.ascontiguousarray(w)
        kernel = getattr(dispatch.kernels(z.dtype), self._kernel)
        return kernel(z, t, w, grad, **vars(self)), grad

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({said})"


def checked_weight(weight: Any, target: Array, dtype: np.dtype[Any], name: str = "weight") -> Array:
    """Weights of the first axes of `target`."""
    w = _checks.array(weight, name, dtype)
    _checks.expect_shape(w, name, target.shape[: w.ndim])
    if not (np.isfinite(w) & (w >= 0)).all():
        raise ValueError(f"{name}: expected finite numbers >= 0")
    return w


class Elementwise(Loss):
    """A loss of each element of `output` and the one of `target` in the same place.

    Not for direct use.
    """

    def checked_target(
        self, target: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str = "target"
    ) -> Array:
        """Targets in the shape of `output`; a last axis of size 1 may be left out."""
        t = _checks.array(target, name, dtype)
        if shape[-1:] == (1,) and t.shape == shape[:-1]:
            t = t[..., None]
        return _checks.expect_shape(t, name, shape)


class MSE(Elementwise):
    """Mean squared error (z - t)^2, as ``torch.nn.MSELoss``. `target` has the shape of `output`."""

    _kernel = "mse"


class MAE(Elementwise):
    """Mean absolute error |z - t|, as ``torch.nn.L1Loss``. `target` has the shape of `output`.

    The gradient is 0 where both are equal.
    """

    _kernel = "mae"


class Huber(Elementwise):
    """(z - t)^2 / 2 up to `delta`, delta (|z - t| - delta / 2) beyond (Huber 1964).

    As ``torch.nn.HuberLoss``. `target` has the shape of `output`.

    Parameters
    ----------
    delta : float
    """

    _kernel = "huber"

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = _checks.positive(delta, "delta")


class BinaryCrossEntropy(Elementwise):
    """Cross-entropy of logits z and probabilities t: log(1 + exp z) - t z, in nats.

    As ``torch.nn.BCEWithLogitsLoss``. `target` has the shape of `output` and is within 0..1; the
    exponent is never above 0, so that nothing overflows.
    """

    _kernel = "binary_cross_entropy"

    def checked_target(
        self, target: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str = "target"
    ) -> Array:
        """Targets in the shape of `output`, within 0..1."""
        t = super().checked_target(target, shape, dtype, name)
        if t.size and not (t.min() >= 0 and t.max() <= 1):  # NaN is neither
            wrong = t[~((t >= 0) & (t <= 1))]
            raise ValueError(f"{name}: expected numbers in [0, 1], got {wrong[0]}")
        return t


class CrossEntropy(Loss):
    """Softmax cross-entropy of logits and class indices: log(sum_v exp z_v) - z_target, in nats.

    As ``torch.nn.CrossEntropyLoss`` with the classes on the last axis: `output` is (..., V), and
    `target` (...) whole numbers in 0..V-1. The largest logit is taken off first, so that no exp
    overflows.
    """

    _kernel = "cross_entropy"

    def checked_target(
        self, target: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str = "target"
    ) -> Array:
        """Class indices, one for each row of logits."""
        if not shape:
            raise ValueError("output: expected shape (..., V) with all sizes >= 1, got ()")
        t = _checks.indices(target, name, shape[-1])
        return _checks.expect_shape(t, name, shape[:-1]).astype(np.intp, copy=False)


mse = MSE()
mae = MAE()
huber = Huber()
cross_entropy = CrossEntropy()
binary_cross_entropy = BinaryCrossEntropy()

NAMES: dict[str, Loss] = {
    "mse": mse,
    "mae": mae,
    "huber": huber,
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
}


def get(loss: str | Loss) -> Loss:
    """A loss by its name, or itself."""
    if isinstance(loss, str) and loss in NAMES:
        return NAMES[loss]
    if isinstance(loss, str):
        raise ValueError(f"loss: expected one of {', '.join(map(repr, NAMES))}, got {loss!r}")
    if not isinstance(loss, Loss):
        raise TypeError(f"loss: expected a name or a Loss, got {type(loss).__name__}")
    return loss
