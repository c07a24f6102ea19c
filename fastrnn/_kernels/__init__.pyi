"""Stubs: every compiled module has the names and the arguments of its twin, the reference."""

from fastrnn import _reference as avx2_float32
from fastrnn import _reference as avx2_float64
from fastrnn import _reference as avx512_float32
from fastrnn import _reference as avx512_float64
from fastrnn import _reference as baseline_float32
from fastrnn import _reference as baseline_float64

__all__ = [
    "avx2_float32",
    "avx2_float64",
    "avx512_float32",
    "avx512_float64",
    "baseline_float32",
    "baseline_float64",
]
