"""Words and characters of texts in any script."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

UNITS = ("words", "characters")

#: How texts are read: by the first release, and now.
FIRST, CURRENT = 1, 2

#: Scripts written without spaces between words, by the ranges of their blocks: Chinese and
#: Japanese, and the class SA of Unicode's line breaking (UAX 14), which needs a dictionary.
_UNSPACED = {
    "Han": "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff",
    "Kana": "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f\U0001aff0-\U0001b16f",
    "Bopomofo": "\u3100-\u312f\u31a0-\u31bf",
    "Thai": "\u0e00-\u0e7f",
    "Lao": "\u0e80-\u0eff",
    "Myanmar": "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f",
    "Khmer": "\u1780-\u17ff\u19e0-\u19ff",
    "Tai": "\u1950-\u19df\u1a20-\u1aaf\uaa80-\uaadf\U00011700-\U0001174f",
}

#: Planes of Unicode that have combining marks: of letters, and variation selectors.
_PLANES = (range(0x300, 0x20000), range(0xE0100, 0xE01F0))

#: Joiners, which shape the letters of a word in Indic and Arabic scripts.
_JOINERS = "\u200c\u200d"


def tokens(text: str, unit: str, reading: int = CURRENT) -> list[str]:
    """Return the words or characters of a text.

    Texts that Unicode calls canonically equivalent have the same tokens. A word consists of
    letters and digits with their combining marks, and may have inner apostrophes; any other symbol
    is a token of its own, and so is each letter of a script without spaces. Words are in lower
    case.

    Parameters
    ----------
    text : str
    unit : {"words", "characters"}
    reading : int
        `FIRST` reads texts as the first release did.
    """
    if unit == "words":
        text = text.lower()
    if reading != FIRST:
        text = unicodedata.normalize("NFC", text)
    found: list[str] = _pattern(unit, reading).findall(text)
    return found


def unspaced(among: Iterable[str]) -> list[str]:
    """Return the names of the scripts without spaces that occur among tokens."""
    text = "".join(among)
    return [script for script, ranges in _UNSPACED.items() if re.search(f"[{ranges}]", text)]


@cache
def _pattern(unit: str, reading: int) -> re.Pattern[str]:
    if reading == FIRST:
        return re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]" if unit == "words" else r"(?s).")
    marks = f"[{_marks()}]"
    if unit == "characters":
        return re.compile(f"(?s).{marks}*")
    letter = f"[^\\W{''.join(_UNSPACED.values())}]"
    word = f"{letter}+(?:[{_marks()}{_JOINERS}]+{letter}*)*"
    return re.compile(f"{word}(?:['\u2019]{word})*|\\S{marks}*")


def _marks() -> str:
    """Return the ranges of combining marks, the categories Mn, Mc and Me."""
    codes = (code for plane in _PLANES for code in plane)
    marks = [code for code in codes if unicodedata.category(chr(code))[0] == "M"]
    starts = [m for before, m in zip([-1, *marks], marks, strict=False) if m != before + 1]
    ends = [m for m, after in zip(marks, [*marks[1:], -1], strict=True) if after != m + 1]
    return "".join(f"{chr(a)}-{chr(b)}" for a, b in zip(starts, ends, strict=True))
