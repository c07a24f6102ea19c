"""Against torch, the independent witness: the same weights, the same outputs and gradients."""

from __future__ import annotations

import pytest

from fastrnn._cells import CELLS

torch = pytest.importorskip("torch")

MODULES = {
    "rnn_tanh": (torch.nn.RNN, {}),
    "rnn_relu": (torch.nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (torch.nn.LSTM, {}),
    "gru": (torch.nn.GRU, {}),
}
T, B, I, H = 11, 5, 6, 19
# Of the largest entry, forward and gradients; torch errs in float32 as well.
TOLERANCE = {"float64": (1e-13, 1e-12), "float32": (2e-6, 2e-5)}


@pytest.fixture(params=[c for c in CELLS.values() if c.name in MODULES], ids=lambda c: c.name)
def cell(request):
    return request.param


@pytest.fixture(params=[True, False], ids=["bias", "no_bias"])
def pair(request, cell, dtype, backend, make_layer):
    """``pair(**options)``: torch's module and our layer with its weights."""

    def make(**options):
        torch.manual_seed(3)
        options |= {"bias": request.param}
        module, usual = MODULES[cell.name]
        theirs = module(I, H, dtype=getattr(torch, dtype.name), **usual, **options)
        ours = make_layer(cell, I, H, dtype=dtype, **options)
        ours.load_state_dict(theirs.state_dict())
        return theirs, ours

    return make


def assert_close(got, want, tolerance, name):
    want = want.detach().numpy()
    assert got.shape == want.shape, name
    assert abs(got - want).max() <= tolerance * abs(want).max(), name


@pytest.mark.parametrize("layout", ["time_first", "batch_first", "unbatched"])
def test_outputs_and_gradients(pair, cell, dtype, rng, make_state, layout):
    theirs, ours = pair(batch_first=layout == "batch_first")
    lead = {"time_first": (T, B), "batch_first": (B, T), "unbatched": (T,)}[layout]
    batch = () if layout == "unbatched" else (B,)
    x = rng.normal(size=(*lead, I)).astype(dtype)
    dy = rng.normal(size=(*lead, H)).astype(dtype)
    state, dstate = (make_state(cell, (1, *batch, H), dtype) for _ in range(2))

    def tensors(nest):
        nest = nest if isinstance(nest, tuple) else (nest,)
        return tuple(torch.from_numpy(a).requires_grad_() for a in nest)

    x_t, state_t = tensors(x)[0], tensors(state)
    y_t, state_n_t = theirs(x_t, state_t if len(state_t) > 1 else state_t[0])
    state_n_t = state_n_t if len(state_t) > 1 else (state_n_t,)
    torch.autograd.backward(
        (y_t, *state_n_t), [t.detach() for t in (*tensors(dy), *tensors(dstate))]
    )

    y, state_n, tape = ours.forward(x, state)
    dx, dstate_0, grads = ours.backward(tape, dy, dstate)
    if len(cell.states) == 1:
        state_n, dstate_0 = (state_n,), (dstate_0,)
    forward, gradient = TOLERANCE[dtype.name]
    assert_close(y, y_t, forward, "y")
    assert_close(dx, x_t.grad, gradient, "dx")
    for i, name in enumerate(cell.states):
        assert_close(state_n[i], state_n_t[i], forward, f"{name}_n")
        assert_close(dstate_0[i], state_t[i].grad, gradient, f"d{name}0")
    parameters = dict(theirs.named_parameters())
    assert grads.keys() == parameters.keys()
    for name, parameter in parameters.items():
        assert_close(grads[name], parameter.grad, gradient, name)


def test_default_state(pair, dtype, rng):
    theirs, ours = pair()
    x = rng.normal(size=(T, B, I)).astype(dtype)
    assert_close(ours(x)[0], theirs(torch.from_numpy(x))[0], TOLERANCE[dtype.name][0], "y")


def test_weights_there_and_back(pair, same_bits):
    theirs, ours = pair()
    want = {n: p.numpy().copy() for n, p in theirs.state_dict().items()}
    assert same_bits(ours.state_dict(), want)
    with torch.no_grad():
        for p in theirs.parameters():
            p.zero_()
    assert same_bits(ours.state_dict(), want)  # not a view of torch's memory
    theirs.load_state_dict({n: torch.from_numpy(a) for n, a in ours.state_dict().items()})
    assert same_bits({n: p.numpy() for n, p in theirs.state_dict().items()}, want)
    ours.load_state_dict(dict(theirs.named_parameters()))  # these require gradients
    assert same_bits(ours.state_dict(), want)


def test_same_repr(pair):
    theirs, ours = pair(batch_first=True)
    # Ours tells of two things that torch's does not.
    told = repr(ours).replace("nonlinearity='relu', ", "").replace(", dtype=float64", "")
    assert told == repr(theirs)
