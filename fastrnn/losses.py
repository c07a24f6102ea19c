"""Losses: a number to minimize, and its gradient.

Each loss is a class, and under its lower-case name an instance with the defaults:
``losses.cross_entropy(logits, targets)`` is the value, and
``losses.cross_entropy.value_and_grad(logits, targets)`` the value and the gradient in one pass.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._kernels import dispatch
from fastrnn._kernels.interface import Kernels
from fastrnn._types import Array, ArrayLike

#: A loss of one's own: ``f(y_true, y_pred) -> (value, dy)``.
LossFunction = Callable[[Array, Array], tuple[Any, Any]]

__all__ = [
    "MAE",
    "MSE",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "FunctionLoss",
    "Huber",
    "Loss",
    "binary_cross_entropy",
    "cross_entropy",
    "huber",
    "mae",
    "mse",
]


class Loss(ABC):
    """The mean of a loss over all elements, or a weighted mean.

    A custom loss defines :meth:`target_shape`, :meth:`checked_target` and :meth:`compute`; or is a
    function, as :class:`FunctionLoss` describes.

    Examples
    --------
    >>> class LogCosh(fastrnn.losses.Loss):
    ...     def target_shape(self, shape):
    ...         return shape
    ...
    ...     def checked_target(self, target, shape, dtype, name="target", weight=None):
    ...         return np.broadcast_to(np.asarray(target, dtype), shape)
    ...
    ...     def compute(self, z, t, w):
    ...         w = np.ones((), z.dtype) if w is None else w
    ...         share = np.broadcast_to(w.reshape(w.shape + (1,) * (z.ndim - w.ndim)), z.shape)
    ...         share = share / share.sum()
    ...         return float((share * np.log(np.cosh(z - t))).sum()), share * np.tanh(z - t)
    >>> round(LogCosh()([1.0, 2.0], [1.0, 1.0]), 4)
    0.2169
    """

    __slots__ = ()

    def value_and_grad(
        self, output: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None
    ) -> tuple[float, Array]:
        """Return the loss, and its gradient with respect to `output`.

        Parameters
        ----------
        output : array-like
            Float64 stays, everything else becomes float32.
        target : array-like
            What `output` should be; the class documents the shape.
        weight : array-like, optional
            Finite weights >= 0, in the shape of one or more leading axes of `target`: one for each
            sequence (B,) or each step (B, T), say. The loss is then sum(w l) / sum(w), with l the
            mean over the other axes. Where w is 0, output and target are ignored, even NaN or a
            class out of range. If all weights are 0, so are loss and gradient. Default: equal.

        Returns
        -------
        value : float
            NaN, as in torch, if `output` is empty: a batch of no rows.
        grad : array
            In the shape of `output`.
        """
        _pins = _checks.pinned(output, target, weight)
        z = _checks.floats(output, "output")
        w = None
        if weight is not None:
            w = checked_weight(weight, self.target_shape(z.shape), z.dtype)
        t = self._taken(target, z.shape, z.dtype, "target", w)
        return self.compute(z, t, w) if z.size else (math.nan, np.empty_like(z))

    def __call__(
        self, output: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None
    ) -> float:
        """Return the loss."""
        return self.value_and_grad(output, target, weight)[0]

    @abstractmethod
    def target_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the targets of an output of `shape`."""

    @abstractmethod
    def checked_target(
        self,
        target: ArrayLike,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        name: str = "target",
        weight: Array | None = None,
    ) -> Array:
        """Return targets as an array that :meth:`compute` takes.

        Parameters
        ----------
        target : array-like
        shape, dtype
            Of the output.
        name : str
            Name of the target in error messages.
        weight : array, optional
            From :func:`checked_weight`. Where it is 0, the target may be anything.
        """

    @abstractmethod
    def compute(self, z: Array, t: Array, w: Array | None) -> tuple[float, Array]:
        """Return the loss of outputs `z` and its gradient, as :meth:`value_and_grad` does.

        Where `z` is not finite, neither is the result, without a warning, as in torch.

        Parameters
        ----------
        z : array
            Float32 or float64.
        t : array
            From :meth:`checked_target`.
        w : array or None
            From :func:`checked_weight`.
        """

    def _taken(
        self,
        target: ArrayLike,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        name: str,
        weight: Array | None,
    ) -> Array:
        """Return what :meth:`checked_target` does, without the checks that the kernel makes."""
        return self.checked_target(target, shape, dtype, name, weight)

    def _options(self) -> dict[str, Any]:
        """Return the options by name, in the order in which ``repr`` shows them."""
        return dict(getattr(self, "__dict__", {}))

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self._options().items())
        return f"{type(self).__name__}({options})"


