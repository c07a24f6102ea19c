"""Each compiled module holds no instruction above its own set, as the disassembler reads it.

The assembler is the judge: it must accept every instruction under the module's instruction set
alone. An instruction in the wrong module would kill the process on an older CPU.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

import fastrnn

MODULES = sorted((Path(fastrnn.__file__).parent / "_kernels").glob("*.so"))

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="x86 has several instruction sets"),
    pytest.mark.skipif(not MODULES, reason="nothing was compiled"),
    pytest.mark.skipif(
        not (shutil.which("objdump") and shutil.which("as")), reason="needs GNU binutils"
    ),
]

#: Any 64-bit CPU, with SSE2. `endbr64` (IBT) is a NOP where it is not known.
ANY = "generic64+ibt"
AVX2 = f"{ANY}+sse4.2+popcnt+avx2+fma"
AVX512 = f"{AVX2}+avx512f+avx512bw+avx512dq+avx512vl"
#: The instruction set of each module: that of its variant, and what it chooses at run time.
SETS = {
    "_cpu": f"{ANY}+xsave",  # xgetbv, behind a check of cpuid
    "_threads": ANY,
    "baseline_float32": f"{ANY}+sse4.2+popcnt",
    "baseline_float64": f"{ANY}+sse4.2+popcnt",
    "baseline_int8": f"{ANY}+sse4.2+popcnt",
    "avx2_float32": AVX2,
    "avx2_float64": AVX2,
    "avx2_int8": f"{AVX2}+avx_vnni",
    "avx512_float32": f"{AVX512}+avx512_bf16",
    "avx512_float64": AVX512,
    "avx512_int8": f"{AVX512}+avx512_vnni",
}
#: Prefixes in 64-bit code of VEX (AVX) and EVEX (AVX-512) instructions.
VEX, EVEX = ("c4", "c5"), ("62",)
LINE = re.compile(r"^\s*[0-9a-f]+:\t([0-9a-f]{2}) [0-9a-f ]*\t(.*)$", re.M)
#: Targets of jumps, displacements, immediates and comments do not matter.
TARGETS = re.compile(r"\b(j\w+|call|loop\w*)(?:,p[nt])?\s+[0-9a-f]+\b")
NUMBERS = re.compile(r"(\$?)-?0x[0-9a-f]+")


@cache
def instructions(module: Path) -> dict[str, str]:
    """Return each instruction once, in the assembler's syntax, with its first byte."""
    command = ["objdump", "-d", "--wide", str(module)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, str] = {}
    for byte, line in LINE.findall(listing):
        text = line.partition("#")[0].partition("<")[0].strip()
        if "nop" not in text:  # with prefixes that the assembler does not read
            found[NUMBERS.sub(r"\g<1>8", TARGETS.sub(r"\1 .", text))] = byte
    return found


def refused(texts: list[str], cpu: str) -> list[str]:
    """Return the instructions that the assembler refuses under an instruction set."""
    done = subprocess.run(
        ["as", f"-march={cpu}", "--64", "-o", "/dev/null", "-"], input="\n".join(texts) + "\n",
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    numbers = [int(n) for n in re.findall(r"^\{standard input\}:(\d+): Error", done.stderr, re.M)]
    assert not done.returncode or numbers, done.stderr
    return [texts[n - 1] for n in numbers]


def strangers(module: Path, cpu: str) -> list[str]:
    """Return the instructions of a module that are not of an instruction set."""
    found = instructions(module)
    assert len(found) > 100
    wrong = refused([*found], cpu)
    # The assembler may have found a shorter encoding.
    if "avx512" not in cpu:
        wrong += [text for text, code in found.items() if code in EVEX]
    if "avx" not in cpu:
        wrong += [text for text, code in found.items() if code in (*VEX, *EVEX)]
    return wrong


def name_of(module: Path) -> str:
    return module.name.partition(".")[0]


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_no_instruction_above_its_own_set(module: Path) -> None:
    assert strangers(module, SETS[name_of(module)]) == []


def test_every_module_is_there() -> None:
    assert {name_of(m) for m in MODULES} == SETS.keys()


def test_the_check_sees_others() -> None:
    by_name = {name_of(m): m for m in MODULES}
    wide = strangers(by_name["avx512_float32"], AVX2)
    assert any("zmm" in text for text in wide)
    assert any(
        text.startswith("vdpbf16ps") for text in strangers(by_name["avx512_float32"], AVX512)
    )
    assert any("vpdpbusd" in text for text in strangers(by_name["avx2_int8"], AVX2))
    assert any("ymm" in text for text in strangers(by_name["avx2_float64"], SETS["baseline_int8"]))
    assert strangers(by_name["baseline_float32"], ANY)
