"""``fastrnn forecast``: forecast time series."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from typing import Any

from fastrnn._files import atomic
from fastrnn.cli import series, tables
from fastrnn.cli.files import check_outputs, save
from fastrnn.cli.parser import CELL, add_command, add_options, made
from fastrnn.forecast import Forecaster

#: Shorter series take seconds, and too many epochs to print each.
_LONG_SERIES = 20_000


def add(commands: Any) -> None:
    """Add the command to a parser."""
    forecast = add_command(commands, "forecast", _run, "forecast time series")
    forecast.add_argument(
        "file", metavar="FILE", help="CSV or TSV with a header, or - for standard input"
    )
    series.add_options(forecast)
    _add_output(forecast)
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


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--horizon", type=int, default=12, help="steps ahead (default: 12)")
    parser.add_argument(
        "--level",
        type=float,
        default=0.9,
        help="level of the prediction interval; 0 for none (default: 0.9)",
    )
    parser.add_argument(
        "--backtest", action="store_true", help="also report errors on the last fifth"
    )
    parser.add_argument("--out", metavar="FILE", help="CSV file to write")
    parser.add_argument("--plot", metavar="FILE", help="PNG file to write")
    parser.add_argument("-o", "--output", metavar="MODEL", help="file to write the model to")
    parser.add_argument(
        "--float-format",
        type=_float_format,
        default=repr,
        metavar="FORMAT",
        help="format of the forecasts, such as %%.2f (default: all digits)",
    )


def _float_format(value: str) -> Any:
    if not tables.is_number(value % 1.5):
        raise ValueError
    return lambda number: value % number


def _run(args: argparse.Namespace) -> None:
    model = made(Forecaster, args)
    check_outputs((args.out, args.plot, args.output), [args.file])
    if args.plot:
        _check_matplotlib()
    read = series.read(args)
    print(read.said, file=sys.stderr)
    verbose = int(len(read.frame) > _LONG_SERIES)
    if args.backtest:
        print(f"{model.backtest(read.given, args.horizon, verbose=verbose)}\n")
    model.fit(read.given, verbose=verbose)
    if args.output:
        save(args.output, model.save)
    forecast = model.predict(args.horizon)
    bounds = model.predict_interval(args.horizon, level=args.level) if args.level else ()
    rows = read.rows(args.horizon, (forecast, *bounds), args.float_format)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    if args.out:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        data = text.getvalue().encode()
        save(args.out, lambda path: atomic.write(path, data), "what was to be written")
    if args.plot:
        picture = io.BytesIO()
        model.plot(args.horizon, level=args.level or 0.9).savefig(picture, format="png")
        image = picture.getvalue()
        save(args.plot, lambda path: atomic.write(path, image), "the picture")
    for path in filter(None, (args.out, args.plot, args.output)):
        print(f"\nwrote {path}")


def _check_matplotlib() -> None:
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise ImportError("--plot needs matplotlib: pip install 'fastrnn[plot]'") from None
