"""Base class of recurrent layers and of single steps: a cell, and the weights of its scans."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from fastrnn import _checks
from fastrnn._core import initializers
from fastrnn._core.scan import ScanTape
from fastrnn._kernels.activations import Activation, Shown
from fastrnn._kernels.cells import CELLS, Cell, CellConfig, MatmulPrecision
from fastrnn._kernels.weights import Weights
from fastrnn._types import Array
from fastrnn.layers.base import Layer, dtype_shown


class CellLayer(Layer):
    """A recurrent layer, or a single step of one: the weights of its scans.

    A subclass in the library passes ``cells=``: the names of its cells, and the arguments that
    select each.
    """

    cells: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    #: Options and their defaults; ``repr`` shows those that differ.
    _shown: ClassVar[dict[str, Any]] = {
        "proj_size": 0,
        "num_layers": 1,
        "nonlinearity": "tanh",
        "bias": True,
        "batch_first": False,
        "dropout": 0,
        "bidirectional": False,
        "peephole": False,
        "layer_norm": False,
        "activations": None,
        "clip": None,
        "input_forget": False,
        "reset_after": True,
        "return_sequences": True,
        "go_backwards": False,
        "weight_dropout": 0,
        "learn_initial_state": False,
        "matmul_precision": "float32",
    }
    #: Subclasses by the name of the family.
    _registry: ClassVar[dict[str, Any]]
    #: D, the number of scans of each layer.
    _directions = 1

    def __init_subclass__(
        cls, *, cells: Mapping[str, Mapping[str, Any]] | None = None, **more: Any
    ) -> None:
        """Register a class with cells of its own."""
        super().__init_subclass__(**more)
        if cells is not None:
            cls.cells = cells
            (family,) = {CELLS[name].family for name in cells}
            cls._registry[family] = cls

    @classmethod
    def _cell_of(cls, **choice: Any) -> Cell:
        """Return the cell that these arguments select."""
        return next(CELLS[name] for name, chosen in cls.cells.items() if chosen == choice)

    @classmethod
    def _elman(cls, nonlinearity: Any, activations: Any, usual: str) -> Cell:
        """Return the cell that `activations`, or else `nonlinearity`, selects.

        `usual` is the default of `nonlinearity`.
        """
        if activations is not None:
            if nonlinearity != usual:
                raise ValueError(
                    f"nonlinearity: expected {usual!r}, the default, with activations, which are "
                    f"in its place, got {nonlinearity!r}"
                )
            given = [activations] if isinstance(activations, str) else activations
            for name in ("tanh", "relu"):
                if isinstance(given, Sequence) and given and all(one == name for one in given):
                    nonlinearity = name
        return cls._cell_of(nonlinearity=_checks.nonlinearity(nonlinearity))

    def __init__(
        self,
        cell: Cell,
        configs: Mapping[str, CellConfig],
        *,
        dtype: Any,
        seed: int | None,
        init: str = "uniform",
    ) -> None:
        if _checks.choice(init, "init", initializers.INITS) == "identity" and len(cell.gates) > 1:
            raise ValueError(f"init: 'identity' is for RNN only, got it for {type(self).__name__}")
        self._cell, self._init, self._configs = cell, init, dict(configs)
        self._config = next(iter(self._configs.values()))
        rng = self._first_generator(seed)
        drawn = self._draw_scans(rng, dtype)
        self._weights = {
            suffix: Weights(cell, config, arrays)
            for (suffix, config), arrays in zip(configs.items(), drawn, strict=True)
        }
        self._scan_weights = list(self._weights.values())
        #: Names of all weights that are present, scan by scan.
        self._names = [
            name + suffix for suffix, weights in self._weights.items() for name in weights.names
        ]
        self._dtype: np.dtype[Any] = np.dtype(dtype)
        self._start(rng)

    def _draw_scans(self, rng: np.random.Generator, dtype: Any) -> list[list[Array | None]]:
        """Draw weights of each scan, in the order of `cell.weights`."""
        return [
            initializers.weights(rng, self._cell, config, self._init, dtype)
            for config in self._configs.values()
        ]

    def _draw(self, rng: np.random.Generator) -> dict[str, Array]:
        return self._named(self._draw_scans(rng, self.dtype))

    @property
    def _choice(self) -> Mapping[str, Any]:
        """The arguments that selected the cell."""
        return self.cells[self._cell.name]

    @property
    def cell(self) -> Cell:
        """The cell, as data."""
        return self._cell

    @property
    def input_size(self) -> int:
        """I, the size of the last axis of x."""
        return self._config.input_size

    @property
    def hidden_size(self) -> int:
        """H, the number of hidden units."""
        return self._config.hidden_size

    @property
    def bias(self) -> bool:
        """Whether there are biases."""
        return self._config.bias

    @property
    def activations(self) -> tuple[Shown, ...] | None:
        """The activations, or None for the cell's own: each a name, or (name, alpha, beta)."""
        each = [config.activations for config in [*self._configs.values()][: self._directions]]
        if each == [None] * len(each):
            return None
        own = tuple(map(Activation, self._cell.activations))
        found = [given or own for given in each]
        return tuple(one.shown for given in found[: len({*found})] for one in given)

    @property
    def clip(self) -> float | None:
        """Bound of the arguments of activations, or None."""
        return self._config.clip

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of weights and results."""
        return self._dtype

    @property
    def matmul_precision(self) -> MatmulPrecision:
        """Precision of the operands of matrix products, "float32" or "bfloat16"; may be set.

        A tape keeps the one with which it was made.
        """
        return self._config.matmul_precision

    @matmul_precision.setter
    def matmul_precision(self, value: MatmulPrecision) -> None:
        for weights in self._scan_weights:
            weights.use_precision(value)
        self._configs = {suffix: w.config for suffix, w in self._weights.items()}
        self._config = next(iter(self._configs.values()))

    @property
    def features_in(self) -> int:
        """Size of the last axis of x, I."""
        return self.input_size

    @property
    def features_out(self) -> int:
        """Size of the last axis of y: P with a projection, else H."""
        return self._config.output_size

    @property
    def has_state(self) -> bool:
        """Whether the layer carries a state from step to step: True."""
        return True

    def parameters(self) -> dict[str, Array]:
        """Return the weights themselves, in torch's names, order, layouts and gate order.

        Changes in place take effect at the next call. The arrays can't be reshaped or resized. As
        long as one of them is held, each call, and each step of a stream, compares all weights
        with the copy that the kernels read, which costs about as much as reading them once more;
        so keep them no longer than needed.
        """
        return self._named(weights.share() for weights in self._weights.values())

    def _named(self, of_scans: Iterable[Sequence[Array | None]]) -> dict[str, Array]:
        # Loops are quicker than `zip`, and a small step's backward waits for them.
        named, names = {}, iter(self._names)
        for arrays in of_scans:
            for array in arrays:
                if array is not None:
                    named[next(names)] = array
        return named

    def _expect_own(self, scans: Sequence[ScanTape]) -> None:
        """Raise if a tape is not from a layer like this one."""
        own = self._scan_weights
        if len(scans) == len(own):
            for k, scan in enumerate(scans):
                if scan.kind != own[k].kind:
                    break
            else:
                return
        raise ValueError("tape: is from the forward of another layer")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments for such a layer, ready for JSON."""
        names = ("input_size", "hidden_size", "bias", "activations", "clip")
        config = {name: getattr(self, name) for name in names}
        config |= {"matmul_precision": self.matmul_precision, "dtype": self.dtype.name}
        return config | dict(self._choice)

    def __repr__(self) -> str:
        arguments = [str(self.input_size), str(self.hidden_size)]
        for name, usual in self._shown.items():
            value = getattr(self, name, usual)
            if value != usual:
                arguments.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(arguments)}{dtype_shown(self.dtype)})"
