"""``fastrnn forecast``, end to end; what it reads is in test_tables.py."""

from __future__ import annotations

import csv
import io
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn.cli import forecast, main
from fastrnn.forecast import Forecaster

pd = pytest.importorskip("pandas")

SMALL: dict[str, Any] = {"window": 12, "steps": 4, "hidden_size": 8, "epochs": 3, "seed": 0}
QUICK = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]


def series(n: int = 120) -> Any:
    """Two series: a noisy wave with a period of 12, and growth, both positive."""
    rng = np.random.default_rng(0)
    t = np.arange(n)
    waves = 20 + 5 * np.sin(2 * np.pi * t / 12) + rng.normal(0, 0.2, n)
    return np.stack([waves, np.exp(t / n) + 1], axis=1)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    months = pd.date_range("1990-01", periods=120, freq="MS").strftime("%Y-%m")
    rows = [f"{m},{a!r},{b!r}" for m, (a, b) in zip(months, series().tolist(), strict=True)]
    path = Path("series.csv")
    path.write_text("\n".join(["when,waves,growth", *rows]))
    return path


def rows(path: str = "forecast.csv") -> list[list[str]]:
    return [*csv.reader(Path(path).read_text().splitlines())]


def test_forecasts(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["forecast", str(table), *QUICK, "--horizon=5", "--out=forecast.csv", "-o", "m"]
    assert main([*args, "--backtest"]) == 0
    out, err = capsys.readouterr()
    read = "2 columns (waves, growth), 120 rows, 1990-01 to 1999-12, monthly"
    assert err == f"series.csv: {read}\n"
    header, *body = rows()
    assert header == [
        "when",
        *(f"{n}{s}" for n in ("waves", "growth") for s in ("", " lower", " upper")),
    ]
    assert [row[0] for row in body] == ["2000-01", "2000-02", "2000-03", "2000-04", "2000-05"]
    model = Forecaster(**SMALL).fit(series())
    values = np.array([row[1:] for row in body], float)
    np.testing.assert_array_equal(values[:, [0, 3]], model.predict(5))
    np.testing.assert_array_equal(values[:, [1, 4]], model.predict_interval(5)[0])
    shown = [line.split() for line in out.splitlines() if line.startswith("2000-03")]
    largest = np.abs(values).max(0)
    digits = [5 - math.floor(math.log10(number)) for number in largest]
    assert shown == [["2000-03", *(f"{v:.{d}f}" for v, d in zip(values[2], digits, strict=True))]]
    assert "forecaster, " in out
    np.testing.assert_array_equal(fastrnn.load("m").predict(5), model.predict(5))


def test_columns_and_formats(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["forecast", str(table), *QUICK, "--horizon=2", "--out=forecast.csv", "--level=0"]
    assert main([*args, "--columns=growth", "--float-format=%.2f"]) == 0
    header, *body = rows()
    assert header == ["when", "growth"]
    assert all(len(row[1].partition(".")[2]) == 2 for row in body)
    assert main([*args, "--column=growth", "--column=waves", "--time=none"]) == 0
    header, *body = rows()
    assert header == ["step", "growth", "waves"]
    assert [row[0] for row in body] == ["1", "2"]


def test_newest_first_is_the_same(table: Path) -> None:
    args = ["forecast", *QUICK, "--horizon=2", "--columns=waves", "--out=forecast.csv"]
    assert main([*args, str(table)]) == 0
    expected = rows()
    header, *body = table.read_text().splitlines()
    table.write_text("\n".join([header, *reversed(body)]))
    assert main([*args, str(table)]) == 0
    assert rows() == expected


def test_many_series(table: Path, capsys: Any) -> None:
    waves, growth = series().T
    days = pd.date_range("2024-01-01", periods=120).strftime("%d.%m.%Y")
    lines = [f"{d};a;{v:.2f}" for d, v in zip(days, waves, strict=True)]
    lines += [f"{d};b;{v:.2f}" for d, v in zip(days[:80], growth, strict=False)]
    Path("long.csv").write_text("\n".join(["day;shop;sales", *lines]))
    args = ["forecast", "long.csv", *QUICK, "--id=shop", "--horizon=2", "--out=forecast.csv"]
    assert main([*args, "-o", "m", "--backtest"]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("long.csv: 2 series by shop, 1 column (sales), 200 rows, 01.01.2024 to ")
    assert out.count("forecasts, 2 steps each") == 2
    header, *body = rows()
    assert header == ["shop", "day", "sales", "sales lower", "sales upper"]
    assert [row[:2] for row in body] == [
        ["a", "30.04.2024"],
        ["a", "01.05.2024"],
        ["b", "21.03.2024"],
        ["b", "22.03.2024"],
    ]
    forecasts = fastrnn.load("m").predict(2)
    assert [float(row[2]) for row in body] == [*forecasts["a"], *forecasts["b"]]


def test_gaps_are_filled_by_the_model(table: Path) -> None:
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines[:50] + lines[53:]))
    args = ["forecast", str(table), *QUICK, "--columns=waves", "--horizon=2", "--out=forecast.csv"]
    assert main(args) == 2
    for how in ("linear", "previous", "mean", "20.5"):
        assert main([*args, f"--fill={how}", "-o", "m"]) == 0
        fill = float(how) if how[0].isdigit() else how
        assert fastrnn.load("m").fill == fill
        values = series()[:, 0].copy()
        values[49:52] = np.nan
        model = Forecaster(**SMALL, fill=fill).fit(values)
        assert [float(row[1]) for row in rows()[1:]] == model.predict(2).tolist()
    assert main([*args, "--fill=skip"]) == 0
    model = Forecaster(**SMALL).fit(np.delete(series()[:, 0], [49, 50, 51]))
    assert [float(row[1]) for row in rows()[1:]] == model.predict(2).tolist()


def test_seasons_and_short_series(table: Path, capsys: Any) -> None:
    args = ["forecast", str(table), *QUICK, "--columns=waves", "--horizon=2", "--out=forecast.csv"]
    assert main([*args, "--season=12", "--floor=0", "-o", "m"]) == 0
    assert (fastrnn.load("m").season, fastrnn.load("m").floor) == (12, 0)
    assert main([*args, "--season=4,12.5", "-o", "m"]) == 0
    assert fastrnn.load("m").season == (4, 12.5)
    capsys.readouterr()
    table.write_text("\n".join(table.read_text().splitlines()[:20]))
    assert main(args) == 0
    assert capsys.readouterr().err.splitlines()[1].startswith("no intervals: ")
    assert rows()[0] == ["when", "waves"]
    assert main([*args, "--level=0.9"]) == 2
    assert "residuals" in capsys.readouterr().err


def test_large_numbers_keep_their_digits(table: Path, capsys: Any) -> None:
    lines = "".join(f"{1e9 + 0.25 + 3 * k}\n" for k in range(100))
    Path("big.csv").write_text("value\n" + lines)
    assert main(["forecast", "big.csv", *QUICK, "--horizon=2", "--out=forecast.csv"]) == 0
    out = capsys.readouterr().out
    _, *body = rows()
    for row in body:
        for cell in row[1:]:
            assert float(cell) == pytest.approx(1e9 + 300, abs=100)
            assert "e" not in cell
            assert f"{float(cell):.2f}" in out


def test_standard_input(table: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(table.read_bytes())))
    assert main(["forecast", "-", *QUICK, "--horizon=2", "--level=0"]) == 0
    assert capsys.readouterr().err.startswith("standard input: 2 columns")


