"""The interface of a kernel set, compiled or reference.

T steps, B rows of a batch, I inputs, H hidden units, G gates, P outputs: H, or the size of a
projection. All arrays are of the kernel set's dtype, unless stated otherwise, and aligned. Each
function checks what it reads and writes at each call, and raises a ValueError or TypeError that
names the argument, what was expected and what came. "OUT" marks an output, which must be
writeable and must not overlap the inputs.

Losses of outputs `z` and targets `t` return their (weighted) means, and write the gradients to
`grad`, OUT, in the shape of `z`; all are C-contiguous. Weights `w` have
the shape of leading axes of `t`, or are None for equal weights; the mean of l is sum(w l) / sum(w),
and 0 if all weights are 0. Where a weight is 0, `z` and `t` are ignored, even NaN.

Optimizers take lists with an entry for each parameter: C-contiguous arrays `params`, OUT, and
`grads`, and `states`, OUT, tuples of such in the order of the formula in
``fastrnn.optim``. A gradient may be a RowGradient instead, to the same effect as the dense one. It
is first clipped to +-`limit` and then multiplied by `factor`.

Infinity and NaN raise no warning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from fastrnn._kernels.cells import Cell, CellConfig, MatmulPrecision
from fastrnn._kernels.row_gradient import RowGradient
from fastrnn._types import Array

#: For optimizers: dense, in the shape of the parameter, or for a few of its rows.
Gradient = Array | RowGradient

#: ``convert(x_t, out) -> (x, y, result, pins)``: (B, I) or (B,) to read, (B, P) to write, its
#: memory in the shape to return, and what keeps the caller's arrays from being resized meanwhile.
Convert = Callable[[Any, Any], tuple[Array, Array, Array, Any]]


class PackedWeights(Protocol):
    """An immutable copy of a layer's weights, made by `Packed`."""

    def matches(self, weights: Sequence[Array | None]) -> bool:
        """Return whether the copy has the same bits as `weights`."""


class PackedAffine(Protocol):
    """An immutable copy of a weight and a bias, made by `PackedLinear`."""

    def matches(self, weights: Sequence[Array | None]) -> bool:
        """Return whether the copy has the same bits as `weights`."""


class KernelTape(Protocol):
    """The tape of a `forward` for `backward`: copies of inputs, and each step's values."""

    @property
    def packed(self) -> PackedWeights:
        """The weights that ran."""


class WeightGradients(Protocol):
    """Sums of weight gradients, made by `Gradients`, to which each `backward` adds."""

    def arrays(self) -> list[Array | None]:
        """Return the sums in new arrays, in the weights' order, shapes and layouts."""


class StreamStage(Protocol):
    """A layer of a stream, made by `LinearStepper` or `TableStepper`, for a `Chain`."""


class CellStage(StreamStage, Protocol):
    """A recurrent layer of a stream, made by `Stepper`, for a `Chain`."""

    @property
    def state(self) -> tuple[Array, ...]:
        """(B, P) for h, (B, H) for others: zeros at first; writeable."""


class StreamChain(Protocol):
    """Layers that advance together, made by `Chain`.

    A ``with`` statement keeps other threads from using them.
    """

    def step(self, x_t: Any, out: Array | None = None) -> Array:
        """Advance by one step, from `x_t`; return the output, in `out` if given.

        Raises
        ------
        RuntimeError
            If another thread is using the chain; nothing was read or written then.
        """

    def sample(
        self, logits: Array, draws: Array, *, temperature: float, top_k: int, never: int = -1
    ) -> Array:
        """Draw a token for each of `draws`, which the next step reads; return all.

        Parameters
        ----------
        logits : (V,) array, OUT
            Of the first token; afterwards, of the one that follows the last.
        draws : (n,) array of float64
            Uniform in [0, 1).
        temperature : float
            Divides the logits; 0 takes the likeliest token.
        top_k : int
            Only the `top_k` likeliest tokens are drawn.
        never : int
            A token that is not drawn; -1 for none.

        Returns
        -------
        tokens : (n,) array of intp
        """

    def begin_anew(self) -> bool:
        """Make it usable, if another thread used it when this process was forked.

        Returns
        -------
        bool
            Whether one did: the state may then be that of half a step, and is to be set.
        """

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class WeightCache(Protocol):
    """The source of a `Stepper`'s weights: see ``fastrnn._kernels.weights``."""

    def packed(self, kernels: Kernels) -> PackedWeights:
        """Return the kernels' copy of the current weights."""


