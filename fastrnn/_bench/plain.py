"""Recurrent layers as a good tutorial writes them: NumPy, a loop over time, stacked gates.

Each class has ``step``, ``forward`` and ``backward`` over the arrays of a `Problem`; ``forward``
keeps what ``backward`` needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn._bench.rows import Problem
from fastrnn._types import Array


def sigmoid(a: Array) -> Array:
    """Return the logistic function of `a`."""
    s: Array = 1 / (1 + np.exp(-a))
    return s


class PlainCell:
    """Base class of the cells: weights, and the loops over time."""

    #: Names of the gradients of the initial state.
    dstates: tuple[str, ...] = ("dh",)

    def __init__(self, problem: Problem) -> None:
        self.w_ih, self.w_hh, self.b_ih, self.b_hh = problem.weights.values()

    def step(self, x: Array, state: tuple[Array, ...]) -> tuple[tuple[Array, ...], Any]:
        """Return the new state after one step, and what `back` needs."""
        raise NotImplementedError

    def back(
        self, saved: Any, dstate: tuple[Array, ...]
    ) -> tuple[Array, Array, tuple[Array, ...], Array]:
        """Return the gradients of both products and the old state, and the old h."""
        raise NotImplementedError

    def forward(self, x: Array, state: tuple[Array, ...]) -> tuple[Array, list[Any]]:
        """Return outputs (T, B, H), and what was saved at each step."""
        y = np.empty((*x.shape[:2], state[0].shape[1]), x.dtype)
        saved = []
        for t in range(len(x)):
            state, of_step = self.step(x[t], state)
            saved.append(of_step)
            y[t] = state[0]
        return y, saved

    def backward(self, x: Array, saved: list[Any], dy: Array) -> dict[str, Array]:
        """Return all gradients; that of the final state is zero."""
        dx = np.empty_like(x)
        weights = {"weight_ih": self.w_ih, "weight_hh": self.w_hh}
        grads = {n: np.zeros_like(w) for n, w in weights.items()}
        grads |= {"bias_ih": np.zeros_like(self.b_ih), "bias_hh": np.zeros_like(self.b_hh)}
        dstate: tuple[Array, ...] = tuple(np.zeros_like(dy[0]) for _ in self.dstates)
        for t in reversed(range(len(x))):
            dzx, dzh, dstate, h = self.back(saved[t], (dstate[0] + dy[t], *dstate[1:]))
            dx[t] = dzx @ self.w_ih
            grads["weight_ih"] += dzx.T @ x[t]
            grads["weight_hh"] += dzh.T @ h
            grads["bias_ih"] += dzx.sum(axis=0)
            grads["bias_hh"] += dzh.sum(axis=0)
        return {"dx": dx} | dict(zip(self.dstates, dstate, strict=True)) | grads


class PlainRNN(PlainCell):
    """Elman network with tanh."""

    def step(self, x: Array, state: tuple[Array, ...]) -> tuple[tuple[Array, ...], Any]:
        (h,) = state
        h_new = np.tanh(x @ self.w_ih.T + self.b_ih + h @ self.w_hh.T + self.b_hh)
        return (h_new,), (h, h_new)

    def back(
        self, saved: Any, dstate: tuple[Array, ...]
    ) -> tuple[Array, Array, tuple[Array, ...], Array]:
        h, h_new = saved
        dz = dstate[0] * (1 - h_new**2)
        return dz, dz, (dz @ self.w_hh,), h


class PlainLSTM(PlainCell):
    """LSTM with gates i, f, g, o."""

    dstates = ("dh", "dc")

    def step(self, x: Array, state: tuple[Array, ...]) -> tuple[tuple[Array, ...], Any]:
        h, c = state
        z = x @ self.w_ih.T + self.b_ih + h @ self.w_hh.T + self.b_hh
        H = h.shape[1]
        i, f = sigmoid(z[:, :H]), sigmoid(z[:, H : 2 * H])
        g, o = np.tanh(z[:, 2 * H : 3 * H]), sigmoid(z[:, 3 * H :])
        c_new = f * c + i * g
        tanh_c = np.tanh(c_new)
        return (o * tanh_c, c_new), (h, c, i, f, g, o, tanh_c)

    def back(
        self, saved: Any, dstate: tuple[Array, ...]
    ) -> tuple[Array, Array, tuple[Array, ...], Array]:
        h, c, i, f, g, o, tanh_c = saved
        dh, dc = dstate
        dc = dc + dh * o * (1 - tanh_c**2)
        dz = np.hstack([
            dc * g * i * (1 - i),
            dc * c * f * (1 - f),
            dc * i * (1 - g**2),
            dh * tanh_c * o * (1 - o),
        ])  # fmt: skip
        return dz, dz, (dz @ self.w_hh, dc * f), h


class PlainGRU(PlainCell):
    """GRU with gates r, z, n, the reset gate after the product."""

    def step(self, x: Array, state: tuple[Array, ...]) -> tuple[tuple[Array, ...], Any]:
        (h,) = state
        zx, zh = x @ self.w_ih.T + self.b_ih, h @ self.w_hh.T + self.b_hh
        H = h.shape[1]
        r, z = sigmoid(zx[:, :H] + zh[:, :H]), sigmoid(zx[:, H : 2 * H] + zh[:, H : 2 * H])
        hn = zh[:, 2 * H :]
        n = np.tanh(zx[:, 2 * H :] + r * hn)
        return ((1 - z) * n + z * h,), (h, r, z, n, hn)

    def back(
        self, saved: Any, dstate: tuple[Array, ...]
    ) -> tuple[Array, Array, tuple[Array, ...], Array]:
        h, r, z, n, hn = saved
        (dh,) = dstate
        dn = dh * (1 - z) * (1 - n**2)
        dr, dz = dn * hn * r * (1 - r), dh * (h - n) * z * (1 - z)
        dzx, dzh = np.hstack([dr, dz, dn]), np.hstack([dr, dz, dn * r])
        return dzx, dzh, (dh * z + dzh @ self.w_hh,), h


PLAIN: dict[str, type[PlainCell]] = {"RNN": PlainRNN, "LSTM": PlainLSTM, "GRU": PlainGRU}
