"""Optimizers: torch's formulas, step by step, and errors."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import optim
from fastrnn._kernels.row_gradient import RowGradient
from fastrnn.optim import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    CosineDecay,
    ExponentialDecay,
    Optimizer,
    RMSprop,
    StepDecay,
    WarmUp,
    clip_norm,
)

#: "w" is larger than a block of the reference, and of a sum of squares.
SHAPES = {"w": (129, 131), "b": (4,), "s": (), "none": (0, 3)}
SMALL = {"w": (4, 3), "b": (4,), "s": ()}

#: Options, with the same names in torch.optim.
OPTIONS: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "sgd": (SGD, {"lr": 0.1}),
    "sgd-decay": (SGD, {"lr": 0.1, "weight_decay": 0.3}),
    "sgd-momentum": (SGD, {"lr": 0.1, "momentum": 0.9}),
    "sgd-nesterov": (
        SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    ),
    "adam": (Adam, {"lr": 0.05}),
    "adam-options": (Adam, {"lr": 0.05, "betas": (0.7, 0.8), "eps": 1e-3, "weight_decay": 0.1}),
    "adamw": (AdamW, {"lr": 0.05}),
    "adamw-options": (AdamW, {"lr": 0.05, "betas": (0.7, 0.8), "eps": 1e-3, "weight_decay": 0.3}),
    "rmsprop": (RMSprop, {}),
    "rmsprop-centered": (RMSprop, {"centered": True, "alpha": 0.9, "eps": 1e-4}),
    "rmsprop-momentum": (RMSprop, {"momentum": 0.8, "weight_decay": 0.1}),
    "rmsprop-all": (RMSprop, {"centered": True, "momentum": 0.8, "weight_decay": 0.1}),
    "adagrad": (Adagrad, {}),
    "adagrad-options": (
        Adagrad,
        {
            "lr": 0.1,
            "lr_decay": 0.01,
            "weight_decay": 0.1,
            "initial_accumulator_value": 0.2,
            "eps": 1e-3,
        },
    ),
}


def arrays(
    rng: np.random.Generator, dtype: Any = np.float64, shapes: Any = SMALL
) -> dict[str, np.ndarray]:
    return {name: np.array(rng.standard_normal(s), dtype) for name, s in shapes.items()}


class Theirs:
    """The same steps in torch: clipping by value and norm, the optimizer and a schedule."""

    def __init__(self, name: str, params: Any, clip: dict[str, float], options: Any) -> None:
        self.torch = pytest.importorskip("torch")
        self.params = {
            n: self.torch.nn.Parameter(self.torch.from_numpy(p.copy())) for n, p in params.items()
        }
        self.optimizer = getattr(self.torch.optim, name)(self.params.values(), **options)
        self.clip, self.schedule = clip, None

    def step(self, grads: dict[str, np.ndarray]) -> None:
        for n, p in self.params.items():
            p.grad = self.torch.from_numpy(grads[n].copy())
        utils = self.torch.nn.utils
        if "clip_value" in self.clip:
            utils.clip_grad_value_(self.params.values(), self.clip["clip_value"])
        if "clip_norm" in self.clip:
            utils.clip_grad_norm_(self.params.values(), self.clip["clip_norm"])
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()

    def expect(self, params: dict[str, np.ndarray], **tight: float) -> None:
        for n, p in self.params.items():
            np.testing.assert_allclose(params[n], p.detach().numpy(), **tight)


@pytest.mark.parametrize("clip", [{}, {"clip_norm": 3.0}, {"clip_norm": 2.0, "clip_value": 0.5}])
@pytest.mark.parametrize("name", OPTIONS)
def test_200_steps_against_torch(
    name: str, clip: dict[str, float], backend: str, rng: np.random.Generator
) -> None:
    make, options = OPTIONS[name]
    params = arrays(rng, shapes=SHAPES)
    theirs = Theirs(make.__name__, params, clip, options)
    optimizer = make(**options, **clip)
    for _ in range(200):
        grads = arrays(rng, shapes=SHAPES)
        optimizer.step(params, grads)
        theirs.step(grads)
    theirs.expect(params, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPTIONS)
def test_what_is_not_finite_against_torch(
    name: str, dtype: str, backend: str, rng: np.random.Generator
) -> None:
    make, options = OPTIONS[name]
    params = arrays(rng, dtype)
    theirs = Theirs(make.__name__, params, {}, options)
    optimizer = make(**options)
    for step in range(12):
        grads = arrays(rng, dtype)
        if step == 9:
            grads["w"][1, 1] = np.nan
            grads["b"][2] = np.inf
        optimizer.step(params, grads)
        theirs.step(grads)
        theirs.expect(params, rtol=100 * np.finfo(dtype).eps, atol=10 * np.finfo(dtype).eps)


#: Our schedule, and torch's for an optimizer.
SCHEDULES = {
    "step": (StepDecay(0.1, 30, 0.5), lambda s, o: s.StepLR(o, 30, 0.5)),
    "exponential": (ExponentialDecay(0.1, 0.99), lambda s, o: s.ExponentialLR(o, 0.99)),
    "exponential-slow": (
        ExponentialDecay(0.1, 0.5, 40),
        lambda s, o: s.ExponentialLR(o, 0.5 ** (1 / 40)),
    ),
    "cosine": (CosineDecay(0.1, 200, 0.01), lambda s, o: s.CosineAnnealingLR(o, 200, 0.01)),
    "warm-up": (WarmUp(0.1, 50, 0.2), lambda s, o: s.LinearLR(o, 0.2, 1.0, 50)),
    "warm-up-cosine": (
        WarmUp(CosineDecay(0.1, 150), 50, 0.1),
        lambda s, o: s.SequentialLR(
            o, [s.LinearLR(o, 0.1, 1.0, 50), s.CosineAnnealingLR(o, 150)], [50]
        ),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")  # of torch, by itself
def test_schedules_against_torch(name: str, rng: np.random.Generator) -> None:
    schedule, make = SCHEDULES[name]
    params = arrays(rng)
    theirs = Theirs("Adam", params, {}, {"lr": 0.1})
    theirs.schedule = make(theirs.torch.optim.lr_scheduler, theirs.optimizer)
    optimizer = Adam(schedule)
    for _ in range(200):
        grads = arrays(rng)
        optimizer.step(params, grads)
        theirs.step(grads)
        theirs.expect(params, rtol=1e-9, atol=1e-12)


def test_schedules_by_hand() -> None:
    assert [StepDecay(8, 2, 0.5)(n) for n in range(5)] == [8, 8, 4, 4, 2]
    assert [ExponentialDecay(8, 0.5, 2)(n) for n in (0, 2, 4)] == [8, 4, 2]
    for growing in (ExponentialDecay(8, 2), StepDecay(8, 1, 2.0)):
        with pytest.raises(ValueError, match="step: expected a finite rate, got 8 "):
            growing(5000)
    assert CosineDecay(1, 10, 0.2)(10) == CosineDecay(1, 10, 0.2)(99) == 0.2
    assert [WarmUp(8, 4)(n) for n in range(6)] == [0, 2, 4, 6, 8, 8]
    assert WarmUp(StepDecay(8, 1, 0.5), 2)(4) == 2


@pytest.mark.parametrize("max_norm", [0.5, 3.0, 1e6, float("inf")])
@pytest.mark.parametrize("wrong", [None, np.nan, np.inf])
def test_clip_norm_against_torch(
    max_norm: float, wrong: float | None, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    grads = arrays(rng)
    if wrong is not None:
        grads["w"][0, 1] = wrong
    theirs = [torch.nn.Parameter(torch.zeros(s, dtype=torch.float64)) for s in SMALL.values()]
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
    with pytest.raises(TypeError, match="grads w: expected a writeable NumPy array, got list"):
        clip_norm({"w": [1.0]}, 1)  # type: ignore[dict-item]
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
    # After one step m / (1 - b1) = g and v / (1 - b2) = g^2, so that Adam's step is lr sign(g).
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


def again(optimizer: Optimizer, make: type[Optimizer], options: Any) -> Optimizer:
    resumed = make(**options)
    resumed.load_state_dict(optimizer.state_dict())
    return resumed


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize(
    "renew", [lambda o, *_: pickle.loads(pickle.dumps(o)), lambda o, *_: copy.deepcopy(o), again]
)
def test_goes_on_where_it_was(name: str, renew: Any, rng: np.random.Generator) -> None:
    make, options = OPTIONS[name]
    one = make(**options)
    params = arrays(rng, shapes=SHAPES)
    for _ in range(3):
        one.step(params, arrays(rng, shapes=SHAPES))
    two, same = renew(one, make, options), copy.deepcopy(params)
    np.testing.assert_equal(two.state_dict(), one.state_dict())
    for _ in range(2):
        grads = arrays(rng, shapes=SHAPES)
        one.step(params, grads)
        two.step(same, grads)
    np.testing.assert_equal(same, params)
    np.testing.assert_equal(two.state_dict(), one.state_dict())


def test_state_dict_has_torch_names(rng: np.random.Generator) -> None:
    optimizer = Adam()
    assert optimizer.state_dict() == {"steps": 0}
    optimizer.step(arrays(rng), arrays(rng))
    state = optimizer.state_dict()
    assert state.keys() == {"steps"} | {
        f"{slot}.{n}" for slot in ("exp_avg", "exp_avg_sq") for n in SMALL
    }
    state["exp_avg.w"][...] = 0  # a copy
    assert optimizer.state_dict()["exp_avg.w"].all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"steps": None}, ValueError, "state_dict: expected steps"),
        ({"steps": -1}, ValueError, "state_dict: expected steps"),
        ({"steps": 0.5}, ValueError, "state_dict: expected steps"),
        ({"exp_avg_sq.b": None}, ValueError, "state_dict: expected exp_avg, exp_avg_sq of each"),
        ({"sum.b": np.zeros(4)}, ValueError, "state_dict: expected exp_avg, exp_avg_sq of each"),
        ({"exp_avg_sq.b": np.zeros(3)}, ValueError, r"exp_avg_sq.b: expected shape \(4,\)"),
        (
            {"exp_avg_sq.b": np.zeros(4, int)},
            ValueError,
            "exp_avg_sq.b: expected float32 or float64",
        ),
    ],
)
def test_state_dicts_are_checked(
    change: Any, error: type[Exception], message: str, rng: np.random.Generator
) -> None:
    optimizer = Adam()
    optimizer.step(arrays(rng), arrays(rng))
    before = optimizer.state_dict()
    with pytest.raises(error, match=message):
        optimizer.load_state_dict({n: a for n, a in (before | change).items() if a is not None})
    np.testing.assert_equal(optimizer.state_dict(), before)
    with pytest.raises(TypeError, match="state_dict: expected a mapping"):
        optimizer.load_state_dict([])  # type: ignore[arg-type]


def test_any_layout_of_parameters(backend: str, rng: np.random.Generator) -> None:
    """Transposed, strided and mixed parameters change as contiguous ones do."""
    shapes = {"a": (140, 130), "b": (6,), "c": (3, 2)}
    plain = arrays(rng, shapes=shapes)
    params = {
        "a": np.asfortranarray(plain["a"]),
        "b": np.repeat(plain["b"], 2)[::2],
        "c": plain["c"].astype(np.float32),
    }
    one, two = Adam(0.1, clip_norm=5.0), Adam(0.1, clip_norm=5.0)
    for _ in range(3):
        grads = arrays(rng, shapes=shapes)
        one.step(plain, grads)
        two.step(params, grads)
    for name, p in plain.items():
        np.testing.assert_allclose(params[name], p, rtol=1e-6 if name == "c" else 1e-10, atol=1e-11)


@pytest.mark.parametrize("clip", [{}, {"clip_norm": 3.0, "clip_value": 0.5}])
@pytest.mark.parametrize("name", OPTIONS)
def test_kernels_against_the_reference(
    name: str, clip: dict[str, float], dtype: Any, compiled: str, rng: np.random.Generator
) -> None:
    make, options = OPTIONS[name]
    ours = arrays(rng, dtype, SHAPES)
    theirs = copy.deepcopy(ours)
    one, two = make(**options, **clip), make(**options, **clip)
    for _ in range(5):
        grads = arrays(rng, dtype, SHAPES)
        one.step(ours, grads)
        with fastrnn.use_backend("reference"):
            two.step(theirs, grads)
    eps = np.finfo(dtype).eps
    actual, expected = (ours | one.state_dict()), (theirs | two.state_dict())
    assert actual.keys() == expected.keys()
    for key, a in expected.items():
        np.testing.assert_allclose(actual[key], a, rtol=200 * eps, atol=20 * eps)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_element_has_the_same_bits_anywhere(
    name: str, dtype: Any, backend: str, rng: np.random.Generator
) -> None:
    make, options = OPTIONS[name]
    whole = arrays(rng, dtype, {"a": (103,)})
    cuts = [0, 1, 20, 37, 103]
    parts = {str(i): whole["a"][i:j].copy() for i, j in itertools.pairwise(cuts)}
    one, two = make(**options), make(**options)
    for _ in range(3):
        grads = arrays(rng, dtype, {"a": (103,)})
        one.step(whole, grads)
        two.step(parts, {str(i): grads["a"][i:j] for i, j in itertools.pairwise(cuts)})
    np.testing.assert_array_equal(np.concatenate(list(parts.values())), whole["a"])


@pytest.mark.parametrize("clip", [{}, {"clip_norm": 1.0, "clip_value": 0.5}])
@pytest.mark.parametrize("rows", [[], [0, 1, 699], [5, 6, 100, 101, 102, 400], [0]])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_gradient_by_rows_gives_the_same_bits(
    name: str, rows: Any, clip: Any, dtype: Any, backend: str, rng: np.random.Generator
) -> None:
    make, options = OPTIONS[name]
    shape = (700, 19)
    one = {"table": rng.standard_normal(shape).astype(dtype)}
    two = copy.deepcopy(one)
    by_rows, dense = make(**options, **clip), make(**options, **clip)
    for step in range(4):
        if step != 2:  # all rows have a gradient once
            values = rng.standard_normal((len(rows), 19)).astype(dtype)
            if step == 3 and rows:
                values[0, 1] = np.nan
            grad = RowGradient(np.array(rows, np.intp), values, shape)
            assert np.count_nonzero(grad.dense()) == values.size
        else:
            grad = RowGradient(np.arange(700), rng.standard_normal(shape).astype(dtype), shape)
        by_rows.apply(one, {"table": grad})
        dense.apply(two, {"table": grad.dense()})
        np.testing.assert_array_equal(one["table"], two["table"])
    np.testing.assert_equal(by_rows.state_dict(), dense.state_dict())


def test_get() -> None:
    for name, kind in optim.NAMES.items():
        assert type(optim.get(name)) is kind
    adam = Adam(0.5)
    assert optim.get(adam) is adam
    with pytest.raises(ValueError, match="optimizer: expected one of 'sgd'"):
        optim.get("adem")
    with pytest.raises(TypeError, match=r"optimizer: .*, got the class itself: pass Adam\("):
        optim.get(Adam)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("grads", "error", "message"),
    [
        (None, TypeError, "grads: expected a mapping, got NoneType"),
        ({"w": np.zeros((4, 3))}, ValueError, r"grads: missing \['b', 's'\], unexpected \[\]"),
        (
            {**{n: np.zeros(s) for n, s in SMALL.items()}, "x": 0},
            ValueError,
            r"unexpected \['x'\]",
        ),
        (
            {**{n: np.zeros(s) for n, s in SMALL.items()}, "b": np.zeros(3)},
            ValueError,
            r"grads b: expected shape \(4,\), got \(3,\)",
        ),
        (
            {**{n: np.zeros(s) for n, s in SMALL.items()}, "b": np.full(4, None)},
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
    with pytest.raises(TypeError, match="params: expected a mapping, got list"):
        optimizer.step([fixed], grads)  # type: ignore[arg-type]
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
        (lambda: Adam(betas=0.9), "betas: expected a pair of numbers, got 0.9"),
        (lambda: Adam(betas=(1, 0.9)), r"betas\[0\]: expected"),
        (lambda: Adam(betas=(0.9, -1)), r"betas\[1\]: expected"),
        (lambda: Adam(eps=-1), "eps: expected"),
        (lambda: Adam(clip_norm=0), "clip_norm: expected"),
        (lambda: Adam(clip_value=-1), "clip_value: expected"),
        (lambda: AdamW(weight_decay=-1), "weight_decay: expected"),
        (lambda: RMSprop(alpha=1), "alpha: expected"),
        (lambda: RMSprop(momentum=-1), "momentum: expected"),
        (lambda: Adagrad(lr_decay=-1), "lr_decay: expected"),
        (lambda: Adagrad(initial_accumulator_value=-1), "initial_accumulator_value: expected"),
        (lambda: StepDecay(-1, 1), "lr: expected"),
        (lambda: StepDecay(1, 0), "step_size: expected"),
        (lambda: ExponentialDecay(1, 0), "gamma: expected"),
        (lambda: CosineDecay(1, 1, -1), "final: expected"),
        (lambda: WarmUp(-1, 1), "after: expected"),
        (lambda: WarmUp(1, 1, 2), "start: expected"),
    ],
)
def test_options_are_checked(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_repr() -> None:
    assert repr(Adam(0.1, clip_norm=1)) == (
        "Adam(lr=0.1, clip_norm=1.0, clip_value=None, betas=(0.9, 0.999), eps=1e-08, "
        "weight_decay=0.0)"
    )


#: Options that may change, each with a valid and an invalid value.
FREE: dict[str, tuple[Any, Any]] = {
    "lr": (0.3, -1),
    "clip_norm": (2.0, 0),
    "clip_value": (None, -1),
    "weight_decay": (0.2, np.nan),
    "betas": ((0.5, 0.6), (1, 0.9)),
    "eps": (1e-3, -1e-3),
    "alpha": (0.5, 1),
    "lr_decay": (0.5, -1),
}
MOMENTUM = {"sgd-momentum", "sgd-nesterov", "rmsprop-momentum", "rmsprop-all"}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_may_change_are_checked_when_set(
    name: str, backend: str, rng: np.random.Generator
) -> None:
    make, options = OPTIONS[name]
    optimizer = make(**options)
    params = arrays(rng)
    optimizer.step(params, arrays(rng))
    free = FREE | ({"momentum": (0.5, -1)} if name in MOMENTUM else {})
    for option, (other, wrong) in free.items():
        if not hasattr(make, option):
            continue
        before = repr(optimizer)
        with pytest.raises((ValueError, TypeError), match=f"^{option}.*: expected"):
            setattr(optimizer, option, wrong)
        with pytest.raises((ValueError, TypeError), match=f"^{option}.*: expected"):
            setattr(optimizer, option, "much")
        assert repr(optimizer) == before
        # From here on it acts as if constructed that way.
        fresh = make(**options | {option: other})
        fresh.load_state_dict(optimizer.state_dict())
        changed, one, two = copy.deepcopy(optimizer), copy.deepcopy(params), copy.deepcopy(params)
        setattr(changed, option, other)
        assert getattr(changed, option) == other
        grads = arrays(rng)
        changed.step(one, grads)
        fresh.step(two, grads)
        np.testing.assert_equal(one, two)


@pytest.mark.parametrize("stepped", [False, True])
def test_options_that_decide_the_state_do_not_change(
    stepped: bool, backend: str, rng: np.random.Generator
) -> None:
    for optimizer, option, value in (
        (SGD(0.1), "momentum", 0.9),
        (SGD(0.1, momentum=0.9), "momentum", 0),
        (RMSprop(), "momentum", 0.9),
        (RMSprop(momentum=0.9), "momentum", 0.0),
        (RMSprop(), "centered", True),
        (RMSprop(centered=True), "centered", False),
        (Adagrad(), "initial_accumulator_value", 0.1),
    ):
        if stepped:
            optimizer.step(arrays(rng), arrays(rng))
        before = repr(optimizer)
        with pytest.raises(AttributeError, match=f"^{option}: can't be changed from .* to {value}"):
            setattr(optimizer, option, value)
        assert repr(optimizer) == before
        optimizer.step(arrays(rng), arrays(rng))
    with pytest.raises(ValueError, match="nesterov: expected a momentum"):
        SGD(0.1).nesterov = True
    optimizer = SGD(0.1, momentum=0.9)
    optimizer.nesterov = True
    params, other = {"w": np.ones(3)}, {"w": np.ones(3)}
    optimizer.step(params, {"w": np.ones(3)})
    SGD(0.1, momentum=0.9, nesterov=True).step(other, {"w": np.ones(3)})
    np.testing.assert_array_equal(params["w"], other["w"])


@pytest.mark.parametrize("name", optim.NAMES)
def test_attributes_without_effect_are_refused(name: str) -> None:
    optimizer: Any = optim.get(name)
    for attribute in ("learning_rate", "dampening", "_decoupled"):
        with pytest.raises(AttributeError, match=attribute):
            setattr(optimizer, attribute, 1)
    for attribute in ("steps", "options"):
        with pytest.raises(AttributeError, match=attribute):
            setattr(optimizer, attribute, -3)


def test_a_subclass_may_have_attributes_of_its_own() -> None:
    optimizer = Noted(0.5, note="a")
    optimizer.note = "b"
    again = pickle.loads(pickle.dumps(optimizer))
    assert (again.note, again.lr) == ("b", 0.5)
    assert repr(again).endswith("weight_decay=0.0, note='b')")
    with pytest.raises(ValueError, match="eps: expected"):
        again.eps = -1.0


class Noted(Adam):
    def __init__(self, lr: float, note: str) -> None:
        super().__init__(lr)
        self.note = note


@pytest.mark.parametrize("name", OPTIONS)
def test_a_state_that_does_not_fit_changes_nothing(
    name: str, backend: str, rng: np.random.Generator
) -> None:
    """In `apply`, which `fit` calls: a state may be loaded between two steps."""
    make, options = OPTIONS[name]
    params, grads = arrays(rng), arrays(rng)
    optimizer = make(**options)
    optimizer.apply(params, grads)
    if not options.get("momentum") and make is SGD:
        optimizer.load_state_dict({"steps": 3})  # no state of any parameter
        optimizer.apply(params, grads)
        return
    before = copy.deepcopy(params)
    for shapes, dtype, message in (
        (SMALL | {"b": (5,)}, "f8", r"params b: expected shape \(5,\), got \(4,\)"),
        (SMALL | {"w": (3, 4)}, "f8", r"params w: expected shape \(3, 4\), got \(4, 3\)"),
        (SMALL, "f4", "params w: expected dtype float32, got float64"),
        ({"w": (4, 3), "b": (4,)}, "f8", r"params: the loaded state .* has no \['s'\]"),
        ({"x": (4, 3)}, "f8", r"params: the loaded state .* has no \['b', 's', 'w'\]"),
    ):
        other = make(**options)
        other.step(arrays(rng, dtype, shapes), arrays(rng, dtype, shapes))
        optimizer.load_state_dict(other.state_dict())
        loaded = optimizer.state_dict()
        for _ in range(2):
            with pytest.raises(ValueError, match=message):
                optimizer.apply(params, grads)
        np.testing.assert_equal(params, before)
        np.testing.assert_equal(optimizer.state_dict(), loaded)


@pytest.mark.parametrize("name", OPTIONS)
def test_arrays_are_asked_again_at_each_step(
    name: str, backend: str, rng: np.random.Generator
) -> None:
    make, options = OPTIONS[name]
    remembers = make is not SGD or bool(options.get("momentum"))
    optimizer = make(**options)
    for take in (optimizer.step, optimizer.apply):
        take({"w": np.zeros(1000)}, {"w": np.ones(1000)})
        for other in (np.zeros(1000, "f4"), np.zeros(7), np.zeros((1000, 1))):
            if remembers:
                with pytest.raises(ValueError, match="params w: expected "):
                    take({"w": other}, {"w": np.ones_like(other)})
                assert not other.any()
            else:
                fresh, expected = make(**options), other.copy()
                take({"w": other}, {"w": np.ones_like(other)})
                fresh.step({"w": expected}, {"w": np.ones_like(other)})
                np.testing.assert_array_equal(other, expected)
    assert optimizer.steps == (2 if remembers else 8)


def test_an_error_in_one_dtype_leaves_the_others(backend: str) -> None:
    optimizer = Adam()
    params = {"a": np.ones(3), "b": np.ones(3, "f4")}
    grads: Any = {"a": np.ones(3), "b": np.ones(3)}
    for wrong in (np.ones(3), np.ones(2, "f4")):
        with pytest.raises(ValueError, match="grads b: expected"):
            optimizer.apply(params, grads | {"b": wrong})
    with pytest.raises(ValueError, match=r"grads: missing \['b'\]"):
        optimizer.apply(params, {"a": grads["a"]})
    np.testing.assert_equal(params, {"a": np.ones(3), "b": np.ones(3, "f4")})
    assert optimizer.steps == 0
    optimizer.apply({"a": params["a"]}, grads)
    fixed = np.ones(3)
    fixed.flags.writeable = False
    for wrong in ([1.0, 2.0, 3.0], fixed, None):
        with pytest.raises(TypeError, match="params a: expected a writeable NumPy array"):
            optimizer.apply({"a": wrong}, grads)  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"grads: expected .* got float64 \(2,\)"):
        optimizer.apply({"a": params["a"]}, {"a": np.ones(2)})
    assert optimizer.steps == 1


@pytest.mark.parametrize("name", OPTIONS)
def test_parameters_that_come_and_go(name: str, backend: str, rng: np.random.Generator) -> None:
    """As when layers are frozen and thawed: each continues as if it had been alone."""
    make, options = OPTIONS[name]
    together = make(**options)
    alone = {n: make(**options) for n in "abc"}
    params = {n: rng.standard_normal(5) for n in "abc"}
    expected = copy.deepcopy(params)
    for present in ("a", "ab", "ab", "bc", "c", "abc", "a", "abc"):
        grads = {n: rng.standard_normal(5) for n in "abc"}
        together.apply({n: params[n] for n in present}, grads)
        for n in present:
            alone[n].step({n: expected[n]}, {n: grads[n]})
        if present == "c":
            together = pickle.loads(pickle.dumps(together))
        if present == "abc":
            together = again(together, make, options)
        for n in "abc":
            np.testing.assert_allclose(params[n], expected[n], rtol=1e-12)
    assert together.steps == 8


def test_steps_of_each_parameter_are_checked() -> None:
    optimizer = Adam()
    optimizer.apply({"a": np.ones(2)}, {"a": np.ones(2)})
    optimizer.apply({"b": np.ones(2)}, {"b": np.ones(2)})
    state = optimizer.state_dict()
    assert {n: int(a) for n, a in state.items() if "step" in n} == {
        "steps": 2,
        "step.a": 1,
        "step.b": 1,
    }
    for wrong in (-1, 0.5, [1]):
        with pytest.raises(ValueError, match=r"state_dict: expected step\.a, a whole number"):
            optimizer.load_state_dict(state | {"step.a": wrong})
    with pytest.raises(ValueError, match="state_dict: expected exp_avg, exp_avg_sq of each"):
        optimizer.load_state_dict(state | {"step.c": 1})


@pytest.mark.parametrize("name", OPTIONS)
def test_states_are_copied_from_memory_of_others(
    name: str, tmp_path: Any, backend: str, rng: np.random.Generator
) -> None:
    """From read-only memory, from a memory-mapped file, or from a pickle's buffers."""
    make, options = OPTIONS[name]
    one, params = make(**options), arrays(rng)
    one.step(params, arrays(rng))
    mapped = {}
    for i, (n, a) in enumerate(one.state_dict().items()):
        np.save(tmp_path / f"{i}.npy", a)
        mapped[n] = np.load(tmp_path / f"{i}.npy", mmap_mode="r")
    two = make(**options)
    two.load_state_dict(mapped)
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(one, protocol=5, buffer_callback=buffers.append)
    three = pickle.loads(data, buffers=[bytes(b) for b in buffers])
    four = copy.copy(one)
    grads = arrays(rng)
    results = []
    for optimizer in (one, two, three, four):
        p = copy.deepcopy(params)
        optimizer.step(p, grads)
        results.append(p)
    for p in results[1:]:
        np.testing.assert_equal(p, results[0])
    for n, a in mapped.items():
        if n != "steps":
            assert not a.flags.writeable


def test_a_pickle_of_version_0_1_0() -> None:
    state = {
        "lr": 0.1,
        "clip_norm": None,
        "clip_value": None,
        "steps": 3,
        "_state": {"w": (np.full(2, 2.0),)},
        "_groups": [],
        "momentum": 0.5,
        "weight_decay": 0.0,
        "nesterov": False,
    }
    optimizer = SGD.__new__(SGD)
    optimizer.__setstate__(state)
    p = {"w": np.zeros(2)}
    optimizer.step(p, {"w": np.ones(2)})
    np.testing.assert_allclose(p["w"], -0.2)
    assert optimizer.steps == 4
