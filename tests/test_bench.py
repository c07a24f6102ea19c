"""``fastrnn bench``: all peers do the same work, wrong results are refused, and the output."""

from __future__ import annotations

import importlib
import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn._bench.peers import ONNX_GATES, OURS, PEERS, Peer, accepted
from fastrnn._bench.plain import PLAIN
from fastrnn._bench.rows import BOUNDS, DEFAULTS, Problem, Row, difference
from fastrnn._bench.short import QUICK_ROWS, ROWS
from fastrnn._bench.timing import Contender, paired
from fastrnn.cli import main

SHAPES = {"step": (1, 3), "forward": (7, 3), "training": (7, 2)}


@pytest.mark.parametrize("mode", SHAPES)
@pytest.mark.parametrize("cell", DEFAULTS)
@pytest.mark.parametrize("name", ["fastrnn", *PEERS])
def test_all_do_the_same_work(name: str, cell: str, mode: str, dtype: np.dtype) -> None:
    peer = {"fastrnn": OURS, **PEERS}[name]
    for module in peer.modules:
        pytest.importorskip(module)
    T, B = SHAPES[mode]
    problem = Problem.of(Row(cell, mode, 5, 9, T, B, dtype.name))
    truth = problem.truth()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # theirs
        contenders = peer.make(problem, 1)
    offs = [difference(c.results(problem.row.calls), truth) for c in contenders]
    theirs = {"numpy": PLAIN, "onnxruntime": ONNX_GATES}.get(name, DEFAULTS)
    if name == "torch":
        theirs = vars(importlib.import_module("torch.nn"))
    if (
        name == "onnxruntime" and (mode == "training" or dtype == np.float64)
    ) or cell not in theirs:
        assert offs == []
    else:
        assert offs
        assert max(offs) < BOUNDS[dtype.name] / 30


def test_gradients_of_the_truth_are_all_there() -> None:
    truth = Problem.of(Row("LSTM", "training", 5, 9, 7, 3)).truth()
    assert {name: array.shape for name, array in truth.items()} == {
        "y": (7, 3, 9), "dx": (7, 3, 5), "dh": (3, 9), "dc": (3, 9),
        "weight_ih": (36, 5), "weight_hh": (36, 9), "bias_ih": (36,), "bias_hh": (36,),
    }  # fmt: skip


def test_work_is_counted() -> None:
    """Counted by hand: a GRU's three gates, 5 inputs and 9 units, 7 steps of 2 rows."""
    row = Row("GRU", "forward", 5, 9, 7, 2)
    assert row.flops == 7 * 2 * (2 * 27 * 5 + 2 * 27 * 9)
    assert replace(row, mode="training").flops == 3 * row.flops
    assert row.step_bytes == 4 * 27 * 9
    assert replace(row, mode="step", dtype="float64").step_bytes == 8 * 27 * 14


def test_wrong_results_are_refused() -> None:
    problem = Problem.of(Row("RNN", "forward", 5, 9, 7, 3))
    truth = problem.truth()
    right = OURS.make(problem, 1)[0].results(1)["y"]

    def note(y: object) -> str:
        peer = Peer(lambda *_: [Contender(lambda: y, lambda y: {"y": y})], ())
        contenders, note = accepted(peer, problem, 1, truth)
        assert bool(contenders) == (note == "")
        return note

    wrong, unknown = right.copy(), right.copy()
    wrong[3, 2, 1] += 1e-3
    unknown[0, 0, 0] = np.nan
    assert note(right) == ""
    assert note(wrong) == "refused: off by 1e-03"
    assert note(unknown) == note(right[1:]) == "refused: off by inf"
    failing = Peer(lambda *_: [Contender(lambda: 1 // 0)], ())
    assert accepted(failing, problem, 1, truth)[1].startswith("failed: ZeroDivisionError")


def test_timings_are_taken_in_turn() -> None:
    called: list[str] = []
    times = paired([Contender(lambda n=n: called.append(n)) for n in "ab"], 3, 1e-5)
    assert len(times) == 2
    assert min(times) > 0
    turns = [n for n, before in zip(called, ["", *called], strict=False) if n != before]
    assert "".join(turns).endswith("ababab")


def test_threads_and_backend_are_as_before() -> None:
    before = fastrnn.get_num_threads(), fastrnn.backend()
    problem = Problem.of(Row("RNN", "forward", 5, 9, 7, 3))
    for peer in (OURS, PEERS["reference"]):
        peer.make(problem, before[0] + 1)[0].seconds(1)
    assert (fastrnn.get_num_threads(), fastrnn.backend()) == before


def test_bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "b.json"
    args = ["bench", "--quick", "--peers=numpy,reference", "--threads=1", f"--json={path}"]
    assert main(args) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for text in (fastrnn.__version__, fastrnn.backend(), "best peer / ours", f"wrote {path}"):
        assert text in out
    report = json.loads(path.read_text())
    assert list(report["peers"]) == ["numpy", "reference"]
    assert len(report["lines"]) == len(QUICK_ROWS) == len(ROWS)
    for line, row in zip(report["lines"], QUICK_ROWS, strict=True):
        assert Row(**line["row"]) == row
        assert line["ours"] > 0
        assert line["peers"].keys() == {"numpy", "reference"}
        assert row.name in out


def test_bench_of_what_is_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [*PEERS]
    for name in names[2:]:
        monkeypatch.setitem(PEERS, name, replace(PEERS[name], modules=("no_such_module",)))
    assert main(["bench", "--quick", "--threads=1"]) == 0
    head = next(line for line in capsys.readouterr().out.splitlines() if "I,H,T,B" in line)
    assert head.split()[-2:] == names[:2]
    assert main(["bench", "--peers=torch"]) == 2
    assert "torch is not installed: no_such_module missing" in capsys.readouterr().err
