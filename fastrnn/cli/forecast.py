"""``fastrnn forecast``: forecast time series."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn._files import atomic
from fastrnn.cli.files import is_number, read_table
from fastrnn.cli.parser import CELL, add_command, add_options, made
from fastrnn.forecast import Forecaster

#: Shorter series take seconds, and too many epochs to print each.
_LONG_SERIES = 20_000


def add(commands: Any) -> None:
    """Add the command to a parser."""
    forecast = add_command(commands, "forecast", _run, "forecast time series")
    forecast.add_argument("file", metavar="FILE", help="CSV with a header, oldest row first")
    forecast.add_argument(
        "--column",
        action="append",
        metavar="NAME",
        help="column to forecast; may be repeated (default: all numeric columns)",
    )
    forecast.add_argument("--horizon", type=int, default=12, help="steps ahead (default: 12)")
    forecast.add_argument(
        "--level",
        type=float,
        default=0.9,
        help="level of the prediction interval; 0 for none (default: 0.9)",
    )
    forecast.add_argument(
        "--backtest", action="store_true", help="also report errors on the last fifth"
    )
    forecast.add_argument("--out", metavar="FILE", help="CSV file to write")
    forecast.add_argument("--plot", metavar="FILE", help="PNG file to write")
    add_options(
        forecast,
        Forecaster,
        ("season", int, "values per season"),
        ("window", int, "values that the network reads"),
        ("steps", int, "values that the network predicts at once"),
        CELL,
        ("hidden_size", int, "hidden units"),
        ("lr", float, "initial learning rate"),
        ("epochs", int, "passes through the series (default: depends on its length)"),
        ("seed", int, "for reproducible results"),
    )
    forecast.add_argument("--log", action="store_true", help="model logarithms of the values")


def _run(args: argparse.Namespace) -> None:
    model = made(Forecaster, args)
    series = _series(args.file, args.column)
    for file in filter(None, (args.out, args.plot)):
        atomic.check_writable(file)
    values = np.column_stack(list(series.values()))
    verbose = int(len(values) > _LONG_SERIES)
    if args.backtest:
        one = values[:, 0] if len(series) == 1 else values
        print(f"{model.backtest(one, args.horizon, verbose=verbose)}\n")
    columns = {"step": np.arange(1, args.horizon + 1)}
    model.fit(values, verbose=verbose)
    forecast = model.predict(args.horizon)
    bounds = model.predict_interval(args.horizon, level=args.level) if args.level else ()
    for k, name in enumerate(series):
        columns[name] = forecast[:, k]
        for side, bound in zip(("lower", "upper"), bounds, strict=False):
            columns[f"{name} {side}"] = bound[:, k]
    rows = [[f"{value:.6g}" for value in row] for row in zip(*columns.values(), strict=True)]
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in ([*columns], *rows):
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    if args.out:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([[*columns], *rows])
        atomic.write(args.out, text.getvalue().encode())
        print(f"\nwrote {args.out}")
    if args.plot:
        picture = io.BytesIO()
        model.plot(args.horizon, level=args.level or 0.9).savefig(picture, format="png")
        atomic.write(args.plot, picture.getvalue())
        print(f"\nwrote {args.plot}")


def _series(path: str, names: Sequence[str] | None) -> dict[str, Any]:
    """Return columns of a CSV file as numbers: those named, or all that contain a number."""
    table = read_table(path, "utf-8")
    series = {}
    for name in names or table:
        if name not in table:
            raise ValueError(f"{path}: expected a column {name!r}, got {', '.join(table)}")
        try:
            series[name] = np.array(table[name], dtype=np.float64)
        except ValueError as error:
            if names or any(map(is_number, table[name])):
                raise ValueError(f"{path}: column {name!r}: {error}") from None
    if not series:
        raise ValueError(f"{path}: expected a column of numbers, got {', '.join(table)}")
    return series
