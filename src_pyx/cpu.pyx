"""The instructions that this CPU and operating system support, of those that our kernels use."""

cdef extern from "cpu.h":
    bint has_baseline()
    bint has_avx2()
    bint has_avx512()
    bint has_avx512bf16()
    bint has_neon()
    bint has_avx512vnni()
    bint has_avxvnni()


def features():
    """Return the names of the instruction sets of our variants, best first."""
    found = (
        ("avx512", has_avx512()), ("avx2", has_avx2()), ("neon", has_neon()),
        ("baseline", has_baseline()),
    )
    return tuple([name for name, has in found if has])


def extensions():
    """Return the names of instructions that a variant uses where a CPU has them."""
    found = (
        ("avx512bf16", has_avx512bf16()), ("avx512vnni", has_avx512vnni()),
        ("avxvnni", has_avxvnni()),
    )
    return tuple([name for name, has in found if has])