def checked_weight(
    weight: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str = "weight"
) -> Array:
    """Return weights as an array in the shape of the leading axes of targets of `shape`."""
    w = _checks.array(weight, name, dtype)
    _checks.expect_shape(w, name, shape[: w.ndim])
    if not (np.isfinite(w) & (w >= 0)).all():
        raise ValueError(f"{name}: expected finite numbers >= 0")
    return w


class _Compiled(Loss):
    """A loss computed by a kernel."""

    __slots__ = ()

    def compute(self, z: Array, t: Array, w: Array | None) -> tuple[float, Array]:
        z, t = np.asarray(z, order="C"), np.asarray(t, order="C")
        grad = np.empty(z.shape, z.dtype)
        w = None if w is None else np.asarray(w, order="C")
        return self._run(dispatch.kernels(z.dtype), z, t, w, grad), grad

    @abstractmethod
    def _run(self, kernels: Kernels, z: Array, t: Array, w: Array | None, grad: Array) -> float:
        """Call the kernel."""


class Elementwise(_Compiled):
    """A loss of each element of `output` and the corresponding element of `target`."""

    __slots__ = ()

    def target_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the output."""
        return shape

    def checked_target(
        self,
        target: ArrayLike,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        name: str = "target",
        weight: Array | None = None,
    ) -> Array:
        """Return targets in the shape of `output`; a last axis of size 1 may be left out."""
        t = _checks.array(target, name, dtype)
        if shape[-1:] == (1,) and t.shape == shape[:-1]:
            t = t[..., None]
        return _checks.expect_shape(t, name, shape)


class MSE(Elementwise):
    """Mean squared error (z - t)^2, as ``torch.nn.MSELoss``. `target` has the shape of `output`.

    Examples
    --------
    >>> fastrnn.losses.mse([1.0, 3.0], [1.0, 1.0])
    2.0
    >>> value, grad = fastrnn.losses.MSE().value_and_grad([1.0, 3.0], [1.0, 1.0])
    >>> grad
    array([0., 2.])
    >>> fastrnn.losses.mse([1.0, 3.0], [1.0, 1.0], weight=[3, 1])
    1.0
    """

    __slots__ = ()

    def _run(self, kernels: Kernels, z: Array, t: Array, w: Array | None, grad: Array) -> float:
        return kernels.mse(z, t, w, grad)


class MAE(Elementwise):
    """Mean absolute error abs(z - t), as ``torch.nn.L1Loss``. `target` has the shape of `output`.

    The gradient is 0 where both are equal.

    Examples
    --------
    >>> fastrnn.losses.mae([1.0, 3.0], [1.0, 1.0])
    1.0
    """

    __slots__ = ()

    def _run(self, kernels: Kernels, z: Array, t: Array, w: Array | None, grad: Array) -> float:
        return kernels.mae(z, t, w, grad)


class Huber(Elementwise):
    """(z - t)^2 / 2 up to `delta`, delta (abs(z - t) - delta / 2) beyond (Huber 1964).

    As ``torch.nn.HuberLoss``. `target` has the shape of `output`.

    Parameters
    ----------
    delta : float

    Raises
    ------
    ValueError, TypeError
        If `delta` is not a number above 0.

    Examples
    --------
    >>> fastrnn.losses.Huber(delta=1.0)([0.5, 3.0], [0.0, 0.0])
    1.3125
    """

    __slots__ = ("_delta",)

    def __init__(self, delta: float = 1.0) -> None:
        self._delta = _checks.positive(delta, "delta")

    @property
    def delta(self) -> float:
        """Where the loss turns from quadratic to linear."""
        return self._delta

    def _run(self, kernels: Kernels, z: Array, t: Array, w: Array | None, grad: Array) -> float:
        return kernels.huber(z, t, w, grad, delta=self._delta)

    def _options(self) -> dict[str, Any]:
        return {"delta": self._delta} | super()._options()


class BinaryCrossEntropy(Elementwise):
    """Cross-entropy of logits z and probabilities t: log(1 + exp z) - t z, in nats.

    As ``torch.nn.BCEWithLogitsLoss``. `target` has the shape of `output` and is within 0..1. The
    exponent is never above 0, so nothing overflows.

    Examples
    --------
    >>> round(fastrnn.losses.binary_cross_entropy([0.0, 2.0], [1, 1]), 4)
    0.41
    """

    __slots__ = ()

    def checked_target(
        self,
        target: ArrayLike,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        name: str = "target",
        weight: Array | None = None,
    ) -> Array:
        """Return targets in the shape of `output`, within 0..1."""
        t = super().checked_target(target, shape, dtype, name)
        if t.size and not (t.min() >= 0 and t.max() <= 1):  # NaN fails both
            wrong = _counting(~((t >= 0) & (t <= 1)), weight)
            if wrong.any():
                raise ValueError(f"{name}: expected numbers in [0, 1], got {t[wrong][0]}")
        return t

    def _run(self, kernels: Kernels, z: Array, t: Array, w: Array | None, grad: Array) -> float:
        return kernels.binary_cross_entropy(z, t, w, grad)


class CrossEntropy(_Compiled):
    """Softmax cross-entropy of logits and class indices: log(sum_v exp z_v) - z_target, in nats.

    As ``torch.nn.CrossEntropyLoss`` with the classes on the last axis: `output` is (..., V), and
    `target` (...) or (..., 1) whole numbers in 0..V-1. One-hot targets and soft labels, (..., V),
    are refused: ``target.argmax(-1)`` gives the classes of the former. The largest logit is
    subtracted first, so no exp overflows.

    Examples
    --------
    >>> logits = np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    >>> value, grad = fastrnn.losses.cross_entropy.value_and_grad(logits, [0, 2])
    >>> round(value, 4), grad.shape
    (0.1672, (2, 3))
    """

    __slots__ = ()

    def target_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the output without its last axis, the classes."""
        if not shape or not shape[-1]:
            got = _checks.shape_text(shape)
            raise ValueError(f"output: expected shape (..., V) with V >= 1, got {got}")
        return shape[:-1]

    def checked_target(
        self,
        target: ArrayLike,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        name: str = "target",
        weight: Array | None = None,
    ) -> Array:
        """Return class indices, one for each row of logits."""
        t = self._taken(target, shape, dtype, name, weight)
        wrong = _counting((t < 0) | (t >= shape[-1]), weight)
        if wrong.any():
            label = t[wrong][0]
            raise ValueError(f"{name}: expected whole numbers in 0..{shape[-1] - 1}, got {label}")
        return t

    def _taken(
        self,
        target: ArrayLike,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        name: str,
        weight: Array | None,
    ) -> Array:
        wanted = self.target_shape(shape)
        if type(target) is not np.ndarray or target.shape != wanted:
            _expect_indices(target, name, shape)
        t = _checks.whole_numbers(target, name)
        t = t[..., 0] if t.shape == (*wanted, 1) else t
        return _checks.expect_shape(t, name, wanted)

    def _run(self, kernels: Kernels, z: Array, t: Array, w: Array | None, grad: Array) -> float:
        return kernels.cross_entropy(z, t, w, grad)


