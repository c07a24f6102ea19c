"""``fastrnn forecast``: forecast time series."""

from __future__ import annotations

import argparse
import csv
import io
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

from fastrnn import _checks
from fastrnn._files import atomic
from fastrnn.cli import series, tables
from fastrnn.cli.files import check_outputs, save
from fastrnn.cli.parser import CELL, add_command, add_options, given, number, one_line
from fastrnn.forecast import Forecaster
from fastrnn.models.progress import tell

#: Shorter series take seconds, and too many epochs to print each.
_LONG_SERIES = 20_000

#: Digits shown of the largest number of a column, and decimals of any.
_DIGITS, _DECIMALS = 6, 2

#: The formats of pictures, by the ending of their name.
_PICTURES = {"": "png", ".png": "png", ".pdf": "pdf", ".svg": "svg", ".jpg": "jpg", ".jpeg": "jpg"}

#: The default level of intervals.
_LEVEL = 0.9


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
        ("season", _season, "values per season, such as 12, 365.25 or 7,365.25"),
        ("floor", float, "the least value that is possible"),
        ("window", int, "values that the network reads (default: depends on the series)"),
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
        help="level of the prediction interval; 0 for none (default: 0.9, if the series is long "
        "enough)",
    )
    parser.add_argument(
        "--backtest", action="store_true", help="also report errors on the last fifth"
    )
    parser.add_argument(
        "--out", metavar="FILE", help="CSV file to write, with commas and decimal points"
    )
    parser.add_argument(
        "--plot", metavar="FILE", help="picture to write: PNG, or PDF, SVG or JPEG by its name"
    )
    parser.add_argument("-o", "--output", metavar="MODEL", help="file to write the model to")
    parser.add_argument(
        "--float-format",
        type=_float_format,
        metavar="FORMAT",
        help="format of the forecasts, such as %%.2f (default: all digits in the file of --out, "
        "six or more on the terminal)",
    )


def _season(value: str) -> float | tuple[float, ...]:
    lengths = tuple(number(part, "numbers such as 12 or 7,365.25") for part in value.split(","))
    return lengths if len(lengths) > 1 else lengths[0]


def _float_format(value: str) -> Any:
    try:
        if tables.is_number(value % 1.5):
            return lambda forecast: value % forecast
    except (TypeError, ValueError):
        pass
    raise argparse.ArgumentTypeError(f"expected a format such as %.2f, got {value!r}")


def _run(args: argparse.Namespace) -> None:
    settings = given(Forecaster, args)
    if args.fill == "skip":  # which is not the model's
        del settings["fill"]
    model = Forecaster(**settings)
    _checks.size(args.horizon, "horizon")
    if args.level is not None:
        _checks.fraction(args.level, "level")
    check_outputs((args.out, args.plot, args.output), [args.file])
    ending = _picture_format(args.plot) if args.plot else ""
    read = series.read(args)
    tell(read.said)
    verbose = int(len(read.frame) > _LONG_SERIES)
    if args.backtest:
        result = model.backtest(read.given, args.horizon, verbose=verbose)
        for name, each in result.items() if isinstance(result, dict) else [("", result)]:
            print(f"{name}\n{each}\n".lstrip("\n"))
    model.fit(read.given, verbose=verbose)
    outputs = _Outputs()
    if args.output:
        outputs.save(args.output, model.save, "the model")
    forecast = model.predict(args.horizon)
    bounds = _bounds(model, args.horizon, args.level)
    rows = read.rows(args.horizon, (forecast, *bounds))
    columns = [_cells(column, args.float_format) for column in zip(*rows, strict=True)]
    for row in zip(*columns, strict=True):
        print("  ".join(row))
    if args.out:
        text = io.StringIO()
        form = args.float_format or repr
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([c if isinstance(c, str) else form(c) for c in row] for row in rows)
        outputs.write(args.out, text.getvalue().encode(), "what was to be written")
    if args.plot:
        picture = io.BytesIO()
        level = (args.level or _LEVEL) if bounds else None
        model.plot(args.horizon, level=level).savefig(picture, format=ending)
        outputs.write(args.plot, picture.getvalue(), "the picture")
    outputs.end()


def _cells(column: Sequence[str | float], form: Callable[[float], str] | None) -> list[str]:
    """Return a column as it is shown: as wide as its widest cell."""
    numbers = [abs(cell) for cell in column if isinstance(cell, float) and math.isfinite(cell)]
    largest = max(numbers, default=0.0)
    digits = _DIGITS - 1 - math.floor(math.log10(largest)) if largest else 0
    form = form or f"{{:.{max(digits, _DECIMALS)}f}}".format
    cells = [cell if isinstance(cell, str) else form(cell) for cell in column]
    width = max(map(len, cells))
    return [cell.rjust(width) for cell in cells]


class _Outputs:
    """Files that are written; those that can't be are an error only after all others."""

    def __init__(self) -> None:
        self._written: list[str] = []
        self._errors: list[str] = []

    def save(self, path: str, write: Callable[[str], Any], what: str) -> None:
        try:
            save(path, write, what)
            self._written.append(path)
        except OSError as error:
            self._errors.append(one_line(error))

    def write(self, path: str, data: bytes, what: str) -> None:
        self.save(path, lambda path: atomic.write(path, data), what)

    def end(self) -> None:
        """Say which files were written, and raise for those that were not."""
        if self._written:
            print(f"\nwrote {', '.join(self._written)}")
        if self._errors:
            raise OSError("; ".join(self._errors))


def _bounds(model: Forecaster, horizon: int, level: float | None) -> tuple[Any, ...]:
    """Return lower and upper bounds; nothing if none were asked for, or by default can't be."""
    if level == 0:
        return ()
    try:
        return model.predict_interval(horizon, level=_LEVEL if level is None else level)
    except ValueError as error:
        if level is not None:
            raise
        tell(f"no intervals: {one_line(error)}")
    return ()


def _picture_format(path: str) -> str:
    """Return the format of a picture: what its name ends in, or PNG."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise ImportError("--plot needs matplotlib: pip install 'fastrnn[plot]'") from None
    ending = os.path.splitext(path)[1].lower()
    if ending not in _PICTURES:
        endings = ", ".join(filter(None, _PICTURES))
        raise ValueError(f"--plot: expected a name that ends in one of {endings}, got {path!r}")
    return _PICTURES[ending]