def test_draws(table: Path) -> None:
    pytest.importorskip("matplotlib")
    assert main(["forecast", str(table), *QUICK, "--plot=p.png"]) == 0
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nowhere.csv"], "nowhere.csv: No such file"),
        (["."], ".: Is a directory"),
        (["series.csv", "--column=no"], "expected a column 'no', got when, waves, growth"),
        (["series.csv", "--column=when"], "row 2, column 'when': expected a number, got '1990-01'"),
        (["series.csv", "--horizon=0"], "horizon: expected"),
        (["series.csv", "--level=2"], "level: expected"),
        (["series.csv", "--window=1000"], "series: expected at least"),
        (["series.csv", "--out=no/f.csv"], "no/f.csv: No such file"),
        (["series.csv", "--out=series.csv"], "series.csv: is read, so expected another file"),
        (["series.csv", "--float-format=%d%d"], "--float-format: expected a format such as %.2f"),
        (["series.csv", "--float-format=much"], "--float-format: expected a format such as %.2f"),
        (["series.csv", "--season=much"], "--season: expected numbers such as 12 or 7,365.25"),
        (["series.csv", "--season=0"], "season: expected"),
        (["series.csv", "--out=-"], "-: expected a file to write"),
        (["series.csv", "--fill=nan"], "fill: expected"),
        (
            ["series.csv", "--fill=much"],
            "--fill: expected linear, previous, mean, skip or a number",
        ),
        (["series.csv", "--time=growth"], "expected equally spaced times, got 2.0"),
        (["gap.csv"], "gap.csv: row 3, column 'a': expected a number (--fill"),
    ],
)
def test_refuses(args: list[str], said: str, table: Path, capsys: Any) -> None:
    Path("gap.csv").write_text("a\n1\n\n3\n\n")
    assert main(["forecast", *QUICK, *args]) == 2
    *read, error = capsys.readouterr().err.splitlines()
    assert error.startswith("fastrnn: error: ")
    assert said in error
    # What was read is told before the training.
    assert read in (
        [],
        ["series.csv: 2 columns (waves, growth), 120 rows, 1990-01 to 1999-12, monthly"],
    )


