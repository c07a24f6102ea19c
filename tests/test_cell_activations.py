"""Cells with other activations than their own, with clipping, and with coupled gates."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn._kernels.activations import ACTIVATIONS, Activation, activation, activations
from fastrnn._kernels.reference.arithmetic import activated

#: Each activation, in several forms, some of them with parameters for which it has several kinks.
FORMS = [
    *(Activation(n, *d) for n, d in ACTIVATIONS.items() if None not in d),
    Activation("affine", -1.5, 0.25),
    Activation("leaky_relu", -0.5),
    Activation("thresholded_relu", 0.75),
    Activation("thresholded_relu", -0.75),
    Activation("scaled_tanh", 1.7159, 2 / 3),
    Activation("hard_sigmoid", 1 / 6, 0.5),
    Activation("hard_sigmoid", -0.3, 0.4),
    Activation("elu", 1.75),
]

# The formulas of ONNX's operators RNN, GRU and LSTM, in a wider float.
TRUE: dict[str, Any] = {
    "relu": lambda x, a, b: np.maximum(0, x),
    "tanh": lambda x, a, b: np.tanh(x),
    "sigmoid": lambda x, a, b: 1 / (1 + np.exp(-x)),
    "affine": lambda x, a, b: a * x + b,
    "leaky_relu": lambda x, a, b: np.where(x >= 0, x, a * x),
    "thresholded_relu": lambda x, a, b: np.where(x > a, x, 0),
    "scaled_tanh": lambda x, a, b: a * np.tanh(b * x),
    "hard_sigmoid": lambda x, a, b: np.minimum(np.maximum(a * x + b, 0), 1),
    "elu": lambda x, a, b: np.where(x >= 0, x, a * (np.exp(np.minimum(x, 0)) - 1)),
    "softsign": lambda x, a, b: x / (1 + abs(x)),
    "softplus": lambda x, a, b: np.log(1 + np.exp(x)),
}


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("clip", [np.inf, 1.25])
def test_values_and_slopes_of_the_reference(form, clip):
    x = np.linspace(-7, 7, 1401) + 1e-3  # no kink within STEP of a point
    value, slope = activated(form, x, clip)
    wide = np.clip(x.astype(np.longdouble), -clip, clip)
    want = TRUE[form.name](wide, form.alpha, form.beta)
    np.testing.assert_allclose(value, want.astype(float), rtol=1e-14, atol=1e-16)
    step = 1e-6
    moved = [activated(form, x + sign * step, clip).value for sign in (1, -1)]
    central = (moved[0] - moved[1]) / (2 * step)
    np.testing.assert_allclose(slope, central, rtol=0, atol=1e-8)


# At each kink torch's gradient there: of F.relu, F.leaky_relu, F.threshold, F.hardsigmoid, F.elu;
# and of torch.clamp.
KINKS = [
    (Activation("relu"), np.inf, 0.0, 0.0),
    (Activation("leaky_relu", 0.25), np.inf, 0.0, 0.25),
    (Activation("thresholded_relu", 0.5), np.inf, 0.5, 0.0),
    (Activation("hard_sigmoid", 0.25, 0.5), np.inf, 2.0, 0.0),
    (Activation("hard_sigmoid", 0.25, 0.5), np.inf, -2.0, 0.0),
    (Activation("elu", 1.5), np.inf, 0.0, 1.5),
    (Activation("affine", 3.0, 1.0), 2.0, 2.0, 3.0),
    (Activation("affine", 3.0, 1.0), 2.0, -2.0, 3.0),
    (Activation("affine", 3.0, 1.0), 2.0, 2.0 + 1e-6, 0.0),
]


@pytest.mark.parametrize(("form", "clip", "x", "slope"), KINKS)
def test_slopes_at_kinks_are_torchs(form, clip, x, slope):
    assert activated(form, np.array([x]), clip).slope == [slope]


# -- arguments -----------------------------------------------------------------------------------


def test_forms_of_an_activation():
    for given in ("tanh", ["tanh"], ("tanh", None, None), Activation("tanh")):
        assert activation(given) == Activation("tanh", 0, 0)
        assert activation(given).shown == "tanh"
    for given in ("hard_sigmoid", ["hard_sigmoid", 0.2], ("hard_sigmoid", None, 0.5)):
        assert activation(given).shown == ("hard_sigmoid", 0.2, 0.5)
    assert activation(("elu", np.float32(0.5))).shown == ("elu", 0.5)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ("HardSigmoid", ValueError, "activations: expected one of .*, got 'HardSigmoid'; did you "),
        (3, ValueError, "activations: expected one of 'relu', .*, got 3"),
        ([], ValueError, "activations: expected one of 'relu', .*, got None"),
        (("tanh", 0.5), ValueError, "activations: 'tanh' has no alpha, got 0.5"),
        (("elu", 1, 2), ValueError, "activations: 'elu' has no beta, got 2"),
        ("scaled_tanh", ValueError, r"activations: expected \('scaled_tanh', alpha, beta\), which"),
        (("affine", 1, 2, 3), ValueError, r"activations: expected \(name, alpha, beta\), got"),
        (("affine", "1"), TypeError, "activations, alpha of 'affine': expected a finite number, g"),
        (("affine", 1, np.nan), ValueError, "activations, beta of 'affine': expected a finite num"),
    ],
)
def test_refused_activations(given, error, said):
    with pytest.raises(error, match=f"^{said}"):
        activation(given)
    if given:
        with pytest.raises(error, match=f"^{said}"):
            fastrnn.GRU(2, 3, activations=["sigmoid", given])


def test_activations_of_directions():
    usual, own = ("sigmoid", "tanh"), (Activation("sigmoid"), Activation("tanh"))
    other = (Activation("softsign"), Activation("tanh"))
    assert activations(None, usual, 2) == [None, None]
    assert activations(["sigmoid", "tanh"], usual, 2) == [None, None]
    assert activations(["softsign", "tanh"], usual, 2) == [other, other]
    assert activations(["softsign", "tanh", *own], usual, 2) == [other, None]
    for wrong, got in ((["tanh"], "1"), (["tanh"] * 3, "3"), ("tanh", "'tanh'"), (5, "5")):
        with pytest.raises(ValueError, match=f"^activations: expected 2 or 4, got {got}$"):
            activations(wrong, usual, 2)
    with pytest.raises(ValueError, match=r"^activations: expected 2, got 4$"):
        activations(["tanh"] * 4, usual)
    for single in ("softsign", ["softsign"], [["softsign"]], ("softsign",)):
        assert activations(single, ["tanh"]) == [(Activation("softsign"),)]
    hard = (Activation("hard_sigmoid", 0.5, 0.5),)
    for single in (("hard_sigmoid", 0.5), [["hard_sigmoid", 0.5, 0.5]], [hard[0]]):
        assert activations(single, ["tanh"]) == [hard]


@pytest.mark.parametrize("kind", ["layer", "single"])
def test_refused_options(cell, make_layer, make_single, kind):
    make = make_layer if kind == "layer" else make_single
    for wrong, error in (
        (0, ValueError),
        (-1.0, ValueError),
        (np.inf, ValueError),
        ("1", TypeError),
    ):
        with pytest.raises(error, match=r"^clip: expected a finite number above 0, got"):
            make(cell, 2, 3, clip=wrong)
    if "input_forget" in cell.options:
        with pytest.raises(TypeError, match=r"^input_forget: expected True or False, got 'yes'"):
            make(cell, 2, 3, input_forget="yes")
    if cell.family in ("rnn", "indrnn"):
        usual = {"rnn": "tanh", "indrnn": "relu"}[cell.family]
        other = {"tanh": "relu", "relu": "tanh"}[usual]
        with pytest.raises(
            ValueError, match=f"^nonlinearity: expected '{usual}', the default, with"
        ):
            make(cell, 2, 3, nonlinearity=other, activations="softsign")


def test_an_elman_network_gets_the_cell_of_the_name():
    for layer in (fastrnn.RNN, fastrnn.IndRNN, fastrnn.RNNCell):
        for name in ("tanh", "relu"):
            for given in (name, [name], ((name,),)):
                made = layer(2, 3, activations=given)
                assert made.nonlinearity == name or given == ((name,),)
    both = fastrnn.RNN(2, 3, bidirectional=True, activations=["relu", "relu"])
    assert (both.nonlinearity, both.activations) == ("relu", None)
    with pytest.raises(ValueError, match=r"^activations: expected 1, got 3$"):
        fastrnn.RNN(2, 3, activations=["relu"] * 3)


def test_shown_and_kept(cell, make_layer, make_single, general, same_bits):
    shown = (("hard_sigmoid", 0.2, 0.5), ("leaky_relu", 0.2), ("elu", 0.6))
    for make in (make_layer, make_single):
        if make is make_single and cell.family == "indrnn":
            continue
        layer = make(cell, 2, 3, **general(cell, "kinked"))
        assert layer.activations == shown[: len(cell.activations)]
        assert layer.clip == 1.25
        assert f"activations={layer.activations!r}, clip=1.25" in repr(layer)
        assert "input_forget=True" in repr(layer) or "f" not in cell.gates
        config = json.loads(json.dumps(layer.get_config()))
        for twin in (type(layer)(**config, seed=0), pickle.loads(pickle.dumps(layer))):
            assert repr(twin) == repr(layer)
            assert twin.get_config() == layer.get_config()
            assert same_bits(twin.state_dict(), layer.state_dict())
        plain = make(cell, 2, 3)
        assert (plain.activations, plain.clip) == (None, None)
        assert not any(w.config.general for w in plain._scan_weights)


def test_directions_have_activations_of_their_own():
    layer = fastrnn.LSTM(2, 3, bidirectional=True, activations=["sigmoid", "tanh", "tanh"] * 2)
    assert layer.activations is None
    given = ["sigmoid", "tanh", "tanh", "hard_sigmoid", "tanh", "relu"]
    layer = fastrnn.LSTM(2, 3, 2, bidirectional=True, activations=given)
    assert layer.activations == (*given[:3], ("hard_sigmoid", 0.2, 0.5), "tanh", "relu")
    assert type(layer)(**layer.get_config()).activations == layer.activations


# -- what layers compute -------------------------------------------------------------------------

T, B, I, H, P = 7, 4, 3, 19, 5
LENGTHS = np.array([T, 2, 5, 6])

#: Sets of activations of gates, of a candidate, and of a cell state: together, all there are.
SETS: dict[str, list[Any]] = {
    "smooth": [("affine", 0.3, 0.5), "softplus", ("scaled_tanh", 1.7159, 2 / 3)],
    "bent": ["softsign", ("elu", 1.0), "tanh"],
    "hard": [("hard_sigmoid", 1 / 6, 0.5), ("leaky_relu", 0.2), "softsign"],
    "kinked": [("hard_sigmoid", 0.2, 0.5), ("thresholded_relu", -0.3), ("elu", 0.6)],
    "rectified": ["sigmoid", "relu", "relu"],
}
KINKED = {"hard", "kinked", "rectified"}


def chosen(cell, name: str, **more: Any) -> dict[str, Any]:
    """Return options of a layer with this set of activations."""
    usual = {"rnn": {"nonlinearity": "tanh"}, "indrnn": {"nonlinearity": "relu"}}
    return {
        **usual.get(cell.family, {}),
        "activations": SETS[name][: len(cell.activations)],
        **more,
    }


def outputs(layer, x, state, dy, **rows: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return y and states, and all gradients."""
    y, state_n, tape = layer.forward(x, state, **rows)
    dx, dstate, grads = layer.backward(tape, dy, state_n)

    def flat(states: Any) -> list[np.ndarray]:
        return list(states) if isinstance(states, tuple) else [states]

    return [y, *flat(state_n)], [dx, *flat(dstate), *grads.values()]


