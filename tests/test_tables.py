"""Tables that the commands read: how they may be written, and what is refused."""

from __future__ import annotations

import argparse
import bz2
import gzip
import io
import lzma
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrnn.cli import main, series, tables, times

pd = pytest.importorskip("pandas")


def read(path: str, *options: str) -> series.Series:
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    series.add_options(parser)
    return series.read(parser.parse_args([path, *options]))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that writes a file in the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(content: str | bytes, name: str = "f.csv") -> str:
        Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
        return name

    return write


def values(of: series.Series) -> list[Any]:
    return of.frame.to_numpy().T.tolist()


def after(of: series.Series, name: str = "") -> list[str]:
    """Return the times of the forecasts."""
    horizon, columns = 2, of.frame.shape[1]
    rows = of.rows(horizon, [np.zeros((horizon, columns))])
    return [str(row[0]) for row in rows[1:]]


# Separators, decimals, quotes, encodings.


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("a,b\n1,2.5\n3,-4e1\n", [], [[1, 3], [2.5, -40]]),
        ("a;b\n1;2,5\n3;4\n", [], [[1, 3], [2.5, 4]]),
        ("a\tb\n1\t2,5\n3\t.5\n", ["--decimal=,", "--columns=a"], [[1, 3]]),
        ("a|b\n1|2.5\n3|4\n", [], [[1, 3], [2.5, 4]]),
        ("a b\n1 2.5\n3 4\n", ["--sep= "], [[1, 3], [2.5, 4]]),
        ("a\tb\n1\t2.5\n", ["--sep=tab"], [[1], [2.5]]),
        ("a\n50,5\n51,5\n", [], [[50.5, 51.5]]),
        ("a;b\n1.234,5;1.234\n2,5;6.789\n", [], [[1234.5, 2.5], [1234, 6789]]),
        ('a,b\n"1,234.5","1,234"\n2,"6,789"\n', [], [[1234.5, 2], [1234, 6789]]),
        ('a,b\n"1,234",5\n"2,345",6\n', [], [[1234, 2345], [5, 6]]),
        ("a;b\n1.234;5\n2.345;6\n", ["--decimal=."], [[1.234, 2.345], [5, 6]]),
        ("a;b\n1.234;5\n2.345;6\n", ["--decimal=,"], [[1234, 2345], [5, 6]]),
        ("a;b\n0.234;5\n2.345;6\n", [], [[0.234, 2.345], [5, 6]]),
        ("a;b\n1.234.567;5\n2;6\n", [], [[1234567, 2], [5, 6]]),
        ("a;b\n1 234,5;1'000\n2\u202f345\u202f678;6\n", [], [[1234.5, 2345678], [1000, 6]]),
        ("a,b\n12 %,$ 5\n13%,-$6.50\n", [], [[12, 13], [5, -6.5]]),
        ("a,b\n\u22125, 6\n+7 ,8\n", [], [[-5, 7], [6, 8]]),
        ('"a";"b"\n"1,5";"2"\n', [], [[1.5], [2]]),
        ("sep=;\na;b\n1;2\n", [], [[1], [2]]),
        ("# of a station\n\na,b\n1,2\n", [], [[1], [2]]),
        ("# of a station\n# a,b\n1,2\n3,4\n", [], [[1, 3], [2, 4]]),
        ("# Berlin, 2020\na,b\n1,2\n3,4\n", [], [[1, 3], [2, 4]]),
        ("#a\n1\n3\n", [], [[1, 3]]),
        ("a,b,\n1,2,\n3,4,\n,,\n,,\n", [], [[1, 3], [2, 4]]),
        (" a , b\n1,2\n", ["--columns=b,a"], [[2], [1]]),
        ("a,b\r\n1,2\r\n3,4\r\n", [], [[1, 3], [2, 4]]),
        ("a,b\r1,2\r3,4", [], [[1, 3], [2, 4]]),
        ("a,note\n1,x\n2,\n", [], [[1, 2]]),
        ("a\n1\nNA\n\n4\n", ["--fill=linear"], [[1, np.nan, np.nan, 4]]),
        ("0.1234567890123456789,a\n", ["--columns=no"], None),
    ],
)
def test_numbers(
    text: str, options: list[str], expected: list[Any] | None, file: Callable[..., str]
) -> None:
    path = file(text)
    if expected is None:
        with pytest.raises(ValueError, match="header"):
            read(path, *options)
    else:
        chosen = [] if any("--col" in option for option in options) else [*"ab"[: len(expected)]]
        of = read(path, "--time=none", *options, *(f"--column={name}" for name in chosen))
        np.testing.assert_array_equal(values(of), expected)