class AffineCache(Protocol):
    """The source of a `LinearStepper`'s weights: see ``fastrnn._kernels.weights``."""

    def packed(self, kernels: Kernels) -> PackedAffine:
        """Return the kernels' copy of the current weights."""


class TableCache(Protocol):
    """The source of a `TableStepper`'s table."""

    @property
    def array(self) -> Array:
        """The table (V, D), always the same array; raise if it was reshaped."""


class Kernels(Protocol):
    """A kernel set for one dtype: a compiled module, or the reference."""

    def Packed(  # noqa: N802
        self, cell: Cell, config: CellConfig, weights: Sequence[Array | None]
    ) -> PackedWeights:
        """An immutable copy of a layer's weights, in the layout of the kernels.

        Parameters
        ----------
        cell : Cell
        config : CellConfig
        weights : sequence of array or None
            In the order of `cell.weights` and in torch's layouts, C-contiguous. None, or missing at
            the end, for those that `config` leaves out; any bias may be left out too.
        """

    def Gradients(self, packed: Any) -> WeightGradients:  # noqa: N802
        """Sums of weight gradients, to which each :func:`backward` adds.

        Parameters
        ----------
        packed : PackedWeights
            The weights of the tapes.
        """

    def forward(
        self,
        packed: PackedWeights,
        x: Array,
        state: Sequence[Array | None],
        y: Array | None,
        state_n: Sequence[Array],
        *,
        keep: bool = False,
        spans: Array | None = None,
        reset: Array | None = None,
    ) -> KernelTape | None:
        """Run a layer over a sequence.

        Parameters
        ----------
        packed : PackedWeights
        x : (T, B, I) array
            The last axis contiguous.
        state : sequence of array or None
            One for each of the cell's states, (B, P) for h, (B, H) for others, C-contiguous; None
            stands for zeros.
        y : (T, B, P) array or None, OUT
            0 where a row does not run; None if not wanted. The last axis contiguous.
        state_n : sequence of array, OUT
            As `state`: the state of each row after its last step.
        keep : bool
            Whether to return a tape for `backward`.
        spans : (2, B) array of int64, optional
            Row b runs from step spans[0, b] until before spans[1, b]. All rows start at the same
            step, 0 or earlier, or all end at the same step, T or later. Default: all rows run at
            all steps.
        reset : (T, B) array of bool, optional
            Where the state is zeroed before a step. Default: nowhere.
        """

    def backward(
        self,
        tape: KernelTape,
        dy: Array | None,
        dstate_n: Sequence[Array | None],
        dx: Array | None,
        dstate: Sequence[Array],
        gradients: WeightGradients | None,
    ) -> None:
        """Backpropagate through time (Werbos 1990).

        Parameters
        ----------
        tape : KernelTape
            From `forward` with ``keep=True``; not changed.
        dy : (T, B, P) array or None
            Gradient of the outputs; None stands for zeros. The last axis contiguous.
        dstate_n : sequence of array or None
            Gradients of the final states, in their shapes.
        dx : (T, B, I) array or None, OUT
            None where it is not wanted. The last axis contiguous.
        dstate : sequence of array, OUT
            Gradients of the initial states. May be `dstate_n`.
        gradients : WeightGradients or None, OUT
            For the tape's weights, whose gradients are added; None where they are not wanted.
        """

    def run(
        self, packed: PackedWeights, x: Any, state: Any, *, keep: bool = False,
        outputs: bool = True,
    ) -> tuple[Array | None, Any, KernelTape | None] | None:  # fmt: skip
        """Run a layer over a sequence, into new arrays; None if an array needs to be converted.

        Parameters
        ----------
        packed : PackedWeights
        x : (T, B, I) array
            The last axis contiguous, and not empty; else None is returned.
        state : array, tuple of array, or None
            As a layer of ``fastrnn.layers`` takes it: (1, B, P) for h, (1, B, H) for others.
        keep : bool
            Whether to return a tape for `backward` or `run_back`.
        outputs : bool
            Whether y is wanted.

        Returns
        -------
        y : (T, B, P) array or None
        state_n
            As `state`.
        tape : KernelTape or None
        """

    def run_back(
        self, tape: KernelTape, dy: Any, dstate_n: Any, *, input_gradient: bool = True
    ) -> tuple[Array | None, Any, list[Array | None]] | None:
        """Backpropagate, into new arrays; None if an array needs to be converted.

        Parameters
        ----------
        tape : KernelTape
        dy : (T, B, P) array or None
            The last axis contiguous.
        dstate_n : array, tuple of array, or None
            Gradient of the final state, as `run` takes states.
        input_gradient : bool
            Whether dx is wanted.

        Returns
        -------
        dx : (T, B, I) array or None
        dstate
            As `dstate_n`.
        grads : list of array or None
            As ``WeightGradients.arrays`` returns them.
        """

    def segment_steps(self, B: int, least: int) -> int:
        """Return a segment length of at least `least` steps for B rows.

        Gradients of segments of this length (the last one may be shorter) add up to those of the
        whole sequence; in the compiled twin, to the same bits.
        """

    def Stepper(  # noqa: N802
        self, weights: WeightCache, kernels: Kernels, batch_size: int
    ) -> CellStage:
        """A layer's state, advanced one time step at a time.

        Parameters
        ----------
        weights : WeightCache
            The layer's weights; a change to them is seen by the next step.
        kernels : Kernels
            The kernel set of this class.
        batch_size : int
            B.
        """

    def LinearStepper(  # noqa: N802
        self, weights: AffineCache, kernels: Kernels, batch_size: int
    ) -> StreamStage:
        """An affine map of one time step, with the parameters of `Stepper`."""

    def TableStepper(self, table: TableCache, batch_size: int) -> StreamStage:  # noqa: N802
        """A lookup of one time step: the rows (B, D) of a table for tokens (B,)."""

    def RowStepper(  # noqa: N802
        self, table: TableCache | None, x: Array, *, function: int, a: float, b: float
    ) -> StreamStage:
        """A function of each row of one time step.

        Parameters
        ----------
        table : TableCache or None
        x : (B, F) array
            Any, of the shape of a step.
        function, a, b
            As of `transform`.
        """

    def Chain(self, stages: Sequence[StreamStage], convert: Convert) -> StreamChain:  # noqa: N802
        """Layers that advance together, each of which reads what the one before it wrote.

        Parameters
        ----------
        stages : sequence of StreamStage
            Of this kernel set and of one batch size. Only the first may read tokens.
        convert : callable
            ``convert(x_t, out) -> (x, y, result, pins)`` checks the caller's arrays: `x` becomes
            (B, I), or (B,) tokens, `y` is the (B, P) to write to, and `result` the same memory in
            the shape to return.
        """

    def PackedLinear(  # noqa: N802
        self, weights: Sequence[Array | None], matmul_precision: MatmulPrecision = "float32"
    ) -> PackedAffine:
        """An immutable copy of the weights of an affine map, in the layout of the kernels.

        Parameters
        ----------
        weights : pair of array
            Weight (O, I), and bias (O,) or None.
        matmul_precision : {"float32", "bfloat16"}
            "bfloat16": the operands of products are rounded; for float32 only.
        """

    def linear(self, packed: PackedAffine, x: Array, y: Array) -> None:
        """Write x W^T + b to y, each row by a product of its own.

        A row gives the same bits alone as in a batch.

        Parameters
        ----------
        packed : PackedAffine
        x : (n, I) array
        y : (n, O) array, OUT
            C-contiguous.
        """

    def linear_backward(
        self,
        packed: PackedAffine,
        x: Array,
        dy: Array,
        dx: Array | None,
        dweight: Array,
        dbias: Array | None,
    ) -> None:
        """Write the gradients of a :func:`linear`.

        Parameters
        ----------
        packed : PackedAffine
        x : (n, I) array
        dy : (n, O) array
            Gradient of y.
        dx : (n, I) array or None, OUT
        dweight : (O, I) array, OUT
        dbias : (O,) array or None, OUT
            All are C-contiguous.
        """

    def transform(
        self, x: Array, table: Array | None, y: Array, *, function: int, a: float, b: float
    ) -> None:
        """Write a function of each row of x (n, F) to y.

        A row gives the same bits alone as in a batch.

        Parameters
        ----------
        x : (n, F) array
        table : (2, F) array or None
            Of functions that have one.
        y : (n, F) array, OUT
            All are C-contiguous.
        function : int
            The place of one of ``fastrnn._kernels.functions.FUNCTIONS``.
        a, b : float
            Its parameters.
        """

    def transform_back(
        self,
        x: Array,
        table: Array | None,
        dy: Array,
        dx: Array,
        dtable: Array | None,
        *,
        function: int,
        a: float,
        b: float,
    ) -> None:
        """Write the gradients of a :func:`transform`.

        Parameters
        ----------
        x, table, function, a, b
            As of `transform`.
        dy : (n, F) array
            Gradient of y.
        dx : (n, F) array, OUT
        dtable : (2, F) array or None, OUT
            Of the table of a layer normalisation; zeros for other functions. All are C-contiguous.
        """

    def take_rows(self, table: Array, x: Array, y: Array) -> None:
        """Write the rows of `table` with the indices `x` to `y`.

        Parameters
        ----------
        table : (V, D) array
        x : (n,) array of intp
        y : (n, D) array, OUT
            All are C-contiguous.

        Raises
        ------
        ValueError
            If an index is out of range; `y` is then undefined.
        """

    def add_rows(self, x: Array, dy: Array, rows: Array | None, sums: Array) -> None:
        """Add each row of `dy` (n, D) to the row of `sums` for its index in `x`.

        Parameters
        ----------
        x : (n,) array of intp
        dy : (n, D) array
        rows : (k,) array of intp or None
            The ascending indices of the rows of `sums` (k, D). None: 0 to k-1.
        sums : (k, D) array, OUT
            All are C-contiguous.

        Raises
        ------
        ValueError
            If an index is out of range; `sums` is then undefined.
        """

    def mse(self, z: Array, t: Array, w: Array | None, grad: Array) -> float:
        """(z - t)^2."""

    def mae(self, z: Array, t: Array, w: Array | None, grad: Array) -> float:
        """|z - t|, whose derivative is 0 where both are equal."""

    def huber(self, z: Array, t: Array, w: Array | None, grad: Array, *, delta: float) -> float:
        """(z - t)^2 / 2 up to delta, delta (|z - t| - delta / 2) beyond."""

    def binary_cross_entropy(self, z: Array, t: Array, w: Array | None, grad: Array) -> float:
        """log(1 + exp z) - t z; the exponent is never above 0, so nothing overflows."""

    def cross_entropy(self, z: Array, t: Array, w: Array | None, grad: Array) -> float:
        """log(sum_v exp z_v) - z_t of each row z (..., V), with t (...) of intp."""

    def squares(self, grads: Sequence[Gradient], *, limit: float) -> list[float]:
        """Return the sum of squares of each gradient, its entries clipped to +-`limit`."""

    def sgd(
        self,
        params: Sequence[Array],
        grads: Sequence[Gradient],
        states: Sequence[tuple[Array, ...]],
        *,
        limit: float,
        factor: float,
        lr: float,
        weight_decay: float,
        momentum: float,
        nesterov: bool,
    ) -> None:
        """Take a step of gradient descent; with momentum, `states` are (b,)."""

    def adam(
        self,
        params: Sequence[Array],
        grads: Sequence[Gradient],
        states: Sequence[tuple[Array, ...]],
        *,
        limit: float,
        factor: float,
        lr: float,
        weight_decay: float,
        b1: float,
        b2: float,
        eps: float,
        decoupled: bool,
        t: int,
    ) -> None:
        """Take step t, counted from 1, of Adam, or of AdamW if `decoupled`; `states` are (m, v)."""

    def rmsprop(
        self,
        params: Sequence[Array],
        grads: Sequence[Gradient],
        states: Sequence[tuple[Array, ...]],
        *,
        limit: float,
        factor: float,
        lr: float,
        weight_decay: float,
        alpha: float,
        eps: float,
        momentum: float,
        centered: bool,
    ) -> None:
        """Take a step of RMSprop; `states` are (v,), then a if `centered`, then b with momentum."""

    def adagrad(
        self,
        params: Sequence[Array],
        grads: Sequence[Gradient],
        states: Sequence[tuple[Array, ...]],
        *,
        limit: float,
        factor: float,
        lr: float,
        weight_decay: float,
        eps: float,
    ) -> None:
        """Take a step of Adagrad; `states` are (s,)."""


