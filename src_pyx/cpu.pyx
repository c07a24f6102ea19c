"""The instruction sets of our variants that this CPU and operating system support."""

cdef extern from "cpu.h":
    bint has_baseline()
    bint has_avx2()
    bint has_avx512()


def features():
    """Return the names of the instruction sets, best first."""
    found = (("avx512", has_avx512()), ("avx2", has_avx2()), ("baseline", has_baseline()))
    return tuple([name for name, has in found if has])
