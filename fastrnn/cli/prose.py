"""English to train on: what the docstrings of the standard library say in whole sentences."""

from __future__ import annotations

import inspect
import os
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

#: Folders that do not belong to the library itself.
_SKIPPED = {
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "turtledemo",
}

_DOCSTRING = re.compile(r'^[ \t]*[rR]?"""(.*?)"""', re.DOTALL | re.MULTILINE)
_BLANK_LINE = re.compile(r"\n\s*\n")

#: A word between marks of markup: *word*, `word' and ``word``.
_MARKED = re.compile(r"(?:\*|``?)([A-Za-z]+)(?:\*|''?|``?)")
_SENTENCES = re.compile(r"[A-Z][A-Za-z0-9 ,;:'\"().!?-]*[.!?]")
_WORD = re.compile(r"[\"'(]*[A-Za-z][a-z]*[a-z'-]*[]\"'),.:;!?]*")

#: Calls, attributes, options and camelCase.
_CODE = re.compile(r"\w\(|\w\.\w|--|[a-z][A-Z]")

#: Characters of a paragraph, at least; fewer are a title.
_SHORTEST = 40

#: The part of a paragraph that is words, at least; the rest may be numbers and names.
_WORDS = 0.9


def standard_library() -> str:
    """Return paragraphs of one line each, without markup, code, signatures, lists and repetitions.

    Raises
    ------
    ValueError
        If this Python comes without the sources of its library.
    """
    paragraphs: dict[str, None] = {}
    for folder, folders, names in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = sorted({*folders} - _SKIPPED)
        for name in sorted(names):
            if name.endswith(".py"):
                source = Path(folder, name).read_text("utf-8", errors="replace")
                paragraphs |= dict.fromkeys(_prose(source))
    if not paragraphs:
        raise ValueError(
            "this Python has no sources of its standard library, whose docstrings would be "
            "trained on; give a text with --text FILE"
        )
    return "\n".join(paragraphs)


def _prose(source: str) -> Iterator[str]:
    for docstring in _DOCSTRING.findall(source):
        for lines in _BLANK_LINE.split(inspect.cleandoc(docstring)):
            paragraph = _MARKED.sub(r"\1", " ".join(lines.split()))
            words = paragraph.split()
            if (
                len(paragraph) >= _SHORTEST
                and _SENTENCES.fullmatch(paragraph)
                and not _CODE.search(paragraph)
                and sum(bool(_WORD.fullmatch(w)) for w in words) >= _WORDS * len(words)
            ):
                yield paragraph
