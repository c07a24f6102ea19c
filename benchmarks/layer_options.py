"""Cost of ragged batches, resets and batch_first over a plain call: LSTM, float32, one thread.

python benchmarks/layer_options.py      (and of torch's packed sequences, if torch is installed)
"""

from __future__ import annotations

import importlib.util

import numpy as np

import fastrnn
from fastrnn._bench.timing import Contender, paired

I, H, T, B = 64, 128, 200, 64


def calls(layer, x, dy, **options):
    """Return calls of inference, and of forward with backward."""

    def training():
        _, _, tape = layer.forward(x, **options)
        return layer.backward(tape, dy)

    return {"forward": lambda: layer(x, **options), "training": training}


def torch_calls(x, dy, lengths):
    """Return calls of the same batches in torch, the ragged one packed and padded again."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    torch.set_num_threads(1)
    module = torch.nn.LSTM(I, H)
    x, dy, lengths = torch.from_numpy(x), torch.from_numpy(dy), torch.from_numpy(lengths)
    ends = int(lengths.max())

    def packed():
        y, _ = module(pack_padded_sequence(x, lengths, enforce_sorted=False))
        return pad_packed_sequence(y)[0]

    def inference(run):
        with torch.no_grad():
            run()

    def training(run, d):
        x.requires_grad_()
        run().backward(d)
        x.requires_grad_(False)

    full = {
        "forward": lambda: inference(lambda: module(x)),
        "training": lambda: training(lambda: module(x)[0], dy),
    }
    ragged = {
        "forward": lambda: inference(packed),
        "training": lambda: training(packed, dy[:ends]),
    }
    return full, ragged


def report(title, plain, other):
    for name in plain:
        usual, mine = paired([Contender(plain[name]), Contender(other[name])], 7, 0.2)
        print(
            f"{title:32} {name:9} {mine * 1e3:9.2f} {usual * 1e3:9.2f} {mine / usual:7.2f}",
            flush=True,
        )


def main() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(T, B, I)).astype(np.float32)
    dy = rng.normal(size=(T, B, H)).astype(np.float32)
    lengths = rng.integers(1, T + 1, B)
    layer = fastrnn.LSTM(I, H, seed=0)
    plain = calls(layer, x, dy)
    fastrnn.show_config()
    print(
        f"\nI={I} H={H} T={T} B={B}; {lengths.mean() / T:.0%} of all steps are within the lengths"
    )
    print(f"{'':42} {'ms':>9} {'plain ms':>9} {'ratio':>7}")
    report("lengths, uniform in 1..T", plain, calls(layer, x, dy, lengths=lengths))
    report("reset, 5 % of steps", plain, calls(layer, x, dy, reset=rng.random((T, B)) < 0.05))
    batch_first = fastrnn.LSTM(I, H, seed=0, batch_first=True)
    x_b, dy_b = (np.ascontiguousarray(a.swapaxes(0, 1)) for a in (x, dy))
    report("batch_first", plain, calls(batch_first, x_b, dy_b))
    if importlib.util.find_spec("torch"):
        full, ragged = torch_calls(x, dy, lengths)
        report("torch: packed sequence", full, ragged)


if __name__ == "__main__":
    main()