def test_all_digits(file: Callable[..., str], rng: np.random.Generator) -> None:
    given = rng.standard_normal(200) * 10.0 ** rng.integers(-30, 30, 200)
    assert values(read(file("a\n" + "\n".join(map(repr, given.tolist())))))[0] == given.tolist()
    german = "a;b\n" + "".join(f"{x!r};1\n".replace(".", ",") for x in given.tolist())
    assert values(read(file(german), "--time=none"))[0] == given.tolist()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("f.csv", "größe;b\n1,5;2\n".encode("utf-8-sig")),
        ("f.csv", "größe;b\n1,5;2\n".encode("utf-16")),
        ("f.csv", "\ufeffgröße;b\n1,5;2\n".encode("utf-16-be")),
        ("f.csv", "größe;b\n1,5;2\n".encode("utf-32")),
        ("f.csv.gz", gzip.compress("größe;b\n1,5;2\n".encode())),
        ("f.csv.bz2", bz2.compress("größe;b\n1,5;2\n".encode())),
        ("f.csv.xz", lzma.compress("größe;b\n1,5;2\n".encode("utf-16"))),
        ("f.tsv.gz", gzip.compress("größe\tb\n1,5\t2\n".encode())),
    ],
    # Workers of pytest-xdist compare names, and the bytes of a gzip file contain the time.
    ids=["utf-8", "utf-16", "utf-16-be", "utf-32", "gzip", "bzip2", "xz", "tsv"],
)
def test_encodings_and_compression(name: str, data: bytes, file: Callable[..., str]) -> None:
    of = read(file(data, name))
    assert values(of) == [[1.5], [2]]
    assert [*of.frame] == ["größe", "b"]
    assert "decimal comma" in of.said


def test_archives(file: Callable[..., str]) -> None:
    def archive(*names: str) -> bytes:
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as zipped:
            for name in names:
                zipped.writestr(name, "a,b\n1,2\n")
        return data.getvalue()

    assert values(read(file(archive("x.csv"), "x.zip"))) == [[1], [2]]
    for names, said in ((("a", "b"), "one file, got 2"), (("x", "xl/workbook.xml"), "save it as")):
        with pytest.raises(ValueError, match=f"x.zip: can't be decompressed: .*{said}"):
            read(file(archive(*names), "x.zip"))
    with pytest.raises(ValueError, match=r"x.gz: can't be decompressed: "):
        read(file(gzip.compress(b"a,b\n1,2\n")[:-9], "x.gz"))


def test_zstandard(file: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = file(b"\x28\xb5\x2f\xfd...")
    monkeypatch.setitem(sys.modules, "compression", None)
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    with pytest.raises(ValueError, match=r"can't be decompressed: .*pip install backports.zstd"):
        read(path)
    module = argparse.Namespace(open=lambda file: io.BytesIO(b"a,b\n1,2\n"))
    monkeypatch.setitem(sys.modules, "backports.zstd", module)
    assert values(read(path)) == [[1], [2]]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("ä;b\n1,5;2\n".encode("cp1252"))))
    of = read("-", "--encoding=cp1252")
    assert values(of) == [[1.5], [2]]
    assert of.said.startswith("standard input: 2 columns (ä, b), 1 row,")