def _expect_indices(target: Any, name: str, shape: tuple[int, ...]) -> None:
    """Raise if targets are one-hot rows or probabilities of outputs of `shape`, not indices."""
    t = _checks.asarray(target, name)
    if t.shape != shape or shape[-1] == 1 or t.dtype.kind not in "fiub":
        return
    expected = f"{name}: expected class indices, shape {_checks.shape_text(shape[:-1])}, got"
    # Padding may be rows of zeros.
    if ((t == 0) | (t == 1)).all() and (t.sum(axis=-1) <= 1).all():
        raise ValueError(
            f"{expected} one-hot rows, shape {_checks.shape_text(shape)}: pass {name}.argmax(-1)"
        )
    raise ValueError(f"{expected} shape {_checks.shape_text(shape)}; soft labels are not supported")


def _counting(where: Array, weight: Array | None) -> Array:
    """Return `where`, with False where the weight is 0."""
    if weight is None:
        return where
    counts = np.reshape(weight != 0, (*weight.shape, *[1] * (np.ndim(where) - weight.ndim)))
    return np.asarray(where & counts)


class FunctionLoss(Loss):
    """A loss as a function of one's own: ``f(y_true, y_pred) -> (value, dy)``.

    ``compile`` and :func:`get` make one of a function.

    Parameters
    ----------
    function : callable
        It gets targets and outputs of a batch: (B, ...) and (B, O), or per step (B, T, ...) and
        (B, T, O); where rows or steps have weight 0, as padding has, without these, side by side:
        (n, ...) and (n, O). Where O is 1, targets have that axis too. It returns either

        - a number, the mean of the loss, and its gradient with respect to the outputs, in their
          shape; weights other than 0 then have to be equal; or
        - the loss of each row or step, (B,), (B, T) or (n,), and for each the gradient of its own
          loss, in the shape of the outputs; these are then weighted as other losses are.

    Raises
    ------
    TypeError
        If it is not a function.

    Examples
    --------
    >>> def pinball(y_true, y_pred, q=0.9):  # Koenker and Bassett 1978
    ...     error = y_true - y_pred
    ...     loss = np.maximum(q * error, (q - 1) * error)
    ...     return loss.mean(axis=-1), np.where(error > 0, -q, 1 - q) / y_pred.shape[-1]
    >>> loss = fastrnn.losses.FunctionLoss(pinball)
    >>> round(loss([[1.0], [2.0]], [[2.0], [1.0]]), 4)
    0.5
    >>> round(loss([[1.0], [2.0]], [[2.0], [1.0]], weight=[1, 0]), 4)
    0.9
    >>> model = fastrnn.Sequential([fastrnn.GRU(3, 5), fastrnn.Linear(5, 1)])
    >>> model.compile("adam", pinball)
    """

    __slots__ = ("_function",)

    def __init__(self, function: LossFunction) -> None:
        if not callable(function) or isinstance(function, type):
            raise TypeError(f"loss: expected a function, got {_checks.kind_of(function)}")
        self._function = function

    @property
    def function(self) -> LossFunction:
        """The function."""
        return self._function

    def value_and_grad(
        self, output: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None
    ) -> tuple[float, Array]:
        """Return the loss and its gradient, as of other losses: batch-first."""
        _pins = _checks.pinned(output, target, weight)
        z = _checks.floats(output, "output")
        w = None
        if weight is not None:
            w = checked_weight(weight, self.target_shape(z.shape), z.dtype)
        t = self.checked_target(target, z.shape, z.dtype, weight=w)
        return self._evaluated(z, t, w) if z.size else (math.nan, np.empty_like(z))

    def target_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the leading axes of targets of an output of `shape`."""
        return shape[:-1] or shape

    def checked_target(
        self,
        target: ArrayLike,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        name: str = "target",
        weight: Array | None = None,
    ) -> Array:
        """Return targets as numbers; whole ones stay what they are."""
        t = _checks.numeric(target, name)
        lead = self.target_shape(shape)
        _checks.expect_shape(t, name, (*lead, *t.shape[len(lead) :]))
        if shape[-1:] == (1,) and t.shape == shape[:-1]:
            t = t[..., None]
        return t.astype(dtype) if t.dtype.kind == "f" else t

    def compute(self, z: Array, t: Array, w: Array | None) -> tuple[float, Array]:
        """Return the loss of outputs, which are time-first if they are (T, B, O)."""
        if z.ndim < 3:
            return self._evaluated(z, t, w)
        w = w if w is None or w.ndim < 2 else w.swapaxes(0, 1)
        value, dy = self._evaluated(z.swapaxes(0, 1), t.swapaxes(0, 1), w)
        return value, dy.swapaxes(0, 1)

    def _evaluated(self, z: Array, t: Array, w: Array | None) -> tuple[float, Array]:
        lead = self.target_shape(z.shape)
        counted: Any = ...
        if w is not None:
            w = np.broadcast_to(w.reshape(w.shape + (1,) * (len(lead) - w.ndim)), lead)
            if not w.any():
                return 0.0, np.zeros_like(z)
            counted = w != 0 if not w.all() else ...
            w = w[counted]
        values, dy = self._called(z[counted], t[counted])
        if values.ndim == 0:
            if w is not None and not (w == w.flat[0]).all():
                raise ValueError(
                    "loss: expected a value for each row or step, shape "
                    f"{_checks.shape_text(w.shape)}, as their weights differ, got a number"
                )
        else:
            share = np.ones(values.shape) if w is None else w.astype(np.float64)
            share = share / share.sum()
            dy = dy * share.astype(z.dtype).reshape(share.shape + (1,) * (dy.ndim - share.ndim))
            values = (values * share).sum()
        grad = np.zeros_like(z)
        grad[counted] = dy
        return float(values), grad

    def _called(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Return what the function returns, as float64 and in the dtype of the outputs."""
        found = self._function(t, z)
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise TypeError(
                "loss: expected a function f(y_true, y_pred) that returns (value, dy), got "
                f"{_checks.kind_of(found)}"
            )
        values = _checks.numeric(found[0], "value of the loss").astype(np.float64)
        lead = self.target_shape(z.shape)
        if values.shape not in ((), lead):
            wanted = f"() or {_checks.shape_text(lead)}"
            got = _checks.shape_text(values.shape)
            raise ValueError(f"value of the loss: expected shape {wanted}, got {got}")
        return values, _checks.shaped(found[1], "dy of the loss", z.dtype, z.shape)

    def __repr__(self) -> str:
        name = getattr(self._function, "__qualname__", type(self._function).__name__)
        return f"FunctionLoss({name})"


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


def get(loss: str | Loss | LossFunction) -> Loss:
    """Return the loss of this name, or `loss` itself; of a function, a :class:`FunctionLoss`."""
    if isinstance(loss, str):
        return NAMES[_checks.choice(loss, "loss", NAMES)]
    if isinstance(loss, Loss):
        return loss
    if not callable(loss) or isinstance(loss, type):
        raise TypeError(f"loss: expected a name, a Loss or a function, got {_checks.kind_of(loss)}")
    return FunctionLoss(loss)
