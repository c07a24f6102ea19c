"""The README's ten lines run, and do what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.skipif(not README.exists(), reason="tests stand alone here, without the README")
def test_the_ten_lines(backend):
    code = README.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(code, names)
    y, _ = names["lstm"](names["x"])
    assert np.array_equal(names["y0"], y[0])
    assert not np.array_equal(names["y"], y)  # a weight has changed since
    assert len([line for line in code.splitlines() if line]) == 10
