"""What a training shows: bars, lines and pictures."""

from __future__ import annotations

import io
import os
import pickle
import re
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fastrnn import GRU, Linear, Sequential
from fastrnn.callbacks import Callback, History, ProgressBar
from fastrnn.models import progress
from fastrnn.models.progress import Display

NUMBERS = {"loss": 0.12345, "accuracy": 0.9, "val_loss": 0.23456, "val_accuracy": 0.8}
SAID = ["loss 0.1235", "accuracy 0.9", "val_loss 0.2346", "val_accuracy 0.8"]


def small() -> Sequential:
    model = Sequential([GRU(2, 3, return_sequences=False), Linear(3, 1)], seed=0)
    model.compile("adam", "mse", ["mae"])
    return model


@pytest.fixture
def data(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.standard_normal((22, 5, 2)), rng.standard_normal(22)


def show(
    display: Display,
    title: str = "epoch 1/2",
    numbers: Any = NUMBERS,
    done: float = 0.5,
    count: int = 5,
) -> None:
    """Show all of a work whose drawings are all due."""
    display.begin(title)
    display._next = -1.0
    display.update(count, done, numbers)
    display.end(2 * count, numbers)
    display.close()


class Terminal:
    """A pseudo-terminal as stderr, and all that was written to it."""

    def __init__(self, columns: int, rows: int, encoding: str = "utf-8") -> None:
        import fcntl
        import termios

        self.master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        self.stream = os.fdopen(slave, "w", encoding=encoding)
        self.written = b""
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self) -> None:
        try:
            while some := os.read(self.master, 10_000):
                self.written += some
        except OSError:  # closed
            pass

    def lines(self) -> list[str]:
        """Return what was ever on a line, and end."""
        self.stream.close()
        self.reader.join()
        os.close(self.master)
        text = self.written.decode(self.stream.encoding)
        return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def make(*size: int, **options: Any) -> Terminal:
        made.append(Terminal(*size, **options))
        monkeypatch.setattr(sys, "stderr", made[-1].stream)
        return made[-1]

    monkeypatch.delenv("TERM", raising=False)
    yield make
    for one in made:
        if not one.stream.closed:
            one.lines()


posix = pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals")


# Lines, where stderr is a pipe or a file.


def test_a_line_per_epoch(data: Any, capsys: pytest.CaptureFixture[str]) -> None:
    model = small()
    model.fit(*data, epochs=2, validation_split=0.2, verbose=2)
    model.fit(*data, callbacks=[ProgressBar()], verbose=0)
    model.fit(*data, callbacks=[ProgressBar()])  # not twice
    model.fit(*data, verbose=0)
    model.fit(*data, epochs=9, batch_size=3)
    out, err = capsys.readouterr()
    assert out == ""
    titles = ["1/2", "2/2", "1/1", "1/1", *(f"{k}/9" for k in range(1, 10))]
    assert [line.split()[1] for line in err.splitlines()] == titles
    said = r"epoch 2/2  \d+\.\d s  loss \S+, mae \S+, val_loss \S+, val_mae \S+, [\d,]+ seq/s"
    assert re.fullmatch(said, err.splitlines()[1])


