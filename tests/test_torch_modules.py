"""``fastrnn.torch`` beside ``torch.nn``: the same numbers, and the same behaviour as modules."""

from __future__ import annotations

import copy
import gc
import io
import itertools
import pickle
import threading
import warnings
import weakref

import numpy as np
import pytest

import fastrnn

torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import (  # noqa: E402
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
)

import fastrnn.torch as ours  # noqa: E402
from fastrnn._core import stack as stacks  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
    pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated:DeprecationWarning"),
]

T, B, I, H, P = 11, 5, 6, 19, 7
LENGTHS = [7, 11, 1, 4, 11]
LAYERS = {
    "RNN": {},
    "ReLU": {"nonlinearity": "relu"},
    "LSTM": {},
    "LSTMP": {"proj_size": P},
    "GRU": {},
}
CELLS = {"RNNCell": {}, "ReLUCell": {"nonlinearity": "relu"}, "LSTMCell": {}, "GRUCell": {}}
FORMS = ("time_first", "batch_first", "unbatched", "packed", "unsorted", "full")
STACKS = ({}, {"bidirectional": True}, {"num_layers": 3}, {"num_layers": 2, "bidirectional": True})
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-5}


def class_name(kind):
    return kind.replace("ReLUCell", "RNNCell").replace("ReLU", "RNN").replace("LSTMP", "LSTM")


def pair(kind, *args, **options):
    """Return torch's module and ours with its weights."""
    torch.manual_seed(3)
    options = {**LAYERS, **CELLS}[kind] | options
    theirs = getattr(torch.nn, class_name(kind))(*(args or (I, H)), **options)
    mine = getattr(ours, class_name(kind))(*(args or (I, H)), **options)
    mine.load_state_dict(theirs.state_dict())
    return theirs, mine


def example(form, dtype=torch.float64, **options):
    """Return a leaf x, and the input that it is for a module."""
    lead = {"batch_first": (B, T), "unbatched": (T,)}.get(form, (T, B))
    x = torch.randn(*lead, I, dtype=dtype, requires_grad=True)
    lengths = {"packed": sorted(LENGTHS, reverse=True), "unsorted": LENGTHS, "full": [T] * B}
    if form not in lengths:
        return x, x
    return x, pack_padded_sequence(x, lengths[form], enforce_sorted=form != "unsorted")


def tuples(nest):
    return nest if isinstance(nest, tuple) else (nest,)


def leaves(outputs):
    y, state = outputs
    return (y.data if isinstance(y, PackedSequence) else y, *tuples(state))


def is_used(module, call):
    """Return whether the kernels ran, and the result of the call."""
    fn = stacks.forward
    runs = []

    def spy(*args, **options):
        runs.append(1)
        return fn(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stacks, "forward", spy)
        return call(), bool(runs)


def assert_same(got, want):
    """Assert that all are close, relative to the largest entry of each."""
    assert len(got) == len(want)
    for mine, theirs in zip(got, want, strict=True):
        assert (mine is None) == (theirs is None)
        if theirs is not None:
            assert mine.shape == theirs.shape
            assert mine.dtype is theirs.dtype
            bound = TOLERANCE[theirs.dtype] * max(1, theirs.abs().max())
            assert (mine - theirs).abs().max() <= bound


def gradients(module, x, outputs, *more):
    """Return the gradients of a loss of all outputs."""
    loss = sum((o**2).sum() + (o**3).mean() for o in outputs)
    wanted = [t for t in (x, *more, *module.parameters()) if t.requires_grad]
    return torch.autograd.grad(loss, wanted, retain_graph=True)  # that of a packing is shared