@pytest.mark.parametrize("name", SETS)
def test_twins_agree(cell, compiled, dtype, make_layer, options_of, rng, name):
    every = options_of(cell, P)
    # In float32 a number may round to the other side of a kink.
    kinked = dtype == np.float32 and name in KINKED
    for k, options in enumerate(every[:: max(1, len(every) - 1)]):  # none, and all
        more: dict[str, Any] = {"clip": 0.8} if k and (kinked or dtype == np.float64) else {}
        if "input_forget" in cell.options:
            more["input_forget"] = bool(k) == (name in KINKED)
        layer = make_layer(
            cell, I, H, bidirectional=True, dtype=dtype, **options, **chosen(cell, name, **more)
        )
        x = rng.normal(size=(T, B, I)).astype(dtype)
        D = 2 * (layer._config.output_size)
        states = tuple(
            rng.uniform(-1, 1, (2, B, n)).astype(dtype) for n in cell.state_sizes(layer._config)
        )
        state = states if len(states) > 1 else states[0]
        dy, reset = rng.normal(size=(T, B, D)).astype(dtype), rng.random((T, B)) < 0.2
        got = outputs(layer, x, state, dy, lengths=LENGTHS, reset=reset)
        with fastrnn.use_backend("reference"):
            want = outputs(layer, x, state, dy, lengths=LENGTHS, reset=reset)
        tolerance = (1e-13, 1e-11) if dtype == np.float64 else (4e-6, 4e-5)
        if options.get("layer_norm"):  # which amplifies
            tolerance = tuple(100 * t for t in tolerance)
        for part in range(1 if kinked else 2):
            for a, b in zip(got[part], want[part], strict=True):
                np.testing.assert_allclose(
                    a, b, rtol=0, atol=tolerance[part] * max(1, np.abs(b).max(initial=0))
                )


