"""Losses: a number to bring down, and its gradient.

Each loss is a class, and under its lower-case name an instance with the defaults:
``losses.cross_entropy(logits, targets)`` is the value, and
``losses.cross_entropy.value_and_grad(logits, targets)`` the value and the gradient in one pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from fastrnn import _checks

Array = np.ndarray[Any, np.dtype[Any]]


class Loss(ABC):
    """The mean of a loss over all elements."""

    @abstractmethod
    def value_and_grad(self, output: Any, target: Any) -> tuple[float, Array]:
        """The loss, and its gradient with respect to `output`, in the shape of that."""

    def __call__(self, output: Any, target: Any) -> float:
        """The loss."""
        return self.value_and_grad(output, target)[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class CrossEntropy(Loss):
    """Softmax cross-entropy of logits and class indices: mean of log(sum_v exp z_v) - z_target.

    In nats, as ``torch.nn.CrossEntropyLoss`` with the classes on the last axis. The largest logit
    is taken off first, so that no exp overflows.
    """

    def value_and_grad(self, output: Any, target: Any) -> tuple[float, Array]:
        """The loss and its gradient, (softmax(z) - onehot(target)) / N.

        Parameters
        ----------
        output : (..., V) array-like
            Logits z; float64 stays, everything else becomes float32.
        target : (...) array-like of int
            The right class of each, in 0..V-1.

        Returns
        -------
        value : float
            In nats.
        grad : (..., V) array
        """
        z, target = self._checked(output, target)
        # An infinite logit gives NaN in its own row, as it does in torch, and not a warning.
        with np.errstate(invalid="ignore"):
            grad = z - z.max(axis=-1, keepdims=True)
            chosen = (np.arange(len(target)), target)
            at_target = grad[chosen]
            np.exp(grad, out=grad)
            total = grad.sum(axis=-1, keepdims=True)
            value = np.mean(np.log(total[:, 0]) - at_target, dtype=np.float64)
            grad /= total * len(target)
        grad[chosen] -= grad.dtype.type(1 / len(target))
        return float(value), grad.reshape(np.shape(output))

    @staticmethod
    def _checked(output: Any, target: Any) -> tuple[Array, Array]:
        """Logits (N, V) and targets (N,)."""
        z = _checks.floats(output, "output")
        if z.ndim == 0 or z.size == 0:
            shape = _checks.shape_text(z.shape)
            raise ValueError(f"output: expected shape (..., V) with all sizes >= 1, got {shape}")
        target = _checks.indices(target, "target", z.shape[-1])
        _checks.expect_shape(target, "target", z.shape[:-1])
        return z.reshape(-1, z.shape[-1]), target.reshape(-1)


cross_entropy = CrossEntropy()