def test_quotes(file: Callable[..., str]) -> None:
    """None in TSV; elsewhere those that do not end are no reason to swallow rows."""

    def columns(text: str, name: str = "f.csv", *options: str) -> dict[str, list[str]]:
        parser = argparse.ArgumentParser()
        tables.add_options(parser)
        return dict(tables.read(file(text, name), parser.parse_args(options)).columns)

    assert columns('a\tb\n"x\t1\n"y\t2\n') == {"a": ['"x', '"y'], "b": ["1", "2"]}
    assert columns('a,b\n"x, ""y""\nz",1\n') == {"a": ['x, "y"\nz'], "b": ["1"]}
    assert columns('a,b\nx "y" z,1\n') == {"a": ['x "y" z'], "b": ["1"]}
    assert columns("a,b\n'x,y',1\n", "f.csv", "--quote='") == {"a": ["x,y"], "b": ["1"]}
    for text in ('a,b\n1,"x\n2,"y\n', 'a,b\n1,"x\n2,y\n'):
        with pytest.raises(ValueError, match=r"f.csv: row 2: a quoted cell .*--quote none"):
            columns(text)
        assert len(columns(text, "f.csv", "--quote=none")["b"]) == 2
    long = "word " * 100_000
    assert columns(f"a,b\n{long},1\n")["a"] == [long]
    assert columns("a,b\nx\u2028\x0cy,1\n")["a"] == ["x\u2028\x0cy"]


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("", [], "f.csv: is empty"),
        ("\n\n", [], "f.csv: expected a header of distinct names, and a row or more"),
        ("a,b\n", [], "f.csv: expected a header of distinct names, and a row or more"),
        ("a,b,a\n1,2,3\n", [], "f.csv: expected a header of distinct names, .* got 'a' twice"),
        ("1,2\n3,4\n", [], "f.csv: expected a header of distinct names, .* got 1, 2"),
        ("2020-01-01,2\n2020-01-02,4\n", [], "f.csv: expected a header of distinct names"),
        ("a,b\n1,2\n3\n", [], "f.csv: row 3: expected 2 columns, got 1"),
        ("a,b\n1,2,3\n", [], "f.csv: row 2: expected 2 columns, got 3 .*--sep names another"),
        ("a,b\n1,2\n\n3,4\n", [], "f.csv: row 3: expected 2 columns, got 0"),
        ("a,b\n1,2\n3,x\n", [], "f.csv: row 3, column 'b': expected a number, got 'x'"),
        ("# c\n\na,b\n1,2\n3,x\n", [], "f.csv: row 5, column 'b': expected a number, got 'x'"),
        ("a,b\n1,2\n3,inf\n", [], "f.csv: row 3, column 'b': expected a number, got 'inf'"),
        ("a,b\n1,2\n3,1e999\n", [], "row 3, column 'b': expected a finite number, got '1e999'"),
        ("a,b\n1,2\n3,NaN\n", [], r"row 3, column 'b': expected a number \(--fill .*got 'NaN'"),
        ("a,b\n1,2\n3,\n", [], r"row 3, column 'b': expected a number \(--fill .*got an empty"),
        ("a,b\n1,2_0\n3,4\n", [], "row 2, column 'b': expected a number, got '2_0'"),
        ("a,b\n1,2%\n3,4\n", [], "row 3, column 'b': expected a number with '%' as in row 2"),
        ("a,b\n1,2\n3,$4\n", [], "row 3, column 'b': expected a number alone, got '\\$4'"),
        ('a,b\n1,"2,34"\n3,4.5\n', [], "row 3, column 'b': '4.5' has a decimal point, but row 2"),
        ("a\tb\n1\t1,234\n", [], "row 2, column 'b': '1,234': thousands or decimals"),
        ("a;b\n1;1.234\n", [], "row 2, column 'b': '1.234': thousands or decimals"),
        ("a;b\n1;1,5\n", ["--decimal=."], "expected a number with the decimal mark '.'"),
        ("a;b\n1;1,5\n", ["--decimal=;"], "--decimal: expected a character"),
        ('a\tb\n1\t"2"\n', ["--columns=b"], "expected a number .--quote reads quoted cells., got"),
        ("a,b\n1,2\n", ["--sep=xy"], "--sep: expected one character, or tab, got 'xy'"),
        ("a,b\n1,2\n", ["--quote=xy"], "--quote: expected one character, or none, got 'xy'"),
        ("a,b;c\n1,2;3\n", [], "f.csv: cells may be separated by ';' or ','; --sep says"),
        ("a b\n1 2\n", [], "expected a column of numbers, got 'a b' .*--sep names"),
        ("a,b\nx,y\n", [], "f.csv: expected a column of numbers, got 'a', 'b'"),
        ("a,b\n1,x\n2,y\n", ["--time=a"], "a column of numbers besides 'a', got 'b'"),
        ("a\n1\n2\n", ["--time=a"], "a column of numbers besides 'a', got none"),
        (
            "sales,b\n1,2\n",
            ["--columns=b,sale"],
            "expected a column 'sale', .* did you mean 'sales'",
        ),
        ("a,b\n1,2\n", ["--column=B"], "expected a column 'B', got a, b; did you mean 'b'"),
        ("a,b\n1,2\n", ["--time=when"], "expected a column 'when', got a, b .--time says"),
        ("a,b\n1,2\n", ["--id=when"], "expected a column 'when', got a, b .--id says"),
        ("größe,b\n1,2\n", ["--encoding=ascii"], "f.csv: is not ASCII text: .*--encoding names"),
        ("a,b\n1,2\n", ["--encoding=martian"], "--encoding: expected one that Python knows"),
        ("a,b\n1,2\n".encode("utf-16-le").decode(), [], "f.csv: is not text: .*--encoding utf-16"),
        ("m,v\nx,1\ny,2\nTotal:,3\n", [], "row 4, column 'm': expected a row like the others"),
        (
            "v\n" + "1" * 200_000,
            [],
            "row 2, column 'v': expected a finite number, got '1{40}'\\.\\.\\.$",
        ),
    ],
)
def test_refused(text: str, options: list[str], said: str, file: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match=said):
        read(file(text), *options)


