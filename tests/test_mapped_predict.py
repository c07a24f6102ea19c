"""``predict`` of arrays in files: the same numbers, and memory for a few batches alone."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import fastrnn

N, T, F, H, O = 4099, 7, 3, 5, 2


def model(*first, per_step):
    layers = [*first, fastrnn.GRU(F, H, return_sequences=per_step), fastrnn.Linear(H, O)]
    return fastrnn.Sequential(layers, seed=0)


@pytest.fixture
def agree(same_bits):
    """Return a function that tells whether results agree: on compiled kernels bit by bit."""

    def near(a, b):
        return np.allclose(a, b, atol=1e-6)

    return near if fastrnn.backend() == "reference" else same_bits


@pytest.fixture
def mapped(tmp_path):
    """Return a function that maps an array from a file."""

    def made(x):
        np.save(tmp_path / "x.npy", x)
        return np.load(tmp_path / "x.npy", mmap_mode="r")

    return made


def in_slices(net, x, lengths=None):
    """Return predictions for a thousand sequences at a time, of which each call copies all."""
    at = range(0, len(x), 1000)
    given = [None if lengths is None else lengths[i : i + 1000] for i in at]
    pairs = zip(at, given, strict=True)
    return np.concatenate([net.predict(x[i : i + 1000], lengths=n) for i, n in pairs])


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4", "i2"])
def test_numbers(rng, mapped, dtype, per_step, agree):
    x, net = (10 * rng.normal(size=(N, T, F))).astype(dtype), model(per_step=per_step)
    assert agree(net.predict(mapped(x), batch_size=300), in_slices(net, x))
    lengths = rng.integers(1, T + 1, N)
    assert agree(net.predict(mapped(x), lengths=lengths), in_slices(net, x, lengths))


def test_tokens_and_masks(rng, mapped, agree):
    tokens, lengths = rng.integers(0, 9, (N, T)).astype("u1"), rng.integers(1, T + 1, N)
    net = model(fastrnn.Embedding(9, F), per_step=False)
    assert agree(net.predict(mapped(tokens), lengths=lengths), in_slices(net, tokens, lengths))
    x, net = rng.normal(size=(N, T, F)), model(fastrnn.Masking(), per_step=False)
    x[rng.random((N, T)) < 0.4] = 0
    x[:, 3] = 1
    assert agree(net.predict(mapped(x)), in_slices(net, x))
    x[4000] = 0
    with pytest.raises(ValueError, match=r"X\[4000\]: expected a step that is not masked"):
        net.predict(x)


def test_errors(rng):
    x, net = np.ones((N, T, F)), model(per_step=False)
    for arguments, kind, message in [
        ((x[..., :2],), ValueError, rf"X: expected shape \(N, T, {F}\).* got \({N}, {T}, 2\)"),
        ((x[..., 0],), ValueError, rf"X: expected shape .* got \({N}, {T}\)"),
        ((x, 256, [1, 2]), ValueError, rf"lengths: expected shape \({N},\)"),
        ((x, 256, np.full(N, T + 1)), ValueError, "lengths: expected whole numbers in 1..7, got 8"),
        ((x.astype("M8[s]"),), TypeError, "X: expected an array of real numbers"),
        ((np.ma.masked_less(x, 2),), ValueError, "X"),
    ]:
        with pytest.raises(kind, match=message):
            net.predict(*arguments)


@pytest.mark.skipif(fastrnn.backend() == "reference", reason="NumPy's own temporary arrays count")
def test_memory(rng, mapped):
    x, net = mapped(rng.normal(size=(5 * N, 40, F))), model(per_step=False)
    net.predict(x[:9])
    tracemalloc.start()
    try:
        net.predict(x)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < x.nbytes / 8, f"{most:,} bytes for a file of {x.nbytes:,}"