# -- the same numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("stack", STACKS, ids=str)
@pytest.mark.parametrize("kind", LAYERS)
def test_outputs_states_and_gradients(kind, stack, dtype):
    for form, bias, with_state in itertools.product(FORMS, (True, False), (True, False)):
        theirs, mine = pair(
            kind, batch_first=form == "batch_first", bias=bias, dtype=dtype, **stack
        )
        x, given = example(form, dtype)
        scans = mine.num_layers * (1 + mine.bidirectional)
        batch = () if form == "unbatched" else (B,)
        sizes = (mine.proj_size or H, H) if mine.mode == "LSTM" else (H,)
        state = tuple(torch.randn(scans, *batch, n, dtype=dtype, requires_grad=True) for n in sizes)
        hx = (state if len(state) > 1 else state[0]) if with_state else None
        more = state if with_state else ()
        want = theirs(given, hx)
        got, used = is_used(mine, lambda m=mine, g=given, h=hx: m(g, h))
        assert used
        assert_same(leaves(got), leaves(want))
        assert_same(
            gradients(mine, x, leaves(got), *more), gradients(theirs, x, leaves(want), *more)
        )
        if isinstance(given, PackedSequence):
            assert all(a is b for a, b in zip(got[0][1:], given[1:], strict=True))
        with torch.no_grad():
            for a, b in zip(leaves(mine(given, hx)), leaves(got), strict=True):
                assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", CELLS)
def test_single_steps(kind, dtype):
    for batch, bias, with_state in itertools.product(((), (B,)), (True, False), (True, False)):
        theirs, mine = pair(kind, bias=bias, dtype=dtype)
        x = torch.randn(*batch, I, dtype=dtype, requires_grad=True)
        count = 2 if kind == "LSTMCell" else 1
        state = [torch.randn(*batch, H, dtype=dtype, requires_grad=True) for _ in range(count)]
        hx = (tuple(state) if count > 1 else state[0]) if with_state else None
        more = state if with_state else ()
        got, used = is_used(mine, lambda m=mine, x=x, h=hx: m(x, h))
        assert used
        got, want = tuples(got), tuples(theirs(x, hx))
        assert_same(got, want)
        assert_same(gradients(mine, x, got, *more), gradients(theirs, x, want, *more))


@pytest.mark.parametrize("kind", [*LAYERS, *CELLS])
def test_gradcheck(kind):
    single = kind in CELLS
    options = {} if single else {"num_layers": 2, "bidirectional": True}
    if kind == "LSTMP":
        options["proj_size"] = 2
    mine = getattr(ours, class_name(kind))(
        2, 3, dtype=torch.float64, **{**LAYERS, **CELLS}[kind] | options
    )
    x = torch.randn(*(() if single else (4,)), 2, 2, dtype=torch.float64, requires_grad=True)
    weights = dict(mine.named_parameters())

    def function(x, *values):
        out = torch.func.functional_call(mine, dict(zip(weights, values, strict=True)), (x,))
        return tuples(out) if single else leaves(out)

    assert torch.autograd.gradcheck(function, (x, *weights.values()), check_undefined_grad=True)


@pytest.mark.parametrize("kind", LAYERS)
def test_resets_and_lengths(kind, rng):
    """Beside the layer of this package, which is proven elsewhere."""
    options = {k: v for k, v in LAYERS[kind].items() if k != "nonlinearity"}
    _, mine = pair(kind, num_layers=2, batch_first=True, dtype=torch.float64)
    layer = getattr(fastrnn, class_name(kind))(
        I, H, num_layers=2, batch_first=True, dtype=np.float64, **LAYERS[kind] | options
    )
    layer.load_state_dict(mine.state_dict())
    x, _ = example("batch_first")
    reset = rng.random((T, B)) < 0.3
    y, state = mine(x, lengths=torch.tensor(LENGTHS), reset=torch.from_numpy(reset))
    want, want_state, tape = layer.forward(x.detach().numpy(), lengths=LENGTHS, reset=reset)
    assert_same((y, *tuples(state)), list(map(torch.from_numpy, (want, *tuples(want_state)))))
    (2 * y).sum().backward()
    dx, _, grads = layer.backward(tape, np.full_like(want, 2))
    assert_same((x.grad,), (torch.from_numpy(dx),))
    for name, weight in mine.named_parameters():
        assert_same((weight.grad,), (torch.from_numpy(grads[name]),))
    # In a packed sequence they are in the order of the batch that was packed.
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    y_packed, state_packed = mine(packed, reset=reset)
    assert torch.equal(pad_packed_sequence(y_packed, batch_first=True)[0], y)
    assert all(map(torch.equal, tuples(state_packed), tuples(state)))
    # And a sequence on its own.
    y_one, _ = mine(x[3], lengths=LENGTHS[3], reset=torch.from_numpy(reset[:, 3]))
    assert_same((y_one,), (y[3],))


