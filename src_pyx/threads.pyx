"""The thread pool of all kernel modules, exported as the capsule ``pool``: see pool.h."""

from cpython.pycapsule cimport PyCapsule_New

cdef extern from * nogil:
    """
    #define FASTRNN_POOL
    #include "pool.h"
    /* A symbol of its own, by which threadpoolctl tells this library from others of its name. */
    #if defined(__GNUC__)
    __attribute__((visibility("default")))
    #endif
    int fastrnn_thread_pool = 1;
    """
    ctypedef void (*work_function)(int index, int count, void *what) noexcept nogil
    ctypedef struct thread_pool:
        void (*run)(int count, work_function work, void *what, bint together) noexcept nogil
        int most
        ptrdiff_t least_call
        ptrdiff_t least_step
        ptrdiff_t least_awake
        long long ended
        int backoff_left
        int backoff
    void poke "POKE"(int word, int value)
    void pool_init()
    void pool_run(int count, work_function work, void *what, bint together)

# Waking a thread takes 25 to 70 us, handing work to a spinning one 0.1 us, a barrier 0.02 to 0.3 us
# (benchmarks/overheads.py on Zen 3 and 4); a core does 20 to 50 multiply-adds in a nanosecond.
cdef thread_pool the_pool = thread_pool(pool_run, 1, 1000000, 15000, 60000, 0, 0, 0)
pool_init()
pool = PyCapsule_New(&the_pool, "fastrnn._kernels._threads.pool", NULL)


def set_num_threads(int n):
    """Let kernels use at most `n` threads, the caller's included."""
    poke(the_pool.most, n)


def set_least_work(ptrdiff_t call, ptrdiff_t step, ptrdiff_t awake):
    """Set the least work for which threads are used, return the old values (for tests)."""
    before = the_pool.least_call, the_pool.least_step, the_pool.least_awake
    the_pool.least_call, the_pool.least_step, the_pool.least_awake = call, step, awake
    return before