class QuantizedKernels(Protocol):
    """The kernel set for quantized weights: see ``fastrnn._kernels.quantized``.

    Inputs, states and outputs are float32. A row that is multiplied with an int8 matrix is rounded
    to int8 itself, by its `limit`, or, where that is infinite, by its own largest entry. All
    implementations give the same bits. `Stepper`, `LinearStepper`,
    `RowStepper` and `Chain` are as in `Kernels`.
    """

    def Packed(  # noqa: N802
        self,
        cell: Cell,
        config: CellConfig,
        weights: Sequence[Array | None],
        scales: Sequence[Array | None],
        limits: Sequence[float],
    ) -> PackedWeights:
        """An immutable copy of a layer's weights, in the layout of the kernels.

        Parameters
        ----------
        cell : Cell
        config : CellConfig
        weights : sequence of array or None
            In the order of `cell.weights`: int8 matrices, float32 vectors.
        scales : sequence of array or None
            For each of them: of a matrix the scale of each row, float32; else None.
        limits : pair of float
            Of x, and of h where the cell does not bound it.
        """

    def forward(
        self,
        packed: PackedWeights,
        x: Array,
        state: Sequence[Array | None],
        y: Array | None,
        state_n: Sequence[Array],
        *,
        keep: bool = False,
        spans: Array | None = None,
        reset: Array | None = None,
    ) -> None:
        """Run a layer over a sequence, as the function of `Kernels`; `keep` has to be False."""

    def run(
        self, packed: PackedWeights, x: Any, state: Any, *, keep: bool = False,
        outputs: bool = True,
    ) -> tuple[Array | None, Any, None] | None:  # fmt: skip
        """Run a layer over a sequence, as the function of `Kernels`; `keep` has to be False."""

    def PackedLinear(  # noqa: N802
        self, weights: Sequence[Array | None], scale: Array, limit: float
    ) -> PackedAffine:
        """An immutable copy of the weights of an affine map, in the layout of the kernels.

        Parameters
        ----------
        weights : pair of array
            Weight (O, I), int8, and bias (O,), float32, or None.
        scale : (O,) array
        limit : float
            Of x.
        """

    def linear(self, packed: PackedAffine, x: Array, y: Array) -> None:
        """Write x W^T + b to y, as the function of `Kernels`."""

    def transform(
        self, x: Array, table: Array | None, y: Array, *, function: int, a: float, b: float
    ) -> None:
        """Write a function of each row of x (n, F) to y, as the function of `Kernels`."""

    def take_rows(self, table: Array, scale: Array, x: Array, y: Array) -> None:
        """Write the rows of `table` with the indices `x`, times their scales, to `y`.

        Parameters
        ----------
        table : (V, D) array of int8
        scale : (V,) array
        x : (n,) array of intp
        y : (n, D) array, OUT
            All are C-contiguous.

        Raises
        ------
        ValueError
            If an index is out of range; `y` is then undefined.
        """