@pytest.mark.parametrize("form", ["time_first", "batch_first", "packed", "unsorted"])
@pytest.mark.parametrize("kind", LAYERS)
def test_dropout_is_the_same_from_the_same_seed(kind, form):
    for p, grad in itertools.product((0.4, 1.0), (True, False)):
        theirs, mine = pair(
            kind, num_layers=3, bidirectional=True, dropout=p, dtype=torch.float64,
            batch_first=form == "batch_first",
        )  # fmt: skip
        x, given = example(form)
        outputs = []
        for module in (theirs, mine):
            torch.manual_seed(8)
            with torch.set_grad_enabled(grad):
                outputs.append(leaves(module(given)))
        assert_same(*outputs[::-1])
        if grad:
            assert_same(gradients(mine, x, outputs[1]), gradients(theirs, x, outputs[0]))
        assert_same(leaves(mine.eval()(given)), leaves(theirs.eval()(given)))


def test_dropout_of_long_sequences_without_gradients():
    """Whose inference advances all layers by a few steps at a time."""
    theirs, mine = pair("GRU", 3, 64, num_layers=2, dropout=0.5)
    x = torch.randn(4096, 1, 3)
    outputs = []
    for module in (mine, theirs):
        torch.manual_seed(8)
        with torch.no_grad():
            outputs.append(leaves(module(x)))
    assert_same(*outputs)


def test_any_strides_and_expanded_tensors():
    theirs, mine = pair("LSTM", dtype=torch.float64)
    base = torch.randn(B, I, T, dtype=torch.float64)
    h = torch.randn(1, 1, H, dtype=torch.float64, requires_grad=True)
    state = (h.expand(1, B, H), h.expand(1, B, H))
    for x in (base.permute(2, 0, 1), base.permute(2, 0, 1)[::2], base[:, :, :1].expand(B, I, T).mT):
        x = x if x.shape[1] == B else x.transpose(0, 1)
        results = []
        for module in (mine, theirs):
            y, _ = module(x, state)
            results.append(torch.autograd.grad(y.sum(), [h, *module.parameters()]))
        assert_same(*results)


# -- modules -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*LAYERS, *CELLS])
def test_is_torchs_module(kind):
    theirs, mine = pair(kind)
    assert isinstance(mine, type(theirs))
    assert repr(mine) == repr(theirs)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    torch.manual_seed(1)
    first = getattr(torch.nn, class_name(kind))(I, H, **{**LAYERS, **CELLS}[kind])
    torch.manual_seed(1)
    second = getattr(ours, class_name(kind))(I, H, **{**LAYERS, **CELLS}[kind])
    assert all(map(torch.equal, first.parameters(), second.parameters()))
    theirs.load_state_dict(mine.state_dict())  # and the other way round in `pair`


@pytest.mark.parametrize("kind", [*LAYERS, *CELLS])
def test_copies_and_pickles(kind):
    theirs, mine = pair(kind)
    x = torch.randn(B, I) if kind in CELLS else torch.randn(T, B, I)
    want = mine(x)
    file = io.BytesIO()
    torch.save(mine, file)
    file.seek(0)
    for twin in (
        copy.deepcopy(mine), pickle.loads(pickle.dumps(mine)), torch.load(file, weights_only=False)
    ):  # fmt: skip
        assert type(twin) is type(mine)
        assert vars(twin).keys() == vars(theirs).keys()
        got, used = is_used(twin, lambda twin=twin: twin(x))
        assert used
        flat = tuples if kind in CELLS else leaves
        assert all(map(torch.equal, flat(got), flat(want)))
        with torch.no_grad():
            twin.weight_ih.zero_() if kind in CELLS else twin.weight_ih_l0.zero_()
        assert not torch.equal(flat(twin(x))[0], flat(want)[0])
        assert all(map(torch.equal, flat(mine(x)), flat(want)))


