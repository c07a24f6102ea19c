"""Single steps of recurrent layers, such as ``torch.nn.LSTMCell``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic, NamedTuple

import numpy as np

from fastrnn import _checks
from fastrnn._core import scan as scans
from fastrnn._kernels.activations import ActivationsLike
from fastrnn._kernels.activations import activations as activations_of
from fastrnn._kernels.cells import Cell, CellConfig
from fastrnn._types import Array, ArrayLike, DTypeLike, StateLikeT, StateT
from fastrnn.layers.cell_layer import CellLayer


class CellTape(NamedTuple):
    """What a cell's ``backward`` needs from its ``forward``. Opaque; belongs to the caller."""

    scan: scans.ScanTape
    x_shape: tuple[int, ...]


#: The single steps, by the name of the family.
SINGLE_STEPS: dict[str, type[SingleStep[Any, Any]]] = {}


class SingleStep(CellLayer, Generic[StateT, StateLikeT]):
    """Base class of single steps."""

    stackable = False
    _registry = SINGLE_STEPS
    _shown: ClassVar[dict[str, Any]] = {
        "bias": True,
        "nonlinearity": "tanh",
        "activations": None,
        "clip": None,
        "input_forget": False,
        "reset_after": True,
        "matmul_precision": "float32",
    }

    def __init__(
        self,
        cell: Cell,
        config: CellConfig,
        *,
        activations: ActivationsLike | None,
        dtype: DTypeLike,
        seed: int | None,
    ) -> None:
        I, H = config.input_size, config.hidden_size
        dtype = _checks.dtype(dtype)
        H_hh = H if cell.recurrence == "dense" else 1
        _checks.memory(len(cell.gates) * H * (I + H_hh), dtype, input_size=I, hidden_size=H)
        (chosen,) = activations_of(activations, cell.activations)
        config = replace(config, activations=chosen)
        super().__init__(cell, {"": config}, dtype=dtype, seed=seed)

    def __call__(self, x: ArrayLike, state: StateLikeT | None = None) -> StateT:
        """Advance by one step. Keeps nothing, and may be called from many threads at once.

        Parameters
        ----------
        x : (B, I) or (I,) array-like
        state : (B, H) or (H,) array-like, or for LSTMCell a pair ``(h, c)`` of them, optional
            Default: zeros.

        Returns
        -------
        state : as `state`
            The new one; its h is the output.
        """
        state_n: StateT = self._run(x, state, keep=False)[0]
        return state_n

    def forward(self, x: ArrayLike, state: StateLikeT | None = None) -> tuple[StateT, CellTape]:
        """Advance as a plain call does, and keep what :meth:`backward` needs.

        Returns
        -------
        state : as from a plain call
        tape : CellTape
            For :meth:`backward`, any number of times. It holds copies.
        """
        state_n, tape = self._run(x, state, keep=True)
        assert tape is not None
        return state_n, tape

    def _run(self, x: Any, state: Any, keep: bool) -> tuple[Any, CellTape | None]:
        x = _checks.array(x, "x", self.dtype)
        lead = () if x.ndim == 1 else ("B",)
        _checks.expect_shape(x, "x", (*lead, self.input_size))
        _pins = _checks.pinned(x)
        steps = x.reshape(1, -1, self.input_size)
        state_n = self._new_rows(steps.shape[1])
        states, _state_pins = self._rows(state, "state", x)
        scan = scans.forward(self._weights[""], steps, states, None, state_n, keep=keep)
        return self._state(state_n, x), None if scan is None else CellTape(scan, x.shape)

    def backward(
        self, tape: CellTape, dstate: StateLikeT | None = None
    ) -> tuple[Array, StateT, dict[str, Array]]:
        """Backpropagate through one step.

        Parameters
        ----------
        tape : CellTape
            From :meth:`forward` of this cell.
        dstate : as `state`, optional
            Gradient of the loss with respect to the new state; either of a pair may be None.
            Default: zeros.

        Returns
        -------
        dx : array
            Gradient with respect to x, in its shape.
        dstate : as `state`
            Gradient with respect to the old state.
        grads : dict of str to array
            Gradients of the weights, by the names of :meth:`parameters`.
        """
        if not isinstance(tape, CellTape):
            raise TypeError(f"tape: expected what forward returned, got {type(tape).__name__}")
        self._expect_own([tape.scan])
        dx = np.empty(tape.x_shape, self.dtype)
        steps = dx.reshape(1, -1, self.input_size)
        dstate_0 = self._new_rows(steps.shape[1])
        dstate_n, _pins = self._rows(dstate, "dstate", dx)
        grads = scans.backward(
            tape.scan,
            kind=self._weights[""].kind,
            dy=None,
            dstate_n=dstate_n,
            dx=steps,
            dstate=dstate_0,
        )
        return dx, self._state(dstate_0, dx), self._named([grads])

    def _rows(self, state: Any, name: str, x: Array) -> tuple[list[Array | None], Any]:
        """Return the caller's state as arrays (B, H), None where None was given.

        Also what pins them as long as views of them are in use.
        """
        names = self._cell.states
        shapes = [(*x.shape[:-1], self.hidden_size)] * len(names)
        given = _checks.states(state, name, names, self.dtype, shapes)
        pins = _checks.pinned(given)
        return [None if s is None else s.reshape(-1, self.hidden_size) for s in given], pins

    def _new_rows(self, B: int) -> list[Array]:
        """Return empty arrays for the states."""
        return [np.empty((B, self.hidden_size), self.dtype) for _ in self._cell.states]

    def _state(self, rows: Sequence[Array], x: Array) -> Any:
        """Return states (B, H) in the form of the caller's."""
        states = tuple(s.reshape(*x.shape[:-1], self.hidden_size) for s in rows)
        return states[0] if len(states) == 1 else states
