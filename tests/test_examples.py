"""Every example runs, agrees with the hand-written loop to 1e-10, and prints both times."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(FOLDER.glob("[0-9]*.py"))

pytestmark = pytest.mark.skipif(not EXAMPLES, reason="no examples beside these tests")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_agrees_with_the_hand_written_loop(example: Path, tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (process.returncode, process.stderr) == (0, "")
    differences = re.findall(r"^(.+): differ by at most (\S+)$", process.stdout, re.MULTILINE)
    assert {"outputs", "gradients"} <= {what for what, _ in differences}
    assert all(float(difference) <= 1e-10 for _, difference in differences)
    assert re.search(r"^time: by hand \S+ ms, fastrnn \S+ ms", process.stdout, re.MULTILINE)


def test_an_actor_critic(tmp_path: Path) -> None:
    """It learns to remember, and the steps it acted on have the bits of those it learns from."""
    process = subprocess.run(
        [sys.executable, "-W", "error", str(FOLDER / "actor_critic.py")],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (process.returncode, process.stderr) == (0, "")
    earned = [float(e) for e in re.findall(r": +(\S+) an episode", process.stdout)]
    assert earned[0] < 0.6
    assert earned[-1] > 0.95


def test_a_service(tmp_path: Path) -> None:
    """It streams a saved estimator, without scikit-learn."""
    sklearn = pytest.importorskip("fastrnn.sklearn", exc_type=ImportError)
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    frames = [pd.DataFrame(rng.normal(size=(5, 2)), columns=["a", "b"]) for _ in range(8)]
    model = sklearn.SequenceClassifier(hidden_size=3, max_epochs=1, random_state=0)
    model.fit(frames, ["x", "y"] * 4).save(tmp_path / "m")
    code = (
        f"import runpy, sys; sys.modules['sklearn'] = None; sys.argv[1:] = ['m', '--port=0']; "
        f"runpy.run_path({str(FOLDER / 'service.py')!r}, run_name='__main__')"
    )
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-P", "-c", code],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        address = process.stdout.readline().strip()

        def ask(row: object, method: str = "POST", path: str = "/1") -> object:
            data = json.dumps(row).encode()
            with urlopen(Request(address + path, data, method=method), timeout=60) as answer:
                return json.load(answer)

        try:
            expected = [dict(zip("xy", p, strict=True)) for p in model.predict_proba(frames[:2])]
            for _ in range(2):
                for row in frames[0].to_dict("records"):
                    last = ask(row)
                assert last == expected[0]
                ask(None, "DELETE")
            for row in frames[1].to_dict("records"):
                ask(frames[0].iloc[0].to_dict(), path="/2")
                with pytest.raises(HTTPError, match="400") as caught:
                    ask({"a": 1})
                caught.value.close()
                last = ask(row)
            assert last == expected[1]
        finally:
            process.terminate()


def test_without_matplotlib_the_picture_is_text(tmp_path: Path) -> None:
    code = (
        "import runpy, sys; sys.modules['matplotlib.figure'] = None; "
        f"sys.path.insert(0, {str(FOLDER)!r}); "
        f"runpy.run_path({str(FOLDER / '7_vanishing_gradients.py')!r})"
    )
    process = subprocess.run(
        [sys.executable, "-W", "error", "-P", "-c", code],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.count("####") > 20
    assert not list(tmp_path.iterdir())