def test_lines_of_work_without_epochs_grow_rare(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    for title in ("epoch 1/1", ""):
        display = Display("char", units={"loss": "nats"})
        display.begin(title)
        for second in range(1, 301):
            now[0] += 1
            display.update(second * 1000, second / 300, {"loss": 1.5})
        display.end(300_000, {"loss": 1.0})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "epoch 1/1  300.0 s  loss 1 nats, 1,000 char/s"
    assert lines[1] == "  2%  loss 1.5 nats, 1,000 char/s, 295 s left"
    assert lines[-1] == "100%  300.0 s  loss 1 nats, 1,000 char/s"
    assert 20 < len(lines) < 35


def test_work_of_unknown_length(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    display = Display("seq")
    display.begin("")
    now[0] += 6
    display.update(1200, 0.0, {"loss": 1.5})
    assert capsys.readouterr().err == "6 s  1,200 seq, loss 1.5, 200 seq/s\n"


def test_lines_need_no_tqdm() -> None:
    code = """
import sys, numpy, fastrnn
model = fastrnn.Sequential([fastrnn.Linear(1, 1)])
model.compile("sgd", "mse")
model.fit(numpy.ones((3, 2, 1)), numpy.ones((3, 2, 1)))
print("tqdm" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n"
    assert done.stderr.startswith("epoch 1/1  0.")


# Bars.


@posix
@pytest.mark.parametrize("columns", [200, 80, 60, 40, 20])
def test_numbers_have_the_first_place(columns: int, terminal: Any) -> None:
    screen = terminal(columns, 24)
    show(Display("seq"))
    lines = screen.lines()
    assert max(map(len, lines)) < columns
    at = next(i for i, line in enumerate(lines) if "100%" in line or "0.0 s" in line)
    assert re.findall(r"(?:val_)?(?:loss|accuracy) [\d.]+", " ".join(lines[at:])) == SAID
    middle = next(line for line in lines[:at] if " 50%" in line)
    assert SAID[0] in middle
    assert ("|" in middle) == (columns > 80)
    assert ("seq/s" in middle) == (columns == 200)
    for number in re.findall(r"[a-z_]+ 0[\d.]*", middle):
        assert number in SAID, "cut"


@posix
@pytest.mark.parametrize("size", [(0, 0), (100, 24)])
def test_a_training_on_a_terminal(size: Any, terminal: Any, data: Any) -> None:
    """A new pseudo-terminal has no size."""
    screen = terminal(*size)
    small().fit(*data, epochs=2, batch_size=4)
    lines = screen.lines()
    assert any(line.startswith("epoch 1/2 100%|██") for line in lines)
    assert "loss" in lines[-1]
    assert "mae" in lines[-1]


@posix
@pytest.mark.parametrize(
    ("columns", "seen"),
    [
        (80, "00:00, 1,234 seq, loss 0.1235, accuracy 0.9, val_loss 0.2346"),
        (40, "00:00, 1,234 seq"),
    ],
)
def test_a_bar_of_unknown_length(columns: int, seen: str, terminal: Any) -> None:
    screen = terminal(columns, 24)
    show(Display("seq"), done=0.0, count=1234)
    (line,) = (line for line in screen.lines() if "1,234 seq" in line)
    assert line.startswith(f"epoch 1/2 {seen}")
    assert len(line) < columns


@posix
def test_bars_follow_the_width(terminal: Any) -> None:
    import fcntl
    import termios

    screen = terminal(150, 24)
    display = Display("seq")
    for columns in (150, 50):
        fcntl.ioctl(screen.master, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
        show(display)
    widths = [len(line) for line in screen.lines()]
    assert max(widths) == 148
    assert widths[-1] < 50


@posix
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_shows_what_its_encoding_has(encoding: str, terminal: Any) -> None:
    screen = terminal(120, 24, encoding=encoding)
    show(Display("seq"), "época 1/2", {"précision→": 0.5})
    text = "\n".join(screen.lines())
    bar, metric = {
        "ascii": ("#####", r"pr\xe9cision\u2192 0.5"),
        "latin-1": ("#####", r"précision\u2192 0.5"),
        "utf-8": ("█████", "précision→ 0.5"),
    }[encoding]
    assert bar in text
    assert metric in text


@posix
@pytest.mark.parametrize(
    ("name", "value", "bars"),
    [("TERM", "dumb", False), ("TERM", "xterm", True), ("NO_COLOR", "1", True)],
)
def test_environment(
    name: str, value: str, bars: bool, terminal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    screen = terminal(100, 24)
    show(Display("seq"))
    assert ("%|" in "".join(screen.lines())) is bars
    assert b"\x1b" not in screen.written


@posix
@pytest.mark.parametrize(
    ("colour", "seen"), [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)]
)
def test_no_color(colour: dict[str, str], seen: bool) -> None:
    """TQDM_COLOUR is tqdm's own variable, read as tqdm is imported."""
    code = "from fastrnn.models.progress import Display; d = Display('x'); d.begin('t'); d.close()"
    screen = Terminal(80, 24)
    environment = {**os.environ, "TQDM_COLOUR": "green", "TERM": "xterm", **colour}
    command = [sys.executable, "-P", "-c", code]
    assert subprocess.run(command, stderr=screen.stream, env=environment).returncode == 0
    screen.lines()
    assert (b"\x1b[32m" in screen.written) is seen


@posix
def test_tqdms_own_switch() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_progress as t"
    code += "; t.show(t.Display('x')); t.show(t.Display('x'), '')"
    screen = Terminal(80, 24)
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    subprocess.run(command, stderr=screen.stream, env={**os.environ, "TQDM_DISABLE": "1"})
    assert screen.lines() == []


@posix
def test_ctrl_c_leaves_a_clean_line(terminal: Any, data: Any) -> None:
    class Interrupt(Callback):
        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            raise KeyboardInterrupt

    screen = terminal(100, 24)
    assert small().fit(*data, epochs=2, callbacks=[Interrupt()]).interrupted
    print("next", file=sys.stderr)
    assert screen.lines()[-1] == "next"
    assert screen.written.endswith(b"\nnext\r\n")


@posix
def test_trainings_within_trainings_and_in_threads(terminal: Any, data: Any) -> None:
    class Inner(Callback):
        def on_epoch_end(self, epoch: int, logs: Any) -> None:
            small().fit(*data, verbose=2)
            small().fit(*data, epochs=2)

    screen = terminal(150, 24)
    options = {"epochs": 3, "callbacks": [Inner()]}
    threads = [threading.Thread(target=small().fit, args=data, kwargs=options) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [re.sub(r"\x1b\[A|^ +", "", line) for line in screen.lines()]
    for k in (1, 2, 3):
        assert any(line.startswith(f"epoch {k}/3 100%|") for line in lines)
    assert sum(bool(re.match(r"epoch 1/1  \d", line)) for line in lines) == 9
    assert not progress._tqdm()._instances
    assert {thread.name for thread in threading.enumerate() if "tqdm" in repr(thread)} == set()


class Notebook(ModuleType):
    """Stands for IPython in a kernel, and keeps what a cell shows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__("IPython")

        class OutStream(io.StringIO):
            __module__ = "ipykernel.iostream"

        monkeypatch.setattr(sys, "stdout", OutStream())
        monkeypatch.setattr(sys, "stderr", OutStream())
        monkeypatch.setitem(sys.modules, "IPython", self)
        monkeypatch.setitem(sys.modules, "IPython.display", self)
        self.shown: list[list[str]] = []
        self.execution_count = 1

    def display(self, data: Any, raw: bool, display_id: bool) -> Any:
        assert raw
        assert display_id
        self.shown.append([data["text/plain"]])
        return self

    def update(self, data: Any, raw: bool) -> None:
        assert raw
        self.shown[-1].append(data["text/plain"])

    def get_ipython(self) -> Any:
        return self


def test_a_notebook_without_widgets_has_bars_of_text(
    data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = Notebook(monkeypatch)
    small().fit(*data, epochs=2, batch_size=4)
    small().fit(*data, verbose=2)
    assert sys.stderr.getvalue() == ""
    assert re.fullmatch(r"epoch 1/1  \d.*\n", sys.stdout.getvalue())
    monkeypatch.undo()
    assert len(notebook.shown) == 2
    for k, (first, *_, last) in enumerate(notebook.shown, 1):
        assert first.startswith(f"epoch {k}/2   0%|")
        assert re.fullmatch(rf"epoch {k}/2  \d\.\d s  loss .*, mae .*, [\d,]+ seq/s", last)


# No stderr.


class Broken(io.StringIO):
    """A pipe that nobody reads from its second line on."""

    def write(self, text: str) -> int:
        if "\n" in self.getvalue():
            raise BrokenPipeError
        return super().write(text)


class WriteOnly:
    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


def closed() -> Any:
    stream = io.StringIO()
    stream.close()
    return stream


def closed_file() -> Any:
    stream = io.TextIOWrapper(io.BytesIO())
    stream.detach()
    return stream


# tqdm 4.66 says so where it can't draw a new bar.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("bars", [False, True])
@pytest.mark.parametrize(
    "make", [lambda: None, closed, closed_file, object, WriteOnly, Broken, io.StringIO]
)
def test_training_goes_on_without_stderr(
    make: Any, bars: bool, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = make()
    monkeypatch.setattr(sys, "stderr", stream)
    if bars:
        monkeypatch.setattr(progress, "_redraws", lambda stream: stream is not None)
    for verbose in (1, 2):
        history = small().fit(*data, epochs=3, batch_size=5, verbose=verbose)
        assert len(history.epoch) == 3
        assert not history.interrupted
    monkeypatch.undo()
    assert "tqdm" not in sys.modules or not progress._tqdm()._instances
    if isinstance(stream, WriteOnly):
        assert "epoch 3/3" in stream.text


@pytest.mark.parametrize("make", [lambda: None, closed, closed_file, object, WriteOnly, Broken])
def test_a_line_without_stderr(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = make()
    monkeypatch.setattr(sys, "stderr", stream)
    for _ in range(3):
        progress.tell("told")
    monkeypatch.undo()
    if isinstance(stream, WriteOnly):
        assert stream.text == "told\n" * 3


def test_stderr_may_close_in_between(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Close(Callback):
        def on_epoch_end(self, epoch: int, logs: Any) -> None:
            stream.close()

    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert len(small().fit(*data, epochs=3, callbacks=[Close()]).epoch) == 3


def test_quantities_of_callbacks_may_be_anything(capsys: pytest.CaptureFixture[str]) -> None:
    odd = {"note": "warm", "{x}": None, "array": np.array(0.5), "rate": np.float32(0.25)}
    show(Display("seq", within=False), numbers=odd)
    assert "note warm, {x} None, array 0.5, rate 0.25, " in capsys.readouterr().err


# Pictures.


@pytest.fixture
def pyplot() -> Iterator[Any]:
    pytest.importorskip("matplotlib").use("agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def trained(epochs: int, **quantities: Callable[[int], float]) -> History:
    history = History()
    for epoch in range(epochs):
        history.add(epoch, {name: of(epoch) for name, of in quantities.items()})
    return history


@pytest.mark.parametrize("epochs", [1, 2, 7, 200])
def test_epochs_are_whole_and_each_is_seen(epochs: int, pyplot: Any) -> None:
    history = trained(epochs, loss=lambda e: 2 / (e + 1), val_loss=lambda e: 2.5 / (e + 1))
    figure = history.plot()
    figure.canvas.draw()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert ticks
    assert all(tick == round(tick) for tick in ticks)
    training, validation = axes.lines
    assert training.get_color() != validation.get_color()
    marked = [*range(epochs)] if epochs < 30 else []
    assert list(training.get_markevery()) == marked
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["training", "validation"]


def test_points_that_no_line_would_show(pyplot: Any) -> None:
    """Such as those of a validation that is not made in every epoch."""
    history = History()
    for epoch in range(60):
        history.add(epoch, {"loss": 1.0} | ({"val_loss": 2.0} if epoch in (9, 10, 20) else {}))
    assert len(history.history["val_loss"]) == 60
    _, validation = history.plot().axes[0].lines
    assert list(validation.get_markevery()) == [20]


def test_axes(pyplot: Any) -> None:
    history = trained(
        5,
        loss=lambda e: 10.0**-e,
        val_loss=lambda e: 10.0**-e,
        mae=lambda e: 1 + e,
        mse=lambda e: -(10.0**e),
        note=lambda e: "text",
    )
    figure = history.plot()
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "mae", "mse"]
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear", "linear"]
    assert len(history.plot(["loss", "val_loss"]).axes) == 1
    (axes,) = history.plot("val_loss").axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["validation"]
    many = trained(2, **{f"m{k}": float for k in range(7)})
    assert len(many.plot().axes) == 7
    with pytest.raises(ValueError, match="names: expected some of"):
        history.plot("note")


def test_a_notebook_shows_a_figure_once(pyplot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """IPython asks the figure as a cell's value, and again where pyplot shows it."""
    notebook = Notebook(monkeypatch)

    def shown(figure: Any) -> bool:
        try:
            figure._ipython_display_()
        except NotImplementedError:
            return True
        return False

    figure = trained(1, loss=float).plot()
    pickle.dumps(figure)
    assert pyplot.fignum_exists(figure.number)
    assert [shown(figure), shown(figure)] == [True, False]
    notebook.execution_count += 1
    assert [shown(figure), shown(figure)] == [True, False]
    pyplot.close(figure)
    assert [shown(figure), shown(figure)] == [True, True]


def test_history(data: Any, pyplot: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    history = small().fit(*data, epochs=3, validation_split=0.2, verbose=0)
    assert repr(history).startswith("History(epochs=3, last={'loss': ")
    noted = History()
    noted.add(0, {"loss": 0.25, "note": "high"})  # by a callback, in the logs
    assert repr(noted) == "History(epochs=1, last={'loss': 0.25, 'note': 'high'})"
    figure = history.plot()
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "mae"]
    drawn = [line.get_ydata() for line in figure.axes[0].lines]
    np.testing.assert_array_equal(drawn, [history.history["loss"], history.history["val_loss"]])
    assert len(history.plot(["mae"]).axes) == len(history.plot("mae").axes) == 1
    figure.savefig(tmp_path / "h.png")
    for names in (["nonsense"], []):
        with pytest.raises(ValueError, match="names: expected some of"):
            history.plot(names)
    with pytest.raises(ValueError, match="names: expected some of"):
        History().plot()
    for name in [n for n in sys.modules if n.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"needs matplotlib: pip install 'fastrnn\[plot\]'"):
        history.plot()
