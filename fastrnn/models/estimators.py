"""Common parts of the estimators: settings, networks and their training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from fastrnn import _checks
from fastrnn._core import generators
from fastrnn._files import model_file
from fastrnn._kernels import cells
from fastrnn._kernels.quantized import INT8, REAL, SCALE, QuantizedWeights
from fastrnn._types import Array
from fastrnn.layers import RECURRENT, Dropout, Linear, Softmax
from fastrnn.layers.base import Layer
from fastrnn.models.history import History
from fastrnn.models.sequential import Sequential
from fastrnn.optim import Adam

#: The recurrent layers by family, in the order of the cells.
CELLS: dict[str, Any] = {c.family: RECURRENT[c.family] for c in cells.CELLS.values()}

#: Checks a setting, and raises an error that names it.
Check = Callable[[Any, str], Any]


class Settings(model_file.Model):
    """A dataclass whose fields are checked whenever they are set.

    A change takes effect at the next ``fit``; a fitted model keeps a copy of the settings that it
    was fitted with.
    """

    #: The check of each of the constructor's arguments.
    _CHECKS: ClassVar[Mapping[str, Check]]

    #: What scikit-learn takes it for: "classifier", or None.
    _estimator_type: ClassVar[str | None] = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Check settings, and refuse unknown attributes of the library's own classes."""
        kind = type(self)
        check = self._CHECKS.get(name)
        if check is not None:
            check(value, name)
        elif isinstance(getattr(kind, name, None), property):
            raise AttributeError(f"{kind.__name__}.{name}: is read-only, it is set by fit")
        elif name[0] != "_" and "_CHECKS" in vars(kind):
            expected = f"expected one of {', '.join(self._CHECKS)}"
            hint = _checks.near(name, self._CHECKS)
            raise AttributeError(f"{kind.__name__}.{name}: is not a setting, {expected}{hint}")
        super().__setattr__(name, value)

    # scikit-learn's, with which ``clone``, pipelines, cross-validation and grid searches work.

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's arguments, as scikit-learn's estimators do.

        Parameters
        ----------
        deep : bool
            Has no effect, as no setting is an estimator.
        """
        _checks.flag(deep, "deep")
        return self._settings()

    def set_params(self, **params: Any) -> Self:
        """Change settings; all of them, or, if one is refused, none.

        Parameters
        ----------
        **params
            Arguments of the constructor.

        Returns
        -------
        Settings
            Itself.

        Raises
        ------
        ValueError
            If there is no such setting, or a value is refused.
        """
        before = self._settings()
        for name in params:
            if name not in before:
                expected = f"expected one of {', '.join(before)}"
                hint = _checks.near(name, before)
                raise ValueError(
                    f"{type(self).__name__}.{name}: is not a setting, {expected}{hint}"
                )
        try:
            for name, value in params.items():
                setattr(self, name, value)
        except Exception:
            for name, value in before.items():
                setattr(self, name, value)
            raise
        return self

    def _settings(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: getattr(self, field.name) for field in fields if field.init}

    def __sklearn_tags__(self) -> Any:
        """Return what scikit-learn asks of an estimator before it uses one."""
        from sklearn.base import BaseEstimator

        tags = BaseEstimator().__sklearn_tags__()
        tags.estimator_type = self._estimator_type
        tags.target_tags.required = self._estimator_type is not None
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return getattr(self, "_fit", None) is not None

    def _unfitted(self) -> Self:
        """Return an unfitted copy, whatever a subclass's constructor takes."""
        fitted = {field.name for field in dataclasses.fields(self) if not field.init}  # type: ignore[arg-type]
        clone = object.__new__(type(self))
        vars(clone).update({name: v for name, v in vars(self).items() if name not in fitted})
        return clone


def seed_setting(value: Any, name: str) -> None:
    """Check a setting `seed`."""
    _checks.seed(value)


def precision_setting(value: Any, name: str) -> None:
    """Check a setting `matmul_precision`."""
    _checks.choice(value, name, _checks.PRECISIONS)


def or_none(check: Check) -> Check:
    """Return a check that accepts None too."""
    return lambda value, name: None if value is None else check(value, name)


def cell(value: Any, name: str = "cell") -> Any:
    """Return the class of the recurrent layer of this name."""
    return CELLS[_checks.choice(value, name, CELLS)]


def seeds(seed: int | None, n: int) -> list[int]:
    """Return `n` independent seeds derived from one."""
    sequence = generators.random().SeedSequence(_checks.seed(seed))
    return [int(s) for s in sequence.generate_state(n, np.uint64)]


def last_step_net(
    first: Sequence[Layer],
    kind: str,
    input_size: int,
    hidden_size: int,
    outputs: int,
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
    dropout: float = 0.0,
    return_sequences: bool = False,
    matmul_precision: str = "float32",
    dtype: Any = np.float32,
    seed: int | None = None,
) -> Sequential:
    """Return a network of `first`, recurrent layers, dropout, and a linear map of the last step.

    With `return_sequences`, it is of each step.
    """
    _checks.fraction(dropout, "dropout")
    num_layers = _checks.size(num_layers, "num_layers")
    for_recurrent, for_dropout, for_linear, for_training = seeds(seed, 4)
    recurrent = cell(kind)(
        input_size,
        hidden_size,
        num_layers,
        dropout=dropout if num_layers > 1 else 0.0,
        bidirectional=bidirectional,
        return_sequences=return_sequences,
        dtype=dtype,
        seed=for_recurrent,
    )
    features = hidden_size * (2 if bidirectional else 1)
    head = [
        Dropout(dropout, seed=for_dropout),
        Linear(features, outputs, dtype=dtype, seed=for_linear),
    ]
    net = Sequential([*first, recurrent, *head], seed=for_training)
    net.matmul_precision = matmul_precision
    return net