@pytest.mark.parametrize("name", ["smooth", "kinked"])
def test_same_bits(cell, precision, make_layer, same_bits, rng, name):
    """In steps, rows and chunks, on each backend, and on all that have fused multiply-add."""
    dtype = precision["dtype"]
    layer = make_layer(cell, I, H, num_layers=2, **precision, **chosen(cell, name, clip=1.25))
    x = rng.normal(size=(T, B, I)).astype(dtype)
    dy = rng.normal(size=(T, B, H)).astype(dtype)
    found = {}
    for backend in (b for b in fastrnn.backends() if b != "reference"):
        with fastrnn.use_backend(backend):
            y, state = layer(x)
            for b in range(B):
                assert same_bits(layer(x[:, b : b + 1])[0], np.ascontiguousarray(y[:, b : b + 1]))
            first, middle = layer(x[:3])
            rest, end = layer(x[3:], middle)
            assert same_bits((np.concatenate([first, rest]), end), (y, state))
            stream = layer.stream(B)
            assert same_bits(np.stack([stream.step(x_t) for x_t in x]), y)
            assert same_bits(stream.state, state)
            kept = outputs(layer, x, None, dy)
            assert same_bits(tuple(kept[1]), tuple(outputs_checkpointed(layer, x, dy)))
            found[backend] = tuple(kept[0] + kept[1])
    fused = [bits for backend, bits in found.items() if backend in ("avx512", "avx2", "neon")]
    assert all(same_bits(bits, fused[0]) for bits in fused)