def test_what_is_missing_is_found_before_training(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def fit(*_: Any, **__: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(Forecaster, "fit", fit)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for option, said in (
        ("--plot=p.png", "--plot needs matplotlib: pip install 'fastrnn[plot]'"),
        ("--out=no/f.csv", "no/f.csv: No such file"),
        ("--output=no/m", "no/m: No such file"),
    ):
        assert main(["forecast", str(table), *QUICK, option]) == 2
        assert said in capsys.readouterr().err


def test_pictures_are_what_their_names_say(table: Path, capsys: Any) -> None:
    pytest.importorskip("matplotlib")
    starts = {"p": b"\x89PNG", "p.png": b"\x89PNG", "p.PDF": b"%PDF", "p.svg": b"<?xml"}
    for name, start in starts.items():
        assert main(["forecast", str(table), *QUICK, "--horizon=2", f"--plot={name}"]) == 0
        assert Path(name).read_bytes().startswith(start)
    capsys.readouterr()
    assert main(["forecast", str(table), *QUICK, "--plot=p.txt"]) == 2
    said = capsys.readouterr().err
    assert "--plot: expected a name that ends in one of .png, .pdf, .svg, " in said


@pytest.mark.skipif(os.name == "nt", reason="a folder that is in use can't be removed")
def test_results_are_kept(table: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The folder is gone when the training ends."""
    folder = Path("folder")
    folder.mkdir()
    usual = Forecaster.fit

    def fit(self: Forecaster, *args: Any, **options: Any) -> Forecaster:
        folder.rmdir()
        return usual(self, *args, **options)

    monkeypatch.setattr(Forecaster, "fit", fit)
    monkeypatch.setenv("TMPDIR", str(Path.cwd()))
    monkeypatch.setattr("tempfile.tempdir", None)
    args = ["--out=folder/forecast.csv", "--horizon=1", "-o", "folder/m"]
    assert main(["forecast", str(table), *QUICK, *args]) == 2
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].startswith("2000-01")
    other, error = err.splitlines()[-1].split("; folder/forecast.csv: ")
    assert "folder/m: No such file or directory; the model is kept in " in other
    assert fastrnn.load(other.partition(" is kept in ")[2]).predict(1).shape == (1, 2)
    assert error.startswith("No such file or directory; what was to be written is kept in ")
    assert rows(error.partition(" is kept in ")[2])[1][0] == "2000-01"


def test_six_digits_are_shown() -> None:
    def cells(*values: str | float) -> list[str]:
        return forecast._cells(values, None)

    assert cells("a", 114.39999999999999, -7.25) == ["      a", "114.400", " -7.250"]
    assert cells("n", 12345678.9, 5.0) == ["          n", "12345678.90", "       5.00"]
    assert cells("x", 1.2345678e-5, 0.0)[1:] == ["0.0000123457", "0.0000000000"]
    assert cells("y", 0.0, math.inf)[1:] == ["0.00", " inf"]
