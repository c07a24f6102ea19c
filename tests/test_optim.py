"""Optimizers: torch's formulas, step by step, and what they refuse."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from fastrnn.optim import SGD, Adam, clip_norm

SHAPES = {"w": (4, 3), "b": (4,), "s": ()}

#: Ours, and the same of torch.optim by name and arguments.
PAIRS = {
    "sgd": (SGD(0.1), "SGD", {"lr": 0.1}),
    "decay": (SGD(0.1, weight_decay=0.3), "SGD", {"lr": 0.1, "weight_decay": 0.3}),
    "momentum": (SGD(0.1, 0.9), "SGD", {"lr": 0.1, "momentum": 0.9}),
    "nesterov": (
        SGD(0.1, 0.9, True, 0.01),
        "SGD",
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    ),
    "adam": (Adam(0.05), "Adam", {"lr": 0.05}),
    "adam-betas": (
        Adam(0.05, (0.7, 0.8), 1e-3),
        "Adam",
        {"lr": 0.05, "betas": (0.7, 0.8), "eps": 1e-3},
    ),
}


def arrays(rng: np.random.Generator, dtype: Any = np.float64) -> dict[str, np.ndarray]:
    return {name: np.array(rng.standard_normal(s), dtype) for name, s in SHAPES.items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PAIRS)
def test_steps_against_torch(name: str, dtype: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    optimizer, theirs_name, options = PAIRS[name]
    optimizer = copy.deepcopy(optimizer)
    params = arrays(rng, dtype)
    theirs = {n: torch.nn.Parameter(torch.from_numpy(p.copy())) for n, p in params.items()}
    reference = getattr(torch.optim, theirs_name)(theirs.values(), **options)
    tight = {"rtol": 50 * np.finfo(dtype).eps, "atol": 10 * np.finfo(dtype).eps}
    for step in range(12):
        grads = arrays(rng, dtype)
        if step == 9:
            grads["w"][1, 1] = np.nan
            grads["b"][2] = np.inf
        for n, p in theirs.items():
            p.grad = torch.from_numpy(grads[n].copy())
        optimizer.step(params, grads)
        reference.step()
        for n, p in theirs.items():
            np.testing.assert_allclose(params[n], p.detach().numpy(), **tight)


@pytest.mark.parametrize("max_norm", [0.5, 3.0, 1e6, float("inf")])
@pytest.mark.parametrize("wrong", [None, np.nan, np.inf])
def test_clip_norm_against_torch(
    max_norm: float, wrong: float | None, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    grads = arrays(rng)
    if wrong is not None:
        grads["w"][0, 1] = wrong
    theirs = [torch.nn.Parameter(torch.zeros(s, dtype=torch.float64)) for s in SHAPES.values()]
    for p, g in zip(theirs, grads.values(), strict=True):
        p.grad = torch.from_numpy(g.copy())
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    np.testing.assert_allclose(clip_norm(grads, max_norm), expected.item(), rtol=1e-12)
    for p, g in zip(theirs, grads.values(), strict=True):
        np.testing.assert_allclose(g, p.grad.numpy(), rtol=1e-12)


def test_clip_norm() -> None:
    grads = {"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}
    assert clip_norm(grads, 10) == 5
    np.testing.assert_array_equal(grads["a"], [3, 0])
    assert clip_norm(grads, 1) == 5
    np.testing.assert_allclose(grads["a"], [0.6, 0], rtol=1e-6)
    np.testing.assert_allclose(grads["b"], [[0.8]], rtol=1e-6)
    assert clip_norm({}, 1) == 0
    with pytest.raises(ValueError, match="max_norm: expected a number above 0, got 0"):
        clip_norm(grads, 0)


def test_clipping_in_a_step_leaves_the_gradients(rng: np.random.Generator) -> None:
    params, grads = arrays(rng), arrays(rng)
    before, given = copy.deepcopy(params), copy.deepcopy(grads)
    SGD(1.0, clip_norm=0.1).step(params, grads)
    moved = sum(((params[n] - before[n]) ** 2).sum() for n in params) ** 0.5
    assert moved == pytest.approx(0.1, rel=1e-5)
    np.testing.assert_equal(grads, given)


def test_clip_value_comes_first() -> None:
    params = {"a": np.zeros(3)}
    SGD(1.0, clip_value=2.0).step(params, {"a": [-5.0, 1.0, np.nan]})
    np.testing.assert_array_equal(params["a"], [2, -1, np.nan])
    params = {"a": np.zeros(2)}
    SGD(1.0, clip_value=2.0, clip_norm=1.0).step(params, {"a": [0.0, 1e9]})
    np.testing.assert_allclose(params["a"], [0, -1], rtol=1e-6)


def test_first_steps_by_hand() -> None:
    p = {"a": np.array([1.0, -2.0], np.float32)}
    array = p["a"]
    SGD(0.5).step(p, {"a": [2.0, 4.0]})
    np.testing.assert_array_equal(array, [0, -4])
    # After one step m / (1 - b1) = g and v / (1 - b2) = g^2, so that Adam goes lr sign(g).
    Adam(0.25).step(p, {"a": [3.0, -7.0]})
    np.testing.assert_allclose(array, [-0.25, -3.75], rtol=1e-6)
    assert array.dtype == np.float32


def test_lr_may_be_a_schedule() -> None:
    asked = []
    optimizer = SGD(lambda step: asked.append(step) or 1 / (step + 1))
    p = {"a": np.zeros(1)}
    for _ in range(3):
        optimizer.step(p, {"a": [1.0]})
    assert asked == [0, 1, 2]
    assert p["a"][0] == pytest.approx(-(1 + 1 / 2 + 1 / 3))
    with pytest.raises(ValueError, match="lr: expected"):
        SGD(lambda step: -1.0).step(p, {"a": [1.0]})


@pytest.mark.parametrize("optimizer", [SGD(0.1, 0.9), Adam()], ids=["SGD", "Adam"])
def test_pickle_goes_on_where_it_was(optimizer: Any, rng: np.random.Generator) -> None:
    one = copy.deepcopy(optimizer)
    params, grads = arrays(rng), arrays(rng)
    one.step(params, grads)
    two, same = pickle.loads(pickle.dumps(one)), copy.deepcopy(params)
    one.step(params, grads)
    two.step(same, grads)
    np.testing.assert_equal(same, params)


@pytest.mark.parametrize(
    ("grads", "error", "message"),
    [
        ({"w": np.zeros((4, 3))}, ValueError, r"grads: missing \['b', 's'\], unexpected \[\]"),
        (
            {**{n: np.zeros(s) for n, s in SHAPES.items()}, "x": 0},
            ValueError,
            r"unexpected \['x'\]",
        ),
        (
            {**{n: np.zeros(s) for n, s in SHAPES.items()}, "b": np.zeros(3)},
            ValueError,
            r"grads b: expected shape \(4,\), got \(3,\)",
        ),
        (
            {**{n: np.zeros(s) for n, s in SHAPES.items()}, "b": np.full(4, None)},
            TypeError,
            "grads b: expected an array of real numbers",
        ),
    ],
)
def test_wrong_gradients_change_nothing(
    grads: Any, error: type[Exception], message: str, rng: np.random.Generator
) -> None:
    params = arrays(rng)
    before = copy.deepcopy(params)
    optimizer = Adam()
    with pytest.raises(error, match=message):
        optimizer.step(params, grads)
    np.testing.assert_equal(params, before)
    assert optimizer.steps == 0


def test_parameters_are_checked(rng: np.random.Generator) -> None:
    grads = arrays(rng)
    optimizer = Adam()
    optimizer.step(arrays(rng), grads)
    with pytest.raises(ValueError, match="params: expected those of the first step"):
        optimizer.step({"w": np.zeros((4, 3))}, {"w": grads["w"]})
    with pytest.raises(ValueError, match=r"params b: expected shape \(4,\), got \(3,\)"):
        optimizer.step(
            {**arrays(rng), "b": np.zeros(3)},
            {**grads, "b": np.zeros(3)},
        )
    fixed = np.zeros(2)
    fixed.flags.writeable = False
    for wrong in ([1.0, 2.0], fixed):
        with pytest.raises(TypeError, match="params a: expected a writeable NumPy array"):
            SGD(0.1).step({"a": wrong}, {"a": np.zeros(2)})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(-1), "lr: expected"),
        (lambda: SGD(np.nan), "lr: expected"),
        (lambda: SGD(1, momentum=-1), "momentum: expected"),
        (lambda: SGD(1, nesterov=True), "nesterov: expected a momentum"),
        (lambda: SGD(1, weight_decay=-1), "weight_decay: expected"),
        (lambda: Adam(betas=(1, 0.9)), r"betas\[0\]: expected"),
        (lambda: Adam(betas=(0.9, -1)), r"betas\[1\]: expected"),
        (lambda: Adam(eps=-1), "eps: expected"),
        (lambda: Adam(clip_norm=0), "clip_norm: expected"),
        (lambda: Adam(clip_value=-1), "clip_value: expected"),
    ],
)
def test_options_are_checked(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_repr() -> None:
    assert repr(Adam(0.1, clip_norm=1)) == (
        "Adam(lr=0.1, clip_norm=1.0, clip_value=None, betas=(0.9, 0.999), eps=1e-08)"
    )
