"""Stages of streams: what they are made of is checked, and what of it may change between steps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastrnn._kernels import dispatch
from fastrnn._kernels.cells import CELLS, CellConfig
from fastrnn._kernels.functions import FUNCTIONS
from fastrnn._kernels.quantized import (
    INT8,
    Limits,
    QuantizedAffine,
    QuantizedTable,
    QuantizedWeights,
)
from fastrnn._kernels.stepping import converter
from fastrnn._kernels.weights import LinearWeights, Weights

B, I, H, F, V = 2, 5, 7, 19, 11
OTHERS = r"^weights: expected those with which the stream was made$"
NORM = {"function": FUNCTIONS.index("layer_norm"), "a": 1e-5, "b": 0.0}


class Source:
    """What a stage takes its weights from: those of `now`, which tests replace."""

    def __init__(self, now: Any) -> None:
        self.now = now

    def __getattr__(self, name: str) -> Any:
        return getattr(self.now, name)


def of_cell(rng: np.random.Generator, dtype: Any, I: int, cell: str = "gru") -> Weights:
    config = CellConfig(input_size=I, hidden_size=H)
    shapes = CELLS[cell].weight_shapes(config).values()
    return Weights(CELLS[cell], config, [rng.normal(size=s).astype(dtype) for s in shapes])


def of_map(rng: np.random.Generator, dtype: Any, *shape: int) -> LinearWeights:
    return LinearWeights([rng.normal(size=shape).astype(dtype), None])


def stage(kind: str, kernels: Any, dtype: Any, rows: int, rng: np.random.Generator) -> Any:
    """Return a stage of each kind, of a dtype or int8."""
    real = "f4" if dtype == INT8 else dtype
    if kind == "RowStepper":
        return kernels.RowStepper(None, np.ones((rows, F), real), **NORM)
    cell, table = of_cell(rng, real, I), rng.normal(size=(V, F)).astype(real)
    sources = {
        "Stepper": cell,
        "LinearStepper": of_map(rng, real, H, I),
        "TableStepper": SimpleNamespace(array=table),
    }
    if dtype == INT8:
        sources = {
            "Stepper": QuantizedWeights.of(cell.cell, cell.config, cell.share(), Limits()),
            "LinearStepper": QuantizedAffine.of(np.ones((H, I)), None, 1.0),
            "TableStepper": QuantizedTable.of(table),
        }
    given = (sources[kind], rows) if kind == "TableStepper" else (sources[kind], kernels, rows)
    return getattr(kernels, kind)(*given)


@pytest.mark.parametrize("kind", ["Stepper", "LinearStepper", "TableStepper", "RowStepper"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8"])
def test_a_batch_has_a_row(kind: str, dtype: str, backend: str, rng: np.random.Generator) -> None:
    key = np.dtype(dtype)
    kernels = dispatch.kernels(key)
    stage(kind, kernels, key, 1, rng)
    for rows in (0,) if kind == "RowStepper" else (0, -3):
        with pytest.raises(ValueError, match=f"^batch_size: expected at least 1, got {rows}$"):
            stage(kind, kernels, key, rows, rng)


def chain_of(stage: Any, kernels: Any, reads: int, writes: int, **options: Any) -> Any:
    return kernels.Chain([stage], converter(B, reads, writes, np.dtype("f4"), **options))


def test_a_layer_takes_only_weights_of_its_kind(
    compiled: str, rng: np.random.Generator, same_bits: Any
) -> None:
    kernels = dispatch.kernels(np.dtype("f4"))
    source = Source(of_cell(rng, "f4", I))
    stage = kernels.Stepper(source, kernels, B)
    chain, x = chain_of(stage, kernels, I, H), rng.normal(size=(B, I)).astype("f4")
    y = chain.step(x)
    for other in (
        of_cell(rng, "f4", I + 1),
        of_cell(rng, "f4", I, "lstm"),
        SimpleNamespace(packed=lambda kernels: None, copy=object()),
    ):
        source.now = other
        for _ in range(2):
            with pytest.raises(ValueError, match=OTHERS):
                chain.step(x)
        assert same_bits(stage.state[0], y)
    with pytest.raises(ValueError, match=r"^batch_size"):
        kernels.Stepper(other, kernels, B)
    # Others of the kind are taken: the same step as by a stage made of them.
    source.now = of_cell(rng, "f4", I)
    fresh = kernels.Stepper(source, kernels, B)
    fresh.state[0][...] = y
    assert same_bits(chain.step(x), chain_of(fresh, kernels, I, H).step(x))


def test_a_map_takes_only_weights_of_its_sizes(
    compiled: str, rng: np.random.Generator, same_bits: Any
) -> None:
    kernels = dispatch.kernels(np.dtype("f4"))
    source = Source(of_map(rng, "f4", H, I))
    chain = chain_of(kernels.LinearStepper(source, kernels, B), kernels, I, H)
    x = rng.normal(size=(B, I)).astype("f4")
    chain.step(x)
    for other in (
        of_map(rng, "f4", H, I + 1),
        of_map(rng, "f4", H + 1, I),
        SimpleNamespace(packed=lambda kernels: None, copy=object()),
    ):
        source.now = other
        with pytest.raises(ValueError, match=OTHERS):
            chain.step(x)
    with pytest.raises(ValueError, match=r"^batch_size"):
        kernels.LinearStepper(other, kernels, B)
    source.now = of_map(rng, "f4", H, I)
    fresh = chain_of(kernels.LinearStepper(source, kernels, B), kernels, I, H)
    assert same_bits(chain.step(x), fresh.step(x))


@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")  # that is what is tried
@pytest.mark.parametrize("kind", ["TableStepper", "RowStepper"])
def test_a_table_is_checked_at_each_step(
    kind: str, compiled: str, rng: np.random.Generator, same_bits: Any
) -> None:
    """By the kernels themselves, if the source does not see it."""
    kernels = dispatch.kernels(np.dtype("f4"))
    rows = V if kind == "TableStepper" else 2
    table = SimpleNamespace(array=rng.normal(size=(rows, F)).astype("f4"))
    if kind == "TableStepper":
        stage, x = kernels.TableStepper(table, B), rng.integers(0, V, B)
        chain = chain_of(stage, kernels, 1, F, vocabulary=V)
    else:
        x = rng.normal(size=(B, F)).astype("f4")
        chain = chain_of(kernels.RowStepper(table, x, **NORM), kernels, F, F)
    want = chain.step(x)
    table.array.shape = F, rows
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"^table: expected a C-contiguous .*\({rows}, {F}\)"):
            chain.step(x)
    table.array.shape = rows, F
    assert same_bits(chain.step(x), want)


def test_arrays_that_a_conversion_returns_are_checked(compiled: str) -> None:
    """It runs Python code: the kernels read and write what fits, or nothing."""
    kernels = dispatch.kernels(np.dtype("f4"))
    linear = kernels.LinearStepper(LinearWeights([np.ones((H, I), "f4"), None]), kernels, B)
    table = kernels.TableStepper(SimpleNamespace(array=np.ones((V, F), "f4")), B)
    x, y, tokens = np.ones((B, I), "f4"), np.zeros((B, H), "f4"), np.zeros(B, np.intp)
    z = np.zeros((B, F), "f4")
    for stage, given, said in (
        (linear, (x[:, 1:], y), rf"^x_t: expected a C-contiguous float32 array of {B * I} numbers"),
        (linear, (x, y[1:]), rf"^out: expected a C-contiguous float32 array of {B * H} numbers"),
        (linear, (x, y.astype("f8")), rf"^out: expected a C-contiguous float32 array of {B * H}"),
        (table, (tokens[1:], y), rf"^x_t: expected a C-contiguous intp array of {B} numbers"),
        (table, (np.array([0, V]), z), rf"^x_t: expected whole numbers in 0\.\.{V - 1}, got {V}$"),
        (table, (np.array([-1, 0]), z), rf"^x_t: expected whole numbers in 0\.\.{V - 1}, got -1$"),
        (table, (tokens.astype("u1"), y), rf"^x_t: expected a C-contiguous intp array of {B}"),
    ):
        chain = kernels.Chain([stage], lambda x_t, out, given=given: (*given, None, None))
        with pytest.raises((ValueError, TypeError), match=said):
            chain.step(None)
    assert not y.any()
    assert not z.any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.5}, {"temperature": np.inf}, {"temperature": np.nan}, {"top_k": 0},
        {"top_k": V + 1}, {"never": -2}, {"never": V},
    ],
)  # fmt: skip
def test_sampling_is_checked(wrong: dict[str, Any], compiled: str) -> None:
    kernels = dispatch.kernels(np.dtype("f4"))
    right = {"temperature": 1.0, "top_k": V, "never": -1}
    table = kernels.TableStepper(SimpleNamespace(array=np.eye(V, dtype="f4")), 1)
    convert = converter(1, 1, V, np.dtype("f4"), vocabulary=V)
    logits = np.zeros(V, "f4")
    chain = kernels.Chain([table], convert)
    # The middle one of equals; then, as that has e in e + 10, the fourth of the others.
    assert chain.sample(logits, [0.5, 0.5], **right).tolist() == [5, 3]
    said = rf"^temperature, top_k, never: expected a finite number, 1\.\.{V} and -1\.\.{V - 1}, got"
    with pytest.raises(ValueError, match=said):
        chain.sample(logits, [0.5], **right | wrong)


def test_only_a_row_of_tokens_is_sampled(compiled: str) -> None:
    kernels = dispatch.kernels(np.dtype("f4"))
    linear = kernels.LinearStepper(LinearWeights([np.eye(V, dtype="f4"), None]), kernels, 1)
    square = SimpleNamespace(array=np.eye(V, dtype="f4"))
    wide = SimpleNamespace(array=np.ones((V, V + 1), "f4"))
    for stage in (linear, kernels.TableStepper(square, 2), kernels.TableStepper(wide, 1)):
        chain = kernels.Chain([stage], None)
        with pytest.raises(ValueError, match=r"^stream: expected one row of tokens, and a logit"):
            chain.sample(np.zeros(V, "f4"), [0.5], temperature=1.0, top_k=1)