def holdout(target: Array, fraction: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Split rows into those to train on and those held out, at random.

    Parameters
    ----------
    target : (n, ...) array
        Of one axis and not floats, it holds classes: each gives its share of the rows held out,
        but always keeps one to train on.
    fraction : float
        Of the rows held out, above 0 and under 1; rounded up, as scikit-learn does.
    rng : Generator

    Returns
    -------
    train, held : (n - m,) and (m,) arrays of int
        Indices, in order.

    Raises
    ------
    ValueError
        If nothing can be held out: n is 1, or each row is the only one of its class.
    """
    n = len(target)
    classes = target if target.ndim == 1 and target.dtype.kind != "f" else np.zeros(n)
    _, of, counts = np.unique(classes, return_inverse=True, return_counts=True)
    if n <= len(counts):
        raise ValueError(
            f"X: expected {len(counts) + 1} sequences or more, one of each class to train on and "
            f"others to hold out, got {n}"
        )
    wanted = min(math.ceil(fraction * n), n - len(counts))
    share = counts * (wanted / n)
    taken = np.minimum(np.floor(share).astype(int), counts - 1)
    while (left := wanted - taken.sum()) > 0:
        # To those furthest below their share, ties at random.
        due = np.where(taken < counts - 1, share - taken, -np.inf) + rng.random(len(counts)) * 1e-9
        taken[np.argsort(-due)[: min(left, np.count_nonzero(taken < counts - 1))]] += 1
    order = rng.permutation(n)
    rank = np.empty(n, int)
    for k in range(len(counts)):
        rank[order[of[order] == k]] = np.arange(counts[k])
    held = rank < taken[of]
    return np.flatnonzero(~held), np.flatnonzero(held)


def fit(
    net: Sequential, optimizer: Adam, loss: str, x: Any, y: Any, *, metrics: Sequence[str] = (),
    **options: Any,
) -> History:  # fmt: skip
    """Train a network, and keep nothing of the training in it but the weights."""
    net.compile(optimizer, loss, metrics)
    try:
        return net.fit(x, y, **options)
    finally:
        # The optimizer's state is twice the size of the weights, and no longer needed.
        net.compile("adam", loss, metrics)


def to_the_end(history: History) -> History:
    """Raise KeyboardInterrupt if it ended the training, so that no half-trained network is kept."""
    if history.interrupted:
        raise KeyboardInterrupt
    return history


def softmax(logits: Array) -> Array:
    """Return exp(z) / sum exp(z) over the last axis, in float64."""
    return Softmax()(logits.astype(np.float64, copy=False))


def adam(lr: float, clip_norm: float, examples: int, batch_size: int, epochs: int) -> Adam:
    """Return Adam with its learning rate decaying to 0 along a half cosine over all epochs."""
    # Imported when it is first needed: inference starts faster without.
    from fastrnn.schedules import CosineDecay

    steps = epochs * -(-examples // batch_size)
    return Adam(CosineDecay(_checks.positive(lr, "lr"), steps), clip_norm=clip_norm)


def expect_token_net(
    tensors: Mapping[str, Array],
    names: tuple[str, str, str],
    kind: str,
    *,
    tokens: int,
    embedding_dim: int,
    hidden_size: int,
    num_layers: int,
    outputs: int,
    bidirectional: bool = False,
    quantized: bool = False,
) -> None:
    """Raise if tensors are not those of an embedding, recurrent and linear layer.

    Called before layers of these sizes, which an untrusted file claims, are constructed. `names`
    holds the prefix of each layer.
    """
    embedding, recurrent, linear = names
    E, H, D = embedding_dim, hidden_size, 1 + bool(bidirectional)
    # A layer's cells differ in what they compute, not in their weights.
    of_layer = cells.CELLS[next(iter(cell(kind).cells))]
    shapes: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    tables: dict[str, tuple[int, ...]] = {embedding: (tokens, E), linear: (outputs, D * H)}
    for name, shape in tables.items():
        shapes[f"{name}.weight"] = shape, INT8 if quantized else REAL
        if quantized:
            shapes[f"{name}.weight{SCALE}"] = shape[:1], REAL
    shapes[f"{linear}.bias"] = (outputs,), REAL
    if quantized:
        shapes[f"{linear}.limit"] = (1,), REAL
    # A file that claims more layers than it has tensors is refused below.
    for layer in range(min(num_layers, len(tensors))):
        config = cells.CellConfig(input_size=D * H if layer else E, hidden_size=H)
        of_scan = {n: (shape, REAL) for n, shape in of_layer.weight_shapes(config).items()}
        if quantized:
            of_scan = QuantizedWeights.shapes(of_layer, config)
        for name, expected in of_scan.items():
            for direction in ("", "_reverse")[:D]:
                shapes[f"{recurrent}.{name}_l{layer}{direction}"] = expected
    if shapes.keys() != tensors.keys():
        raise ValueError(f"tensors: expected {sorted(shapes)}, got {sorted(tensors)}")
    for name, (shape, dtype) in shapes.items():
        _checks.expect_dtype(tensors[name], name, dtype)
        _checks.expect_shape(tensors[name], name, shape)