# Times.


def table(form: str | Callable[[Any], str], freq: str, n: int = 30, **more: Any) -> str:
    """Return a table of dates."""
    show = form if callable(form) else lambda time: time.strftime(form)
    dates = pd.date_range(**{"start": "2020-01-01", "periods": n, "freq": freq} | more)
    return "when;v\n" + "".join(f"{show(time)};{k % 7}\n" for k, time in enumerate(dates))


def quarter(form: str) -> Callable[[Any], str]:
    return lambda time: form.format(time.year, time.quarter)


def since(unit: int) -> Callable[[Any], str]:
    return lambda time: str(int(time.timestamp()) * unit)


@pytest.mark.parametrize(
    ("text", "options", "said", "expected"),
    [
        (table("%Y-%m-%d", "D"), [], "2020-01-01 to 2020-01-30, daily", "2020-01-31 2020-02-01"),
        (table("%Y/%m/%d", "W-SUN"), [], "weekly", "2020/08/02 2020/08/09"),
        (table("%Y%m%d", "D"), [], "daily", "20200131 20200201"),
        (table("%Y-%m-%d", "B"), [], "on business days", "2020-02-12 2020-02-13"),
        (table("%Y-%m-%d", "ME"), [], "monthly", "2022-07-31 2022-08-31"),
        (table("%Y-%m-%d", "BME"), [], "monthly", "2022-07-29 2022-08-31"),
        (table("%Y-%m-15", "MS"), [], "monthly", "2022-07-15 2022-08-15"),
        (table("%Y-%m-%d", "QS"), [], "quarterly", "2027-07-01 2027-10-01"),
        (table("%Y-%m-%d", "YE"), [], "yearly", "2050-12-31 2051-12-31"),
        (table("%Y-%m", "MS"), [], "2020-01 to 2022-06, monthly", "2022-07 2022-08"),
        (table("%Y-%m-%d", "31D", 4), [], "every 31D", "2020-05-04 2020-06-04"),
        (table("%Y-%m-%d", "MS", 2), [], "monthly", "2020-03-01 2020-04-01"),
        (table("%Y-%m-%d", "2ME"), [], "every 2 months", "2025-01-31 2025-03-31"),
        (table("%m.%Y", "MS"), [], "01.2020 to 06.2022, monthly", "07.2022 08.2022"),
        (table("%Y%m", "MS").replace("when", "month"), [], "monthly", "202207 202208"),
        (table("%m/%Y", "MS"), [], "01/2020 to 06/2022, monthly", "07/2022 08/2022"),
        (table("%b %Y", "MS"), [], "monthly", "Jul 2022 Aug 2022"),
        (table("%B %Y", "MS"), [], "monthly", "July 2022 August 2022"),
        (table("%Y %b", "MS"), [], "monthly", "2022 Jul 2022 Aug"),
        (table("%d-%b-%Y", "D"), [], "daily", "31-Jan-2020 01-Feb-2020"),
        (table("%B %d, %Y", "D"), [], "daily", "January 31, 2020 February 01, 2020"),
        (table("%Y-%m-%d %H:%M", "h"), [], "hourly", "2020-01-02 06:00 2020-01-02 07:00"),
        (table("%d.%m.%Y %H:%M:%S", "30s"), [], "every 30s",
         "01.01.2020 00:15:00 01.01.2020 00:15:30"),
        (table("%m/%d/%Y %I:%M %p", "12h", 40), [], "every 12h",
         "01/21/2020 12:00 AM 01/21/2020 12:00 PM"),
        (table("%Y-%m-%dT%H:%M:%SZ", "15min"), [], "every 15min",
         "2020-01-01T07:30:00Z 2020-01-01T07:45:00Z"),
        (table("%d/%m/%Y", "D"), [], "daily", "31/01/2020 01/02/2020"),
        (table("%m/%d/%Y", "D"), [], "daily", "01/31/2020 02/01/2020"),
        (table("%d.%m.%Y", "MS", 12), [], "monthly", "01.01.2021 01.02.2021"),
        (table("%d/%m/%Y", "MS", 12), ["--dayfirst"], "monthly", "01/01/2021 01/02/2021"),
        (table("%d/%m/%Y", "MS", 12), ["--no-dayfirst"], "daily", "01/13/2020 01/14/2020"),
        (table("%d.%m.%y", "D"), ["--time-format=%d.%m.%y"], "daily", "31.01.20 01.02.20"),
        (table(quarter("{}Q{}"), "QS"), [], "2020Q1 to 2027Q2, quarterly", "2027Q3 2027Q4"),
        (table(quarter("Q{1} {0}"), "QS"), [], "quarterly", "Q3 2027 Q4 2027"),
        (table("%G-W%V", "W-MON"), [], "2020-W02 to 2020-W31, weekly", "2020-W32 2020-W33"),
        (table("%GW%V-%u", "D"), [], "daily", "2020W05-5 2020W05-6"),
        (table(since(1), "h"), ["--time=when"], "hourly", "1577944800 1577948400"),
        (table(since(1000), "MS").replace("when", "timestamp"), [], "monthly",
         "1656633600000 1659312000000"),
        (table("%Y", "YS"), ["--time=when"], "2020 to 2049, yearly", "2050 2051"),
        (table("%Y", "YS").replace("when", "Year"), [], "2020 to 2049, yearly", "2050 2051"),
        (table("%Y", "10YS", 20).replace("when", "x"), [], "10 apart", "2220 2230"),
        (table("%Y%m", "MS").replace("when", "x"), ["--time-format=%Y%m"], "monthly",
         "202207 202208"),
        (table("%Y;%m", "MS").replace("when", "Year;Month"), [], "2020-01 to 2022-06, monthly",
         "2022-07 2022-08"),
        (table("%Y;%b;%d", "D").replace("when", "year;month;day"), [], "daily",
         "2020-Jan-31 2020-Feb-01"),
        (table(quarter("{};{}"), "QS").replace("when", "Year;Quarter"), [], "to 2027-Q2, quarterly",
         "2027-Q3 2027-Q4"),
        ("id,year,v\n1,2003,2\n2,2002,3\n3,2001,1\n", [], "2001 to 2003, yearly, sorted by time",
         "2004 2005"),
        (table("%G;%V", "7D").replace("when", "year;week"), [], "2020-W01 to 2020-W30, weekly",
         "2020-W31 2020-W32"),
        ("t;v\n0,5;1\n1,0;2\n1,5;2\n", [], "0,5 to 1,5, 0.5 apart", "2,0 2,5"),
        ("date,v\nMon 3 Feb 2020,1\nTue 4 Feb 2020,2\n", ["--time-format=%a %d %b %Y"], "daily",
         "Wed 05 Feb 2020 Thu 06 Feb 2020"),
        ("date,v\nMon 3 Feb 2020,1\nTue 4 Feb 2020,2\n", ["--time=none"], "without times", "1 2"),
        (table("%d.%m.%Y;%H:%M", "h").replace("when", "Date;Time"), [], "hourly",
         "02.01.2020 06:00 02.01.2020 07:00"),
        ("v\n1.5\n2\n", [], "in order, without times", "1 2"),
        (",v\n0,1\n1,2\n2,0\n", [], "0 to 2, 1 apart", "3 4"),
        ("ts,v\n1577836801.0,1\n1577836800.5,2\n", [], "0.5 apart, sorted by time",
         "1577836801.5 1577836802.0"),
        ("t,v\n0.0,1\n0.1,2\n0.2,0\n0.3,1\n", [], "0.0 to 0.3, 0.1 apart", "0.4 0.5"),
        ("time,v\n" + "".join(f"{1949 + k / 12:.3f},1\n" for k in range(40)), [], "apart",
         "1952.333 1952.417"),
    ],
)  # fmt: skip
def test_times(
    text: str, options: list[str], said: str, expected: str, file: Callable[..., str]
) -> None:
    of = read(file(text), *options)
    assert of.said.endswith(said)
    assert " ".join(after(of)) == expected
    assert [*of.frame] == ["v"]


