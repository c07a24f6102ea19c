"""Cells with other activations than their own, with clipping, and with coupled gates."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn._kernels.activations import ACTIVATIONS, Activation, activation, activations
from fastrnn._kernels.reference.activations import function, relu, sigmoid

SIMPLE = {"sigmoid": sigmoid, "tanh": np.tanh, "relu": relu}

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
@pytest.mark.parametrize("clip", [None, 1.25])
def test_values_and_slopes_of_the_reference(form, clip):
    bound = np.inf if clip is None else clip
    x = np.linspace(-7, 7, 1401) + 1e-3  # no kink within STEP of a point
    of = function(form, SIMPLE, clip)
    value, slope = of(x)
    wide = np.clip(x.astype(np.longdouble), -bound, bound)
    want = TRUE[form.name](wide, form.alpha, form.beta)
    np.testing.assert_allclose(value, want.astype(float), rtol=1e-14, atol=1e-16)
    step = 1e-6
    central = (of(x + step).value - of(x - step).value) / (2 * step)
    np.testing.assert_allclose(slope, central, rtol=0, atol=1e-8)


# At each kink torch's gradient there: of F.relu, F.leaky_relu, F.threshold, F.hardsigmoid, F.elu;
# and of torch.clamp.
KINKS = [
    (Activation("relu"), None, 0.0, 0.0),
    (Activation("leaky_relu", 0.25), None, 0.0, 0.25),
    (Activation("thresholded_relu", 0.5), None, 0.5, 0.0),
    (Activation("hard_sigmoid", 0.25, 0.5), None, 2.0, 0.0),
    (Activation("hard_sigmoid", 0.25, 0.5), None, -2.0, 0.0),
    (Activation("elu", 1.5), None, 0.0, 1.5),
    (Activation("affine", 3.0, 1.0), 2.0, 2.0, 3.0),
    (Activation("affine", 3.0, 1.0), 2.0, -2.0, 3.0),
    (Activation("affine", 3.0, 1.0), 2.0, 2.0 + 1e-6, 0.0),
]


@pytest.mark.parametrize(("form", "clip", "x", "slope"), KINKS)
def test_slopes_at_kinks_are_torchs(form, clip, x, slope, backend):
    if backend == "reference":
        assert function(form, SIMPLE, clip)(np.array([x])).slope == [slope]


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


#: Other activations than a cell's own, one for each, and clipping.
OPTIONS: dict[str, Any] = {
    "activations": ["hard_sigmoid", ("scaled_tanh", 1.7159, 2 / 3), ("elu", 0.5)],
    "clip": 1.5,
}


@pytest.fixture
def general(cell) -> dict[str, Any]:
    """Options of a layer whose gates are not the cell's own."""
    usual = {"nonlinearity": {"rnn": "tanh", "indrnn": "relu"}.get(cell.family)}
    coupled = {"input_forget": True} if "input_forget" in cell.options else {}
    count = len(cell.activations)
    return {
        **({} if usual["nonlinearity"] is None else usual),
        **OPTIONS,
        "activations": OPTIONS["activations"][-count:],
        **coupled,
    }


def test_shown_and_kept(cell, make_layer, make_single, general, same_bits):
    shown = (("hard_sigmoid", 0.2, 0.5), ("scaled_tanh", 1.7159, 2 / 3), ("elu", 0.5))
    for make in (make_layer, make_single):
        if make is make_single and cell.family == "indrnn":
            continue
        layer = make(cell, 2, 3, **general)
        assert layer.activations == shown[-len(cell.activations) :]
        assert layer.clip == 1.5
        assert f"activations={layer.activations!r}, clip=1.5" in repr(layer)
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


def test_no_quantized_form(cell, make_layer, general):
    with pytest.raises(ValueError, match="has no quantized form, which have neither activations"):
        fastrnn.quantize(make_layer(cell, 2, 3, **general))