def outputs_checkpointed(layer, x, dy) -> list[np.ndarray]:
    _, state_n, tape = layer.forward(x, checkpoint_every=2)
    dx, dstate, grads = layer.backward(tape, dy, state_n)
    return [dx, *(dstate if isinstance(dstate, tuple) else (dstate,)), *grads.values()]


def test_a_wide_clip_changes_nothing(cell, backend, dtype, make_layer, remade, same_bits, rng):
    x = rng.normal(size=(T, B, I)).astype(dtype)
    dy = rng.normal(size=(T, B, H)).astype(dtype)
    plain = make_layer(cell, I, H, dtype=dtype)
    clipped = remade(plain, clip=1e3)
    assert same_bits(clipped(x), plain(x))
    assert same_bits(clipped(x[:, :1]), plain(x[:, :1]))
    of_plain, of_clipped = (outputs(layer, x, None, dy)[1] for layer in (plain, clipped))
    for a, b in zip(of_clipped, of_plain, strict=True):
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(a, b, rtol=0, atol=64 * eps * np.abs(b).max())


def test_coupled_gates(backend, dtype, remade, rng):
    """As sigmoid(-z) = 1 - sigmoid(z), a forget gate with the weights of -i is coupled to i."""
    coupled = fastrnn.LSTM(I, H, input_forget=True, peephole=True, dtype=dtype, seed=0)
    x = rng.normal(size=(T, B, I)).astype(dtype)
    dy = rng.normal(size=(T, B, H)).astype(dtype)
    weights = coupled.state_dict()
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        weights[name][H : 2 * H] = -weights[name][:H]
    weights["weight_cf_l0"] = -weights["weight_ci_l0"]
    apart = fastrnn.LSTM(I, H, peephole=True, dtype=dtype, seed=0)
    apart.load_state_dict(weights)
    got, want = outputs(coupled, x, None, dy), outputs(apart, x, None, dy)
    eps = np.finfo(dtype).eps
    for a, b in zip(got[0] + got[1][:3], want[0] + want[1][:3], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=64 * eps * max(1, np.abs(b).max()))
    for name, grad in zip(weights, got[1][3:], strict=True):
        if name == "weight_cf_l0":
            assert not grad.any()
        elif not name.startswith("weight_c"):
            assert not grad[H : 2 * H].any()
            assert grad[:H].any()