def test_changes_between_winter_and_summer(file: Callable[..., str]) -> None:
    berlin = {"start": "2020-03-28", "tz": "Europe/Berlin"}
    hours = read(file(table(lambda time: time.isoformat(), "h", 60, **berlin)))
    assert hours.said.endswith("2020-03-27T23:00:00+00:00 to 2020-03-30T10:00:00+00:00, hourly")
    days = read(file(table(lambda time: time.isoformat(), "D", 60, **berlin)))
    assert days.said.endswith("daily")
    assert after(days)[0] == "2020-05-27T00:00:00"


def test_rows_are_sorted(file: Callable[..., str]) -> None:
    header, *rows = table("%d/%m/%Y", "D").splitlines()
    of, newest_first = (read(file("\n".join([header, *lines]))) for lines in (rows, reversed(rows)))
    pd.testing.assert_frame_equal(of.frame, newest_first.frame)
    assert newest_first.said == of.said + ", sorted by time"
    shuffled = [rows[k] for k in np.random.default_rng(0).permutation(len(rows))]
    pd.testing.assert_frame_equal(read(file("\n".join([header, *shuffled]))).frame, of.frame)
    assert isinstance(of.frame.index, pd.DatetimeIndex)
    assert of.frame.index.freq is not None
    assert of.frame.index.name == "when"


