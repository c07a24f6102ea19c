"""Against torch: the same weights give the same outputs and gradients."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import fastrnn
from fastrnn._kernels.cells import CELLS

torch = pytest.importorskip("torch")

LAYOUTS = ["time_first", "batch_first", "unbatched"]
FLOAT64 = [np.dtype(np.float64)]
STACKS = [
    {},
    {"bidirectional": True},
    {"num_layers": 2},
    {"num_layers": 3, "bidirectional": True},
]
T, B, I, H = 11, 5, 6, 19
# Relative to the largest entry, forward and gradients; torch has errors in float32 too.
TOLERANCE = {"float64": (1e-13, 1e-12), "float32": (2e-6, 2e-5)}


# torch has a single-step function for each of its cells.
THEIRS = [c for c in CELLS.values() if hasattr(torch, f"{c.name}_cell")]


@pytest.fixture(params=THEIRS, ids=lambda c: c.name)
def cell(request):
    return request.param


def module_and_options(ours):
    """Return the name in torch.nn, and the common options."""
    nonlinearity = getattr(ours, "nonlinearity", None)
    return type(ours).__name__, {"nonlinearity": nonlinearity} if nonlinearity else {}


@pytest.fixture(params=[True, False], ids=["bias", "no_bias"])
def pair(request, cell, dtype, backend, make_layer):
    """``pair(**options)``: torch's module and our layer with its weights."""

    def make(**options):
        torch.manual_seed(3)
        options |= {"bias": request.param}
        ours = make_layer(cell, I, H, dtype=dtype, **options)
        module, usual = module_and_options(ours)
        theirs = getattr(torch.nn, module)(
            I, H, dtype=getattr(torch, dtype.name), **usual, **options
        )
        ours.load_state_dict(theirs.state_dict())
        return theirs, ours

    return make


def assert_close(got, want, tolerance, name):
    want = want.detach().numpy()
    assert got.shape == want.shape, name
    assert abs(got - want).max() <= tolerance * abs(want).max(), name


def tensors(nest):
    """Leaves of an autograd graph, one for each array."""
    nest = nest if isinstance(nest, tuple) else (nest,)
    return tuple(torch.from_numpy(a).requires_grad_() for a in nest)


def tuples(nest):
    return nest if isinstance(nest, tuple) else (nest,)


@pytest.fixture
def compare(pair, cell, dtype, rng, make_state):
    """``compare(layout, **stack)``: outputs and every gradient."""
    return partial(check_outputs_and_gradients, pair, cell, dtype, rng, make_state)


def check_outputs_and_gradients(pair, cell, dtype, rng, make_state, layout, **stack):
    theirs, ours = pair(batch_first=layout == "batch_first", **stack)
    L, D = theirs.num_layers, 1 + theirs.bidirectional
    lead = {"time_first": (T, B), "batch_first": (B, T), "unbatched": (T,)}[layout]
    batch = () if layout == "unbatched" else (B,)
    x = rng.normal(size=(*lead, I)).astype(dtype)
    dy = rng.normal(size=(*lead, D * H)).astype(dtype)
    state, dstate = (make_state(cell, (L * D, *batch, H), dtype) for _ in range(2))

    (x_t,), state_t = tensors(x), tensors(state)
    y_t, state_n_t = theirs(x_t, state_t if len(state_t) > 1 else state_t[0])
    state_n_t = tuples(state_n_t)
    torch.autograd.backward(
        (y_t, *state_n_t), [t.detach() for t in (*tensors(dy), *tensors(dstate))]
    )

    y, state_n, tape = ours.forward(x, state)
    dx, dstate_0, grads = ours.backward(tape, dy, dstate)
    state_n, dstate_0 = tuples(state_n), tuples(dstate_0)
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


@pytest.mark.parametrize("layout", LAYOUTS)
def test_outputs_and_gradients(compare, layout):
    compare(layout)