def test_equations_of_onnx(backend, rng):
    """LSTM of ONNX as its operator writes it, with peepholes, clipping and coupled gates."""
    clip, alpha, beta = 0.7, 0.3, 0.45
    layer = fastrnn.LSTM(
        I, H, peephole=True, clip=clip, input_forget=True, dtype="float64", seed=0,
        activations=[("hard_sigmoid", alpha, beta), "softsign", "softplus"],
    )  # fmt: skip
    w = layer.state_dict()
    x, h, c = rng.normal(size=(T, B, I)), *rng.uniform(-1, 1, (2, B, H))
    y, state = layer(x, (h[None], c[None]))
    for t in range(T):
        z = x[t] @ w["weight_ih_l0"].T + h @ w["weight_hh_l0"].T
        zi, _, zg, zo = np.split(z + w["bias_ih_l0"] + w["bias_hh_l0"], 4, axis=1)
        i = np.clip(alpha * np.clip(zi + w["weight_ci_l0"] * c, -clip, clip) + beta, 0, 1)
        g = np.clip(zg, -clip, clip)
        c = (1 - i) * c + i * g / (1 + abs(g))
        o = np.clip(alpha * np.clip(zo + w["weight_co_l0"] * c, -clip, clip) + beta, 0, 1)
        h = o * np.log(1 + np.exp(c))
        np.testing.assert_allclose(y[t], h, rtol=1e-12)
    np.testing.assert_allclose(state[1][0], c, rtol=1e-12)


def test_nan_stays_in_its_row(cell, backend, dtype, make_layer, rng):
    for name in SETS:
        layer = make_layer(cell, I, H, dtype=dtype, **chosen(cell, name, clip=1.5))
        x = rng.normal(size=(T, B, I)).astype(dtype)
        want = layer(x)[0]
        x[2, 1] = np.nan
        y = layer(x)[0]
        assert np.isnan(y[2:, 1]).all(), name
        kept = np.arange(B) != 1
        np.testing.assert_allclose(y[:, kept], want[:, kept], rtol=1e-5)


def test_parameters_beyond_the_largest_float32(backend):
    x = np.ones((T, B, I), np.float32)
    layer = fastrnn.RNN(I, H, activations=("affine", 0.5), clip=1e300, seed=0)
    assert np.isfinite(layer(x)[0]).all()
    layer = fastrnn.RNN(I, H, activations=("elu", 1e300), clip=1e300, seed=0)
    y, _, tape = layer.forward(x)
    assert np.isin(y[0], [np.inf, -np.inf]).any()
    layer.backward(tape, y)


def test_single_steps(cell, backend, make_layer, make_single, general, rng, same_bits):
    options = general(cell, "kinked")
    layer, single = make_layer(cell, I, H, **options), make_single(cell, I, H, **options)
    x = rng.normal(size=(T, B, I)).astype(np.float32)
    y, _, _ = layer.forward(x)
    state: Any = None
    for t in range(T):
        state, tape = single.forward(x[t], state)
        h = state[0] if isinstance(state, tuple) else state
        np.testing.assert_allclose(h, y[t], rtol=1e-6, atol=1e-7)
    dx, _, grads = single.backward(tape, state)
    assert dx.shape == (B, I)
    assert len(grads) == 4


def test_in_files(cell, make_layer, general, tmp_path, rng, same_bits):
    layer = make_layer(cell, I, H, **general(cell, "kinked"), batch_first=True)
    model = fastrnn.Sequential([layer, fastrnn.Linear(H, 2)])
    X = rng.normal(size=(B, T, I)).astype(np.float32)
    want = model.predict(X)
    model.save(tmp_path / "m.safetensors")
    loaded = fastrnn.load(tmp_path / "m.safetensors")
    assert repr(loaded) == repr(model)
    assert same_bits(loaded.predict(X), want)


@pytest.mark.parametrize("name", SETS)
def test_quantized(cell, make_layer, rng, same_bits, tmp_path, name):
    more = {"input_forget": True} if "input_forget" in cell.options else {}
    layer = make_layer(cell, I, H, **chosen(cell, name, clip=1.5, **more))
    x = rng.normal(size=(T, B, I)).astype(np.float32)
    quantized = fastrnn.quantize(layer, calibration=x.swapaxes(0, 1))
    found = {}
    for backend in fastrnn.backends():
        with fastrnn.use_backend(backend):
            found[backend] = quantized(x)
            stream = quantized.stream(B)
            assert same_bits(np.stack([stream.step(x_t) for x_t in x]), found[backend][0])
    want = found.pop("reference")
    assert all(same_bits(got, want) for got in found.values())
    y = layer(x)[0]
    assert abs(want[0] - y).max() < 0.05 * abs(y).max()
    fastrnn.Sequential([quantized]).save(tmp_path / "m.safetensors")
    assert same_bits(fastrnn.load(tmp_path / "m.safetensors").layers[0](x), want)