def test_gaps_and_duplicates(file: Callable[..., str]) -> None:
    header, *rows = table("%Y-%m-%d", "D").splitlines()
    without = "\n".join([header, *rows[:4], *rows[6:]])
    with pytest.raises(
        ValueError, match=r"f.csv: nothing for 2020-01-05, after row 5 \(2020-01-04"
    ):
        read(file(without))
    of = read(file(without), "--fill=linear")
    assert np.flatnonzero(of.frame["v"].isna()).tolist() == [4, 5]
    assert of.said.endswith("28 rows, 2020-01-01 to 2020-01-30, daily, values to fill in: 2")
    assert len(read(file(without), "--fill=skip").frame) == 28
    twice = "\n".join([header, *rows, "2020-01-03;12"])
    with pytest.raises(
        ValueError, match=r"f.csv: rows 4 and 32 are both of 2020-01-03; --id .*--fill"
    ):
        read(file(twice))
    assert read(file(twice), "--fill=0").frame["v"].iloc[2] == (2 + 12) / 2
    business = "\n".join(
        line for line in table("%Y-%m-%d", "B").splitlines() if "01-08" not in line
    )
    with pytest.raises(ValueError, match=r"nothing for 2020-01-08, .* on business days"):
        read(file(business))
    with pytest.raises(ValueError, match=r"nothing for 1907, after row 8 .1906., though .* yearly"):
        read(file("year,v\n" + "".join(f"{k},1\n" for k in range(1900, 1950) if k != 1907)))
    for cell in ("", "x"):
        with pytest.raises(ValueError, match=r"row 3, column 'year': expected a year .--time none"):
            read(file("year,v\n2000,1\n" + cell + ",2\n2002,3\n2003,4\n"), "--fill=mean")
    newest_first = read(file("year,v\n2003,\n2002,3\n2001,2\n2000,1\n"), "--fill=mean")
    assert after(newest_first) == ["2004", "2005"]
    for years, known in (("2004 2003 2001 2000", True), ("2001 2000 2003 2002", True),
                         ("1204 2000 1100 1904", False)):  # fmt: skip
        text = "v,TIME_PERIOD\n" + "".join(f"{k * k},{y}\n" for k, y in enumerate(years.split()))
        of = read(file(text), "--fill=mean")
        assert list(of.frame.columns) == (["v"] if known else ["v", "TIME_PERIOD"])
    uneven = "t,v\n2020-01-01 00:00,1\n2020-01-01 01:00,2\n2020-01-01 02:00,2\n2020-01-01 02:31,2\n"
    with pytest.raises(ValueError, match=r"equally spaced times, .*rows 4 and 5.*--fill skip"):
        read(file(uneven))
    assert after(read(file(uneven), "--fill=skip"))[0] == "2020-01-01 03:31"


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (table("%d/%m/%Y", "MS", 12), [], "'01/02/2020' may be 2020-02-01 or 2020-01-02; --dayf"),
        (table("%d/%m/%y", "D"), [], "'01/01/20' has a year of two digits; --time-format says"),
        (table("%b-%y", "MS"), [], "'Jan-20' has a year of two digits"),
        (table("%Y-%m-%d", "D") + "Total;9\n", [],
         "row 32, column 'when': expected a date such as"),
        (table("%Y-%m-%d", "D") + ";9\n", [], "row 32, column 'when': .* got an empty cell"),
        (table("%Y-%m-%d", "D") + "2020-02-30;9\n", [], "row 32, .* got '2020-02-30'"),
        (table("%Y-%m-%d;%Y-%m-%d", "D").replace("when", "a;b"), [],
         "columns 'a' and 'b' hold dates"),
        ("date,v\nMon 3 Feb 2020,1\nTue 4 Feb 2020,2\n", [], "column 'date' may hold times, such"),
        ("x,v\n3. März 2020,1\n4. März 2020,2\n", [], "column 'x' may hold times, .*--time none"),
        ("date,v\n45292,1\n45323,2\n45352,4\n", [], "column 'date' may hold times, such as '4529"),
        ("time,v\n12:30,1\n12:31,2\n", [], "column 'time' may hold times, such as '12:30'"),
        ("t,v\n2020-01-01 00:00,1\n2020-01-02 00:00Z,2\n", [],
         "'t': some times have an offset from UTC"),
        ("t,v\n2020-01-01T00:00Z,1\n2020-01-02,2\n", [], "'t': some times have an offset from"),
        ("t,v\n2020-01-01,1\n2020-01-01,2\n", ["--fill=0"], "expected rows of several times"),
        ("a,v\nx,1\ny,2\n", ["--time=a"], "row 2, column 'a': expected a date or a whole number"),
        (table("%Y-%m-%d", "D"), ["--time=when", "--time-format=%d.%m.%Y"],
         "row 2, column 'when': expected"),
        (table("%Y-%m-%d", "D"), ["--time-format=%d.%m.%Y"], "expected a column of dates written"),
        (table("%Y-%m-%d", "D"), ["--time-format=%Q"], "--time-format: "),
    ],
)  # fmt: skip
def test_times_refused(text: str, options: list[str], said: str, file: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match=said):
        read(file(text), *options)