# In float32, torch's LSTM takes most of a second for each stack.
@pytest.mark.parametrize("dtype", FLOAT64, ids=str)
@pytest.mark.parametrize("stack", STACKS[1:], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_stacks(compare, layout, stack):
    compare(layout, **stack)


def test_default_state(pair, dtype, rng):
    theirs, ours = pair()
    x = rng.normal(size=(T, B, I)).astype(dtype)
    assert_close(ours(x)[0], theirs(torch.from_numpy(x))[0], TOLERANCE[dtype.name][0], "y")


def check_weights_there_and_back(theirs, ours, same_bits):
    """From torch to `ours`, which has loaded the weights, and back."""
    assert list(ours.parameters()) == list(theirs.state_dict())  # in the same order
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


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_weights_there_and_back(pair, same_bits, stack):
    options = {"batch_first": True, "dropout": 0.25 if "num_layers" in stack else 0}
    check_weights_there_and_back(*pair(**stack, **options), same_bits)


@pytest.mark.parametrize("stack", [*STACKS, {"num_layers": 2, "dropout": 0.25}], ids=str)
def test_same_repr(pair, stack):
    theirs, ours = pair(batch_first=True, **stack)
    # Our ``repr`` shows two options that torch's does not.
    told = repr(ours).replace("nonlinearity='relu', ", "").replace(", dtype=float64", "")
    assert told == repr(theirs)


@pytest.mark.parametrize("dtype", FLOAT64, ids=str)
def test_dropout_is_off_where_it_is_in_torch(pair, dtype, rng):
    theirs, ours = pair(num_layers=3, dropout=0.5, bidirectional=True)
    x = rng.normal(size=(T, B, I)).astype(dtype)
    want = theirs.eval()(torch.from_numpy(x))[0]
    assert_close(ours(x)[0], want, TOLERANCE[dtype.name][0], "y")
    assert_close(ours.eval().forward(x)[0], want, TOLERANCE[dtype.name][0], "y")


@pytest.mark.parametrize("dtype", FLOAT64, ids=str)
def test_everything_dropped(pair, dtype, rng):
    """With p = 1 dropout is not random."""
    theirs, ours = pair(num_layers=2, dropout=1, bidirectional=True)
    x = rng.normal(size=(T, B, I)).astype(dtype)
    (x_t,) = tensors(x)
    y_t, _ = theirs(x_t)
    y_t.sum().backward()
    y, _, tape = ours.forward(x)
    dx, _, grads = ours.backward(tape, np.ones_like(y))
    assert_close(y, y_t, TOLERANCE[dtype.name][0], "y")
    assert not dx.any()
    for name, parameter in theirs.named_parameters():
        assert_close(grads[name], parameter.grad, TOLERANCE[dtype.name][1], name)


def test_same_warning():
    for module in (torch.nn.LSTM, fastrnn.LSTM):
        with pytest.warns(UserWarning, match="dropout.*num_layers=1") as caught:
            module(I, H, dropout=0.5)
    assert caught[0].filename == __file__  # ours points at the caller


# -- cells ---------------------------------------------------------------------------------------


@pytest.fixture(params=[True, False], ids=["bias", "no_bias"])
def single(request, cell, dtype, backend, make_single):
    """Return torch's cell and ours with its weights."""
    torch.manual_seed(4)
    ours = make_single(cell, I, H, request.param, dtype=dtype)
    name, usual = module_and_options(ours)
    options = {"bias": request.param, **usual}
    theirs = getattr(torch.nn, name)(I, H, dtype=getattr(torch, dtype.name), **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize("batch", [(), (B,)], ids=["unbatched", "batch"])
@pytest.mark.parametrize("with_state", [True, False])
def test_single_step(single, cell, dtype, rng, make_state, batch, with_state):
    theirs, ours = single
    x = rng.normal(size=(*batch, I)).astype(dtype)
    state, dstate = (make_state(cell, (*batch, H), dtype) for _ in range(2))
    (x_t,), state_t = tensors(x), tensors(state)
    given = (state_t if len(state_t) > 1 else state_t[0]) if with_state else None
    state_n_t = tuples(theirs(x_t, given))
    torch.autograd.backward(state_n_t, [t.detach() for t in tensors(dstate)])

    state_n, tape = ours.forward(x, state if with_state else None)
    dx, dstate_0, grads = ours.backward(tape, dstate)
    forward, gradient = TOLERANCE[dtype.name]
    assert_close(dx, x_t.grad, gradient, "dx")
    for i, name in enumerate(cell.states):
        assert_close(tuples(state_n)[i], state_n_t[i], forward, f"{name}_n")
        if with_state:
            assert_close(tuples(dstate_0)[i], state_t[i].grad, gradient, f"d{name}0")
    parameters = dict(theirs.named_parameters())
    assert grads.keys() == parameters.keys()
    for name, parameter in parameters.items():
        if parameter.grad.abs().max() > 0:
            assert_close(grads[name], parameter.grad, gradient, name)
        else:
            assert not grads[name].any()


def test_single_step_as_an_object(single, same_bits):
    theirs, ours = single
    check_weights_there_and_back(theirs, ours, same_bits)
    # Our ``repr`` shows the dtype, and quotes the nonlinearity.
    assert repr(ours).replace(", dtype=float64", "").replace("'", "") == repr(theirs)


@pytest.mark.parametrize("dtype", FLOAT64, ids=str)
@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_ragged_as_packed_sequences(pair, cell, dtype, rng, stack):
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    theirs, ours = pair(**stack)
    lengths = [7, T, 1, 4, T]
    x = rng.normal(size=(T, B, I)).astype(dtype)
    dy = rng.normal(size=(T, B, (1 + theirs.bidirectional) * H)).astype(dtype)
    (x_t,) = tensors(x)
    packed = pack_padded_sequence(x_t, torch.tensor(lengths), enforce_sorted=False)
    y_t, state_n_t = theirs(packed)
    y_t, _ = pad_packed_sequence(y_t)
    y_t.backward(torch.from_numpy(dy))

    y, state_n, tape = ours.forward(x, lengths=lengths)
    dx, _, grads = ours.backward(tape, dy)
    forward, gradient = TOLERANCE[dtype.name]
    assert_close(y, y_t, forward, "y")
    for s, s_t in zip(tuples(state_n), tuples(state_n_t), strict=True):
        assert_close(s, s_t, forward, "state")
    assert_close(dx, x_t.grad, gradient, "dx")
    for name, parameter in theirs.named_parameters():
        assert_close(grads[name], parameter.grad, gradient, name)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("stack", STACKS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_projection(backend, rng, same_bits, layout, stack, bias):
    P, L, D = 5, stack.get("num_layers", 1), 1 + stack.get("bidirectional", False)
    torch.manual_seed(3)
    options = {"proj_size": P, "bias": bias, "batch_first": layout == "batch_first", **stack}
    theirs = torch.nn.LSTM(I, H, dtype=torch.float64, **options)
    ours = fastrnn.LSTM(I, H, dtype=np.float64, **options)
    assert repr(ours).replace(", dtype=float64", "") == repr(theirs)
    ours.load_state_dict(theirs.state_dict())
    check_weights_there_and_back(theirs, ours, same_bits)
    lead = {"time_first": (T, B), "batch_first": (B, T), "unbatched": (T,)}[layout]
    batch = () if layout == "unbatched" else (B,)
    x, dy = rng.normal(size=(*lead, I)), rng.normal(size=(*lead, D * P))
    state = tuple(rng.normal(size=(L * D, *batch, n)) for n in (P, H))
    (x_t,), state_t = tensors(x), tensors(state)
    y_t, state_n_t = theirs(x_t, state_t)
    torch.autograd.backward((y_t, *state_n_t), [torch.from_numpy(d) for d in (dy, *state)])

    y, state_n, tape = ours.forward(x, state)
    dx, dstate_0, grads = ours.backward(tape, dy, state)
    assert_close(y, y_t, 1e-13, "y")
    assert_close(dx, x_t.grad, 1e-12, "dx")
    for i in range(2):
        assert_close(state_n[i], state_n_t[i], 1e-13, "state")
        assert_close(dstate_0[i], state_t[i].grad, 1e-12, "dstate")
    for name, parameter in theirs.named_parameters():
        assert_close(grads[name], parameter.grad, 1e-12, name)


def test_weights_of_a_whole_net(same_bits):
    """Picked by a prefix, of a layer, a cell and a model; in few bits, which are exact."""

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(7, I)
            self.encoder = torch.nn.ModuleDict({"rnn": torch.nn.LSTM(I, H, 2, bidirectional=True)})
            self.cell = torch.nn.GRUCell(I, H)
            self.head = torch.nn.Linear(2 * H, 3)

    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        state = Net().to(dtype).state_dict(keep_vars=True)
        lstm = fastrnn.LSTM(I, H, 2, bidirectional=True)
        assert not any(lstm.load_state_dict(state, prefix="encoder.rnn."))
        for name, weight in lstm.parameters().items():
            assert same_bits(weight, state[f"encoder.rnn.{name}"].detach().float().numpy())
        fastrnn.GRUCell(I, H).load_state_dict(state, prefix="cell.")
        model = fastrnn.Sequential(
            [fastrnn.Embedding(7, I), lstm, fastrnn.Dropout(0.1), fastrnn.Linear(2 * H, 3)]
        )
        model.load_state_dict(state, prefix=["embedding.", "encoder.rnn.", "head."])
        assert same_bits(model.parameters()["3.bias"], state["head.bias"].detach().float().numpy())
    del (
        state["cell.weight_ih"],
        state["cell.weight_hh"],
        state["cell.bias_ih"],
        state["cell.bias_hh"],
    )
    with pytest.raises(ValueError, match=r"with prefix=\['embedding.', 'encoder.rnn.', 'head.'\]"):
        model.load_state_dict(state)
    with pytest.raises(ValueError, match=r"are there with prefix='encoder\.rnn\.'"):
        lstm.load_state_dict(state)


def test_files_of_torch_say_what_reads_them(tmp_path):
    from safetensors.torch import load_file, save_file

    state = torch.nn.Linear(2, 3).state_dict()
    path = tmp_path / "m"
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        torch.save(state, path, **options)
        with pytest.raises(ValueError, match=r"m: is not a model of fastrnn.*torch.load\(path"):
            fastrnn.load(path)
    for dtype, room in ((torch.float32, "numpy"), (torch.bfloat16, "torch")):
        save_file({n: t.to(dtype) for n, t in state.items()}, path, {"format": "pt"})
        with pytest.raises(ValueError, match=rf"not a model of fastrnn.*safetensors.{room}.load_f"):
            fastrnn.load(path)
        fastrnn.Linear(2, 3).load_state_dict(load_file(path))


def test_tensors_that_numpy_can_not_read():
    layer = fastrnn.RNN(I, H)
    for x in (torch.ones(T, B, I, requires_grad=True), torch.ones(T, B, I, dtype=torch.bfloat16)):
        with pytest.raises(
            TypeError, match=r"^x: expected an array, got Tensor: .*(grad|BFloat16)"
        ):
            layer(x)
