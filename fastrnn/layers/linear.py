"""Linear: the affine map."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._core.initializers import uniform
from fastrnn._core.scan import Bound
from fastrnn._kernels import dispatch
from fastrnn._kernels.cells import MatmulPrecision
from fastrnn._kernels.interface import Kernels, PackedAffine
from fastrnn._kernels.weights import LinearWeights
from fastrnn._types import Array, ArrayLike, DTypeLike, Fixed
from fastrnn.layers.base import Layer, Parts, Stateless, dtype_shown

#: out_features, in_features, bias, dtype.
Kind = tuple[int, int, bool, np.dtype[Any]]


class _NewTape:
    """The fields of a :class:`LinearTape`, which it becomes once they are filled."""

    __slots__ = ("kernels", "kind", "packed", "x")

    def __init__(self, kernels: Kernels, packed: PackedAffine, kind: Kind, x: Array) -> None:
        self.kernels, self.packed, self.kind, self.x = kernels, packed, kind, x
        self.__class__ = LinearTape


class LinearTape(Fixed, Bound, _NewTape):
    """What ``Linear.backward`` needs: the kernels that ran, and copies of weights and input."""

    __slots__ = ()


class LinearStage(Stateless):
    """The stage of a :class:`Linear`: maps one step of each row."""

    __slots__ = ("_kernels", "_weights", "parts")

    def __init__(self, weights: LinearWeights, batch_size: int) -> None:
        kernels = dispatch.kernels(weights.dtype)
        self._kernels, self._weights = kernels, weights
        self.parts = Parts(kernels, (kernels.LinearStepper(weights, kernels, batch_size),))

    def step(self, x: Array, out: Array) -> None:
        """Map `x` (B, in_features) into `out` (B, out_features)."""
        self._kernels.linear(self._weights.packed(self._kernels), x, out)


class Linear(Layer):
    """y = x W^T + b over the last axis, as ``torch.nn.Linear``.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
        Whether there is a `bias`.
    matmul_precision : {"float32", "bfloat16"}
        As in :class:`fastrnn.RNN`.
    dtype : float32 or float64
    seed : int, optional
        For the initial `weight` (out_features, in_features) and `bias` (out_features,), which are
        uniform in +-1/sqrt(in_features). Default: a fresh seed.

    Raises
    ------
    ValueError, TypeError
        If a size is not a whole number above 0, or `matmul_precision` does not fit the dtype.

    Examples
    --------
    >>> linear = fastrnn.Linear(3, 2, seed=0)
    >>> linear(np.ones((4, 7, 3))).shape
    (4, 7, 2)
    >>> linear.load_state_dict({"weight": [[1, 0, 0], [0, 1, 1]], "bias": [0, 10]})
    <All keys matched successfully>
    >>> linear([1, 2, 3])
    array([ 1., 15.], dtype=float32)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        matmul_precision: MatmulPrecision = "float32",
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
    ) -> None:
        I = _checks.size(in_features, "in_features")
        O = _checks.size(out_features, "out_features")
        dtype = _checks.dtype(dtype)
        #: What must be the same for a tape and its layer.
        self._kind: Kind = (O, I, _checks.flag(bias, "bias"), dtype)
        _checks.memory(I * O, dtype, in_features=I, out_features=O)
        drawn = self._draw(self._first_generator(seed))
        self._weights = LinearWeights([drawn["weight"], drawn.get("bias")], matmul_precision)

    def _draw(self, rng: np.random.Generator) -> dict[str, Array]:
        O, I = self.out_features, self.in_features
        shapes = {"weight": (O, I), "bias": (O,)} if self.bias else {"weight": (O, I)}
        bound = 1 / math.sqrt(I)
        return {n: uniform(rng, bound, s).astype(self.dtype) for n, s in shapes.items()}

    @property
    def in_features(self) -> int:
        """Size of the last axis of x."""
        return self._kind[1]

    @property
    def out_features(self) -> int:
        """Size of the last axis of y."""
        return self._kind[0]

    @property
    def bias(self) -> bool:
        """Whether there is a `bias`."""
        return self._kind[2]

    @property
    def matmul_precision(self) -> MatmulPrecision:
        """Precision of the operands of matrix products, "float32" or "bfloat16"; may be set.

        A tape keeps the one with which it was made.
        """
        precision: MatmulPrecision = self._weights.precision
        return precision

    @matmul_precision.setter
    def matmul_precision(self, value: MatmulPrecision) -> None:
        self._weights.use_precision(value)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of weights and results."""
        return self._kind[3]

    @property
    def features_in(self) -> int:
        """`in_features`."""
        return self.in_features

    @property
    def features_out(self) -> int:
        """`out_features`."""
        return self.out_features

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments for such a layer, ready for JSON."""
        sizes = {"in_features": self.in_features, "out_features": self.out_features}
        precision = {"matmul_precision": self.matmul_precision}
        return {**sizes, "bias": self.bias, **precision, "dtype": self.dtype.name}

    @classmethod
    def least_weights(cls, config: Mapping[str, Any]) -> int:
        """Return the least number of weights in a file with a layer of this configuration."""
        I, O = (_checks.size(config[n], n) for n in ("in_features", "out_features"))
        return I * O

    def parameters(self) -> dict[str, Array]:
        """Return `weight` and `bias` themselves.

        Changes in place take effect at the next call. The arrays can't be reshaped or resized. As
        long as one of them is held, each call, and each step of a stream, compares all weights
        with the copy that the kernels read, which costs about as much as reading them once more;
        so keep them no longer than needed.
        """
        shared = zip(("weight", "bias"), self._weights.share(), strict=True)
        return {name: array for name, array in shared if array is not None}

    def __call__(self, x: ArrayLike) -> Array:
        """Map the last axis. A row gives the same bits alone as in a batch.

        Parameters
        ----------
        x : (..., in_features) array-like

        Returns
        -------
        y : (..., out_features) array
        """
        return self._run(self._checked(x))[0]

    def _run(self, x: Array) -> tuple[Array, Kernels, PackedAffine]:
        """Return the output for `x`, and the kernels and weights used."""
        O, I, _, dtype = self._kind
        kernels = dispatch.kernels(self._weights.dtype)
        packed = self._weights.packed(kernels)
        y = np.empty((*x.shape[:-1], O), dtype)
        if x.ndim == 2:
            kernels.linear(packed, x, y)
        else:
            _pins = _checks.pinned(x)
            kernels.linear(packed, x.reshape(-1, I), y.reshape(-1, O))
        return y, kernels, packed

    def forward(self, x: ArrayLike) -> tuple[Array, LinearTape]:
        """Map as a plain call does, and keep what :meth:`backward` needs.

        Returns
        -------
        y : (..., out_features) array
        tape : LinearTape
        """
        x = self._checked(x)
        y, kernels, packed = self._run(x)
        tape: Any = _NewTape(kernels, packed, self._kind, _checks.copied(x))
        return y, tape

    def backward(self, tape: LinearTape, dy: ArrayLike) -> tuple[Array, dict[str, Array]]:
        """Return the gradients of the input and of the weights.

        Parameters
        ----------
        tape : LinearTape
            From :meth:`forward` of this layer.
        dy : (..., out_features) array-like

        Returns
        -------
        dx : (..., in_features) array
        grads : dict of str to array
            By the names of :meth:`parameters`.
        """
        if not isinstance(tape, LinearTape):
            raise TypeError(f"tape: expected what forward returned, got {type(tape).__name__}")
        if tape.kind != self._kind:
            raise ValueError("tape: is from the forward of another layer")
        O, I, bias, dtype = self._kind
        x = tape.x
        _pins = _checks.pinned(dy)
        dy = np.ascontiguousarray(_checks.shaped(dy, "dy", dtype, (*x.shape[:-1], O)))
        dx = np.empty(x.shape, dtype)
        grads: dict[str, Array] = {"weight": np.empty((O, I), dtype)}
        if bias:
            grads["bias"] = np.empty(O, dtype)
        tape.kernels.linear_backward(
            tape.packed, x.reshape(-1, I), dy.reshape(-1, O), dx.reshape(-1, I), *grads.values(),
            *(() if bias else (None,)),
        )  # fmt: skip
        return dx, grads

    def _checked(self, x: Any) -> Array:
        _, I, _, dtype = self._kind
        rows = _checks.array(x, "x", dtype)
        if rows.ndim == 0 or rows.shape[-1] != I:
            shape = _checks.shape_text(rows.shape)
            raise ValueError(f"x: expected shape (..., {I}), got {shape}")
        return rows

    def stage(self, batch_size: int, features: int, dtype: np.dtype[Any]) -> LinearStage:
        """Return the layer's stage in a stream, on the current backend."""
        return LinearStage(self._weights, batch_size)

    def __repr__(self) -> str:
        options = "" if self.bias else ", bias=False"
        if self.matmul_precision != "float32":
            options += f", matmul_precision={self.matmul_precision!r}"
        return f"Linear({self.in_features}, {self.out_features}{options}{dtype_shown(self.dtype)})"