def test_what_counts_is_no_series(file: Callable[..., str]) -> None:
    text = "date,year,month,id,v,w\n" + "".join(
        f"2020-01-{k:02},2020,1,{k},{k * k % 5},{k}.5\n" for k in range(1, 20)
    )
    assert [*read(file(text)).frame] == ["v", "w"]
    assert [*read(file(text), "--columns=id").frame] == ["id"]
    codes = "code,v\n" + "".join(f"{k % 9 + 1}.{1234 + k},{k * k % 5}\n" for k in range(20))
    assert [*read(file(codes)).frame] == ["code", "v"]
    shops = "shop,v\n" + "".join(f"shop {k},{k * k % 5}\n" for k in range(10, 20))
    assert read(file(shops)).said.endswith("in order, without times")
    assert not times.is_counter(tables.Table("f", ",", {"a": ["1", "2"], "v": ["1", "3"]}, 2), "v")


def test_many_series(file: Callable[..., str]) -> None:
    text = "day,store,sales\n" + "".join(
        f"2020-01-{k:02},{s},{k}\n" for k in range(20, 0, -1) for s in "ab" if s == "b" or k < 9
    )
    with pytest.raises(ValueError, match=r"rows 28 and 29 are both of 2020-01-01; --id names"):
        read(file(text))
    of = read(file(text), "--id=store")
    assert {name: len(frame) for name, frame in of.frames.items()} == {"b": 20, "a": 8}
    assert of.said == (
        "f.csv: 2 series by store, 1 column (sales), 28 rows, 2020-01-01 to 2020-01-20, daily, "
        "sorted by time"
    )
    result = {name: np.arange(2.0) for name in of.frames}
    rows = of.rows(2, [result, result, result])
    assert rows[0] == ["store", "day", "sales", "sales lower", "sales upper"]
    assert [row[:3] for row in rows[1:]] == [
        ["b", "2020-01-21", 0.0],
        ["b", "2020-01-22", 1.0],
        ["a", "2020-01-09", 0.0],
        ["a", "2020-01-10", 1.0],
    ]
    with pytest.raises(ValueError, match="row 2, column 'store': expected the id of a series"):
        read(file(text.replace("20,b", "20, ", 1)), "--id=store")


def test_without_pandas(
    file: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    for args in (["forecast", file("a\n1\n")], ["classify", "train", file("a\n1\n"), "-o", "m"]):
        assert main(args) == 2
        said = "fastrnn: error: reading tables needs pandas: pip install 'fastrnn[data]'\n"
        assert capsys.readouterr().err == said
