"""A user's file, for mypy and pyright in their strict modes: what goes in, and what comes out.

It is not run: tests/test_typing.py checks it.
"""

from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

import fastrnn
from fastrnn import functional as F
from fastrnn import losses, optim
from fastrnn.callbacks import EarlyStopping
from fastrnn.forecast import Forecaster
from fastrnn.text import CharLM, TextClassifier

Array = np.ndarray[Any, np.dtype[Any]]
Pair = tuple[Array, Array]

x = np.zeros((7, 2, 3), np.float32)
numbers = [[[0.0, 1.0, 2.0]], [[3.0, 4.0, 5.0]]]


def layers() -> None:
    """Check that a layer's state is an array, and that of an LSTM a pair."""
    gru = fastrnn.GRU(3, 5, num_layers=2, dtype="float32", seed=0)
    y, h = gru(x)
    assert_type(y, Array)
    assert_type(h, Array)
    y, h = gru(numbers, h, lengths=[2, 1], reset=np.zeros((2, 2), bool))
    _, h, tape = gru.forward(x, state=h)
    dx, dh, grads = gru.backward(tape, dy=np.ones_like(y), dstate=h)
    assert_type(dx, Array)
    assert_type(dh, Array)
    assert_type(grads, dict[str, Array])
    nothing, _, _ = gru.backward(tape, input_gradient=bool(y.size))
    assert_type(nothing, Array | None)

    lstm = fastrnn.LSTM(3, 5, dtype=np.float64, activations=["sigmoid", "tanh", "tanh"])
    y, state = lstm(x)
    assert_type(state, Pair)
    y, (h, c) = lstm(x, (h, None))
    y, (h, c) = lstm(x, [h, c])
    lstm(x, h)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    y, state, tape = lstm.forward(x, state, checkpoint_every=100)
    dx, (dh, dc), grads = lstm.backward(tape, dstate=(None, c))
    assert_type(dc, Array)
    fastrnn.optim.Adam(lr=1e-3).step(lstm.parameters(), grads)
    assert_type(
        lstm.load_state_dict({"weight_ih_l0": [[1.0]]}, strict=False).missing_keys, list[str]
    )

    short: npt.NDArray[np.float32] = fastrnn.RNN(3, 5)(x)[0]
    assert_type(fastrnn.IndRNN(3, 5)(short)[1], Array)


def cells_and_streams() -> None:
    """Check single steps."""
    h = fastrnn.GRUCell(3, 5)(x[0])
    assert_type(h, Array)
    h, c = fastrnn.LSTMCell(3, 5)([[1, 2, 3]])
    state, tape = fastrnn.LSTMCell(3, 5).forward(x[0], (h, c))
    assert_type(state, Pair)
    assert_type(fastrnn.LSTMCell(3, 5).backward(tape, dstate=(h, None))[1], Pair)

    stream = fastrnn.LSTM(3, 5).stream(batch_size=2)
    assert_type(stream.step(x[0]), Array)
    assert_type(stream.state, Pair)
    stream.state = (h, c)
    stream.reset(rows=[True, False])
    of_model = fastrnn.Sequential([fastrnn.GRU(3, 5)]).stream()
    of_model.state = of_model.state
    assert_type(of_model.step(x[0, 0], out=np.empty(5, np.float32)), Array)


def other_layers() -> None:
    """Check layers of rows."""
    y, tape = fastrnn.Linear(3, 2).forward(numbers)
    dx, grads = fastrnn.Linear(3, 2).backward(tape, y)
    assert_type(dx, Array)
    assert_type(grads["weight"], Array)
    assert_type(fastrnn.Embedding(7, 3)([1, 2, 3]), Array)
    assert_type(fastrnn.Normalization().adapt(x)(x), Array)
    assert_type(fastrnn.Softmax()(fastrnn.LayerNorm(3)(x)), Array)
    assert_type(fastrnn.Dropout(0.5)(numbers), Array)


class Scale(fastrnn.Layer):
    """A layer of one's own."""

    def __init__(self, features: int) -> None:
        self.weight = np.ones(features)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Scale."""
        return x * self.weight, x

    def backward(self, tape: Array, dy: Array) -> tuple[Array, dict[str, Array]]:
        """Scale back."""
        return dy * self.weight, {"weight": (dy * tape).reshape(-1, len(self.weight)).sum(0)}

    def parameters(self) -> dict[str, Array]:
        """Return the weight."""
        return {"weight": self.weight}


def pinball(y_true: Array, y_pred: Array) -> tuple[float, Array]:
    """Return a loss of one's own."""
    return float(np.abs(y_true - y_pred).mean()), np.sign(y_pred - y_true)


def models() -> None:
    """Check whole models."""
    model = fastrnn.Sequential([fastrnn.LSTM(3, 5), Scale(5), fastrnn.Linear(5, 1)], seed=0)
    model.compile(optim.SGD(lr=0.1, momentum=0.9), loss=pinball, metrics=["mae", losses.mse])
    history = model.fit(x, x[..., :1], epochs=2, validation_data=(x, x[..., :1]), verbose=0)
    assert_type(history.history, dict[str, list[float]])
    model.fit([x[0], x[1, :1]], [x[0, :, :1], x[1, :1, :1]], callbacks=[EarlyStopping()])
    model.fit(((x, x) for _ in range(3)), steps_per_epoch=3)
    assert_type(model.evaluate(x, x, sample_weight=[1.0] * 7), dict[str, float])
    assert_type(model.predict(x), Array)
    assert_type(model.predict([x[0], x[1, :1]]), Array | list[Array])
    y = model(x)
    assert_type(y, Array)
    y, states = model(x, [(x[:1], x[:1])])
    y, tape = model.forward(x, states, lengths=[2] * 7)
    dx, grads = model.backward(tape, y)
    assert_type(dx, Array | None)
    model.optimizer.step(model.parameters(), grads) if model.optimizer else None
    assert_type(fastrnn.quantize(model, calibration=x), fastrnn.Sequential)
    small = fastrnn.quantize(fastrnn.LSTM(3, 5))
    assert_type(small(x), tuple[Array, Pair])


def functional() -> None:
    """Check one's own arrays."""
    w = np.ones((20, 5))
    y, (h, c), tape = F.lstm(x, None, w[:, :3], w)
    assert_type(h, Array)
    assert_type(F.lstm_backward(tape, dstate=(h, None))[1], Pair)
    assert_type(F.gru(x, h, w[:15, :3].tolist(), w[:15])[1], Array)
    assert_type(losses.cross_entropy(y, [1, 2]), float)
    assert_type(losses.mse.value_and_grad(y, c, weight=[1.0]), tuple[float, Array])


def estimators() -> None:
    """Check models for one purpose."""
    model = Forecaster(season=12, seed=0).fit({"a": np.arange(99.0), "b": [1.0, 2.0]})
    assert_type(model, Forecaster)
    texts = TextClassifier().fit(["good", "bad"], [1, 0])
    assert_type(texts.predict(["good"]), Array)
    assert_type(CharLM().fit("abc").generate("a", 3), str)
    assert_type(fastrnn.quantize(texts), TextClassifier)
    assert_type(fastrnn.backends(), tuple[str, ...])