CHANGES = {
    "in place": lambda w: w.detach().mul_(1.5),
    "data": lambda w: w.data.mul_(1.5),
    "NumPy": lambda w: np.multiply(w.detach().numpy(), 1.5, out=w.detach().numpy()),
    "one bit": lambda w: w.data[-1, -1].add_(1),
    "new data": lambda w: setattr(w, "data", w.data * 1.5),
    "transposed": lambda w: w.data.t_(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_seen(change):
    theirs, mine = pair("RNN")
    x = torch.randn(T, B, I)
    mine(x)
    for module in (theirs, mine):
        CHANGES[change](module.weight_hh_l0)
    assert_same(leaves(mine(x)), leaves(theirs(x)))


def test_optimizers_and_gradient_accumulation():
    theirs, mine = pair("GRU", num_layers=2, dtype=torch.float64)
    for make in (
        lambda p: torch.optim.Adam(p, 0.01), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    ):  # fmt: skip
        losses = []
        for module in (theirs, mine):
            torch.manual_seed(0)
            optimizer = make(module.parameters())
            losses.append([])
            for _ in range(5):
                optimizer.zero_grad()
                for _ in range(2):
                    loss = (module(torch.randn(T, B, I, dtype=torch.float64))[0] ** 2).mean()
                    loss.backward()
                torch.nn.utils.clip_grad_norm_(module.parameters(), 0.1)
                optimizer.step()
                losses[-1].append(loss.item())
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-9)


def test_hooks():
    theirs, mine = pair("LSTM", dtype=torch.float64)
    x, _ = example("time_first")
    seen = {}
    for module in (theirs, mine):
        seen[module] = calls = []
        module.register_forward_pre_hook(lambda m, given, c=calls: c.append(given[0]))
        module.register_forward_hook(lambda m, given, out, c=calls: c.append(out[0]))
        module.register_full_backward_hook(
            lambda m, d_in, d_out, c=calls: c.extend((*d_in, *d_out))
        )
        module.weight_hh_l0.register_hook(lambda g, c=calls: c.append(g))
        module.bias_ih_l0.register_post_accumulate_grad_hook(lambda p, c=calls: c.append(p.grad))
        (module(x)[0] ** 2).sum().backward()
    key = lambda t: (t is None, () if t is None else tuple(t.shape), 0 if t is None else t.sum())  # noqa: E731
    assert_same(*(sorted(seen[m], key=key) for m in (mine, theirs)))


def test_parametrizations_and_pruning():
    from torch.nn.utils import parametrizations, parametrize, prune

    def old_weight_norm(module):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.nn.utils.weight_norm(module, "weight_hh_l0")

    for change in (
        lambda m: parametrizations.weight_norm(m, "weight_hh_l0"),
        lambda m: parametrizations.spectral_norm(m, "weight_ih_l1").eval(),
        old_weight_norm,
        lambda m: prune.l1_unstructured(m, "weight_hh_l0", amount=0.5),
    ):
        theirs, mine = pair("LSTM", num_layers=2, dtype=torch.float64)
        x, _ = example("time_first")
        accelerated = copy.deepcopy(theirs)
        for module in (theirs, mine, accelerated):
            torch.manual_seed(0)
            change(module)
        ours.accelerate(accelerated)
        for module in (mine, accelerated):
            for _ in range(2):
                got, used = is_used(module, lambda module=module, x=x: module(x))
                assert used
                want = theirs(x)
                assert_same(leaves(got), leaves(want))
                assert_same(gradients(module, x, leaves(got)), gradients(theirs, x, leaves(want)))
                with torch.no_grad():
                    for p in (*theirs.parameters(), *mine.parameters(), *accelerated.parameters()):
                        p.mul_(1.1)
        if parametrize.is_parametrized(accelerated):
            got, used = is_used(accelerated, lambda: ours.restore(accelerated)(x))  # noqa: B023
            assert not used
            assert_same(leaves(got), leaves(theirs(x)))


def test_functional_call_and_swapped_parameters():
    theirs, mine = pair("GRU", dtype=torch.float64)
    x, _ = example("time_first")
    weights = {n: torch.randn_like(p, requires_grad=True) for n, p in mine.named_parameters()}
    results = []
    for module in (mine, theirs):
        y, _ = torch.func.functional_call(module, weights, (x,))
        results.append([y, *torch.autograd.grad((y**2).sum(), [x, *weights.values()])])
    assert_same(*results)
    for module in (mine, theirs):
        module.weight_hh_l0 = torch.nn.Parameter(weights["weight_hh_l0"].detach())
    assert_same(leaves(mine(x)), leaves(theirs(x)))


def test_torch_func_grad():
    theirs, mine = pair("LSTM", num_layers=2, dtype=torch.float64)
    x, _ = example("time_first")
    results = []
    for module in (mine, theirs):
        weights = {n: p.detach() for n, p in module.named_parameters()}

        def loss(weights, x, module=module):
            return (torch.func.functional_call(module, weights, (x,))[0] ** 2).sum()

        found = torch.func.grad(loss, argnums=(0, 1))(weights, x.detach())
        results.append([*found[0].values(), found[1]])
    assert_same(*results)


def test_parts_of_other_dtypes_move_together():
    theirs, mine = pair("LSTM")
    for dtype in (torch.float64, torch.float32):
        x = torch.randn(T, B, I, dtype=dtype)
        got, used = is_used(mine, lambda x=x, d=dtype: mine.to(d)(x))
        assert used
        assert_same(leaves(got), leaves(theirs.to(dtype)(x)))


# -- gradients that are not needed ---------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYERS)
def test_partly_frozen(kind):
    needing = {
        "nothing": (),
        "x": ("x",),
        "the upper layer": ("_l1",),
        "a bias": ("bias_ih_l0",),
        "one direction": ("_l1_reverse",),
        "state": ("state",),
    }
    for wanted, asks in itertools.product(needing.values(), (True, False)):
        theirs, mine = pair(kind, num_layers=2, bidirectional=True, dtype=torch.float64)
        results = []
        x = torch.randn(T, B, I, dtype=torch.float64, requires_grad="x" in wanted)
        h = torch.randn(4, B, P if kind == "LSTMP" else H, dtype=torch.float64)
        h.requires_grad_("state" in wanted)
        c = torch.randn(4, B, H, dtype=torch.float64)
        hx = ((h, c) if mine.mode == "LSTM" else h) if asks else None
        for module in (mine, theirs):
            for name, p in module.named_parameters():
                p.requires_grad_(any(part in name for part in wanted))
            y, _ = module(x, hx)
            leaf = [
                t for t in (x, *((h,) if asks else ()), *module.parameters()) if t.requires_grad
            ]
            assert y.requires_grad == bool(leaf)
            results.append([y, *(torch.autograd.grad((y**2).sum(), leaf) if leaf else ())])
        assert_same(*results)


def test_frozen_layers_are_not_worked_on(monkeypatch):
    from fastrnn._core import scan

    mine = ours.LSTM(I, H, num_layers=3)
    for name, p in mine.named_parameters():
        p.requires_grad_("_l1" in name)
    kept, back = [], []
    monkeypatch.setattr(
        stacks.scan, "forward", lambda *a, f=scan.forward, **k: kept.append(k["keep"]) or f(*a, **k)
    )
    monkeypatch.setattr(
        stacks.scan, "backward",
        lambda *a, f=scan.backward, **k: (
            back.append((a[4] is not None, k["weight_gradients"])) or f(*a, **k)
        ),
    )  # fmt: skip
    mine(torch.randn(T, B, I))[0].sum().backward()
    assert kept == [False, True, True]
    assert back == [(True, False), (False, True)]  # whether dx, and gradients of weights


def test_modes_without_gradients():
    theirs, mine = pair("LSTM", num_layers=2)
    x = torch.randn(T, B, I)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            y, _ = mine(x)
            assert_same((y,), (theirs(x)[0],))
            assert not y.requires_grad
            assert y.is_inference() == (mode is torch.inference_mode)


def test_the_tape_is_freed_as_torch_frees_its_own():
    mine = ours.LSTM(I, H)
    y, _ = mine(torch.randn(T, B, I))
    call = y.grad_fn.call
    loss = y.sum()
    loss.backward(retain_graph=True)
    assert call.tape is not None
    loss.backward()
    assert call.tape is None  # although the graph is still there
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_weights_may_change_between_forward_and_backward():
    mine = ours.GRU(I, H, dtype=torch.float64)
    x = torch.randn(T, B, I, dtype=torch.float64)
    (want,) = torch.autograd.grad(mine(x)[0].sum(), [mine.weight_hh_l0])
    y, _ = mine(x)
    with torch.no_grad():
        mine.weight_hh_l0.zero_()
        x.zero_()
    (got,) = torch.autograd.grad(y.sum(), [mine.weight_hh_l0])
    assert torch.equal(got, want)


def test_modules_are_not_kept_alive():
    mine = ours.GRU(I, H)
    mine(torch.randn(T, B, I))[0].sum().backward()
    gone = weakref.ref(mine)
    del mine
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("kind", ["GRU", "LSTMCell"])
def test_what_is_not_there_says_so(kind):
    _, mine = pair(kind, dtype=torch.float64)
    x = torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
    x = x[0] if kind in CELLS else x

    def run(x):
        return mine(x)[0]

    leaf = x.detach().requires_grad_()
    (first,) = torch.autograd.grad(run(leaf).sum(), leaf, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"second derivative.*restore"):
        torch.autograd.grad(first.sum(), leaf)
    (first,) = torch.autograd.grad((run(leaf) ** 2).sum(), leaf, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivative"):
        first.sum().backward()
    with pytest.raises(NotImplementedError, match="vmap"):
        torch.func.vmap(run)(torch.stack([x, x]))
    with pytest.raises(NotImplementedError, match="vmap"):
        torch.autograd.functional.jacobian(lambda x: run(x).sum(-1), leaf, vectorize=True)
    for grad in (True, False):
        with (
            torch.set_grad_enabled(grad),
            pytest.raises(NotImplementedError, match="forward-mode"),
            torch.autograd.forward_ad.dual_level(),
        ):
            run(torch.autograd.forward_ad.make_dual(x.detach(), torch.ones_like(x)))
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(run, (x.detach(),), (torch.ones_like(x),))


def test_checkpointed():
    from torch.utils.checkpoint import checkpoint

    _, mine = pair("LSTM", dtype=torch.float64)
    x, _ = example("time_first")
    want = gradients(mine, x, leaves(mine(x)))
    for reentrant in (True, False, None):
        if reentrant is None:
            with torch.autograd.graph.save_on_cpu():
                got = leaves(mine(x))
        else:
            got = checkpoint(lambda x: leaves(mine(x)), x, use_reentrant=reentrant)
        if not reentrant:
            assert got[0].grad_fn.call.tape is None
        mine.zero_grad()
        x.grad = None
        loss = sum((o**2).sum() + (o**3).mean() for o in got)
        loss.backward()
        assert_same([x.grad, *(p.grad for p in mine.parameters())], want)


# -- accelerate and restore ----------------------------------------------------------------------


class Net(torch.nn.Module):
    """A nested model with layers of all kinds, shared and wrapped."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(13, I)
        self.layers = torch.nn.ModuleList([torch.nn.GRU(I, H), torch.nn.RNN(H, I)])
        self.inner = torch.nn.ModuleDict({"lstm": torch.nn.LSTM(I, H, 2, bidirectional=True)})
        self.again = self.layers[0]
        self.cell = torch.nn.GRUCell(2 * H, I)
        self.head = torch.nn.Sequential(torch.nn.Linear(I, 3), torch.nn.Tanh())

    def forward(self, tokens):
        y = self.embedding(tokens)
        for layer in self.layers:
            y, _ = layer(y)
        y, _ = self.inner["lstm"](y)
        return self.head(self.cell(y[-1]))


def test_accelerate_and_restore():
    net = Net()
    tokens = torch.randint(13, (T, B))
    optimizer = torch.optim.Adam(net.parameters())
    before, parameters, modules = net(tokens), list(net.parameters()), list(net.modules())
    want = torch.autograd.grad(before.sum(), parameters)
    assert ours.accelerate(net) is net
    assert type(net.inner["lstm"]) is ours.LSTM
    assert type(net.layers[0]) is ours.GRU is type(net.again)
    assert type(net.layers[1]) is ours.RNN
    assert type(net.cell) is ours.GRUCell
    assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
    assert all(a is b for a, b in zip(net.modules(), modules, strict=True))
    after, used = is_used(net, lambda: net(tokens))
    assert used
    assert_same((after,), (before,))
    assert_same(torch.autograd.grad(after.sum(), parameters), want)
    net(tokens).sum().backward()
    optimizer.step()
    twin = copy.deepcopy(net)
    assert ours.accelerate(net) is net  # nothing is left to do
    assert ours.restore(net) is net
    assert all(type(m).__module__.startswith(("torch", __name__)) for m in net.modules())
    assert_same((net(tokens),), (twin(tokens),))


def test_only_torchs_own_classes_are_swapped():
    class Mine(torch.nn.LSTM):
        def forward(self, x):
            return super().forward(x)[0]

    module = Mine(I, H)
    assert type(ours.accelerate(module)) is Mine
    assert type(ours.restore(module)) is Mine
    with pytest.raises(TypeError, match=r"^module: expected a torch.nn.Module, got list"):
        ours.accelerate([torch.nn.LSTM(I, H)])


# -- what torch does itself ----------------------------------------------------------------------


def test_dtypes_and_devices_that_are_not_ours():
    theirs, mine = pair("LSTM")
    for dtype in (torch.bfloat16, torch.float16):
        x = torch.randn(T, B, I, dtype=dtype)
        got, used = is_used(mine, lambda x=x, d=dtype: copy.deepcopy(mine).to(d)(x))
        assert not used
        assert torch.equal(got[0], copy.deepcopy(theirs).to(dtype)(x)[0])
    on_meta = ours.GRU(I, H, device="meta")
    assert on_meta(torch.randn(T, B, I, device="meta"))[0].shape == (T, B, H)
    x = torch.randn(T, B, I)
    with torch.autocast("cpu", torch.bfloat16):
        got, used = is_used(mine, lambda: mine(x))
    assert not used


def test_empty_batches():
    theirs, mine = pair("GRU")
    x = torch.randn(T, 0, I)
    assert [o.shape for o in leaves(mine(x))] == [o.shape for o in leaves(theirs(x))]
    assert ours.GRUCell(3, 0)(torch.ones(2, 3)).shape == (2, 0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU", "LSTMCell"])
def test_graphs(kind):
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.utils.flop_counter import FlopCounterMode

    theirs, mine = pair(kind)

    class Wrapped(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)[0]

    net = Wrapped(mine).eval()
    x = torch.randn(B, I) if kind in CELLS else torch.randn(T, B, I)
    want = Wrapped(theirs)(x)
    traced, used = is_used(net, lambda: torch.jit.trace(net, (x,), check_trace=False))
    assert not used
    assert_same((traced(x),), (want,))
    assert_same((torch.jit.script(net)(x),), (want,))
    exported, used = is_used(net, lambda: torch.export.export(net, (x,)))
    assert not used
    assert_same((exported.module()(x),), (want,))
    graph = torch.fx.symbolic_trace(net)
    assert [n.op for n in graph.graph.nodes if n.op == "call_module"]
    assert_same((graph(x),), (want,))
    assert_same((torch.compile(net, backend="eager")(x),), (want,))
    made = make_fx(net)(torch.zeros_like(x))
    assert_same((made(x),), (want,))
    with FlopCounterMode(display=False) as counted:
        theirs(x)
    with FlopCounterMode(display=False) as ours_counted:
        mine(x)
    assert ours_counted.get_total_flops() == counted.get_total_flops()


def test_options_of_ours_that_torch_does_not_have():
    mine = ours.LSTM(I, H)
    reset = torch.zeros(T, B, dtype=torch.bool)
    with pytest.raises(ValueError, match="LSTM: lengths and reset require"):
        copy.deepcopy(mine).bfloat16()(torch.randn(T, B, I, dtype=torch.bfloat16), reset=reset)


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYERS)
def test_errors_are_torchs(kind):
    theirs, mine = pair(kind)
    h = torch.zeros(1, B, H)
    lstm = mine.mode == "LSTM"
    for x, hx in (
        (torch.zeros(T, B, I + 1), None),
        (torch.zeros(I), None),
        (torch.zeros(1, T, B, I), None),
        (torch.zeros(T, B, I, dtype=torch.float64), None),
        (torch.zeros(T, B, I, dtype=torch.int64), None),
        (torch.zeros(0, B, I), None),
        (torch.zeros(T, B, I), (h[..., 1:],) * 2 if lstm else h[..., 1:]),
        (torch.zeros(T, B, I), (h[0],) * 2 if lstm else h[0]),
        (torch.zeros(T, I), (h,) * 2 if lstm else h),
        (torch.zeros(T, B, I), (h.double(),) * 2 if lstm else h.double()),
        (PackedSequence(torch.zeros(4, I), torch.tensor([2, 3])), None),
    ):
        errors = []
        for module in (theirs, mine):
            with pytest.raises((RuntimeError, ValueError)) as caught:
                module(x, hx)
            errors.append(str(caught.value).split("\n")[0])
        assert errors[0] == errors[1]


def test_errors_of_our_options():
    mine = ours.GRU(I, H, batch_first=True)
    x = torch.zeros(B, T, I)
    with pytest.raises(ValueError, match=r"lengths: expected whole numbers in 1..11, got 12"):
        mine(x, lengths=[12] * B)
    with pytest.raises(TypeError, match=r"reset: expected an array of booleans"):
        mine(x, reset=torch.zeros(T, B))
    with pytest.raises(ValueError, match=r"reset: .*transposed"):
        mine(x, reset=torch.zeros(B, T, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"lengths: expected None, as a PackedSequence"):
        mine(pack_sequence([x[0]]), lengths=[T])
    with pytest.raises(TypeError):
        ours.GRU(I, H, reset=True)


def test_threads_share_a_module():
    mine = ours.LSTM(I, H, num_layers=2, dtype=torch.float64)
    xs = [torch.randn(T, B, I, dtype=torch.float64) for _ in range(4)]
    want = [(mine(x)[0], torch.autograd.grad(mine(x)[0].sum(), [mine.weight_hh_l0])[0]) for x in xs]
    wrong = []

    def work(x, y, grad):
        for _ in range(30):
            got = mine(x)[0]
            if not torch.equal(got, y) or not torch.equal(
                torch.autograd.grad(got.sum(), [mine.weight_hh_l0])[0], grad
            ):
                wrong.append(x)

    threads = [threading.Thread(target=work, args=(x, *w)) for x, w in zip(xs, want, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("kind", LAYERS)
def test_bfloat16_where_torch_is_told_so(kind):
    _, mine = pair(kind, num_layers=2)
    layer = getattr(fastrnn, class_name(kind))(
        I, H, num_layers=2, matmul_precision="bfloat16", **LAYERS[kind]
    )
    layer.load_state_dict(mine.state_dict())
    x = torch.randn(T, B, I)
    full = mine(x)[0]
    setting = torch.backends.mkldnn.rnn
    try:
        setting.fp32_precision = "bf16"
        y, _ = mine(x)
        double = copy.deepcopy(mine).double()(x.double())[0]
    finally:
        setting.fp32_precision = "none"
    want, _, tape = layer.forward(x.numpy())
    assert torch.equal(y, torch.from_numpy(want))
    assert 0 < (y - full).abs().max() < 0.1
    assert_same((double.float(), mine(x)[0]), (full, full))
    y.sum().backward()  # in the precision of the forward
    _, _, grads = layer.backward(tape, np.ones_like(want))
    assert all(torch.equal(w.grad, torch.from_numpy(grads[n])) for n, w in mine.named_parameters())


def test_threads_are_as_many_as_torchs():
    theirs, ours_before = torch.get_num_threads(), fastrnn.get_num_threads()
    mine, x = ours.GRU(I, H), torch.randn(T, B, I)
    try:
        torch.set_num_threads(theirs + 2)
        y, _ = mine(x)
        assert fastrnn.get_num_threads() == theirs + 2
        fastrnn.set_num_threads(3)  # the last one counts
        assert torch.equal(mine(x)[0], y)
        assert fastrnn.get_num_threads() == 3
    finally:
        torch.set_num_threads(theirs)
        mine(x)
        fastrnn.set_num_threads(ours_before)


def test_on_every_backend(backend):
    theirs, mine = pair("LSTMP", num_layers=2, bidirectional=True, dtype=torch.float64)
    x, given = example("unsorted")
    want = theirs(given)
    with fastrnn.use_backend(backend):
        got = mine(given)
        assert_same(leaves(got), leaves(want))
        assert_same(gradients(mine, x, leaves(got)), gradients(theirs, x, leaves(want)))
