"""The threads that all kernels share: see pool.h. Kernels find them by the capsule ``pool``."""

from cpython.pycapsule cimport PyCapsule_New

cdef extern from * nogil:
    """
    #define FASTRNN_POOL
    #include "pool.h"
    """
    ctypedef void (*work_function)(int index, int count, void *what) noexcept nogil
    void pool_init()
    void pool_run(int count, work_function work, void *what, bint together)

cdef struct Pool:
    void (*run)(int count, work_function work, void *what, bint together) noexcept nogil
    int most                # threads
    ptrdiff_t least_call    # multiply-adds of a call from which on a second thread pays,
    ptrdiff_t least_step    # and of one step where threads meet at each
    int crowded             # calls for which they had better not meet at each step,
    int penalty             # and for how many they did not, the last time

# Waking a thread takes about 10 us, meeting it about 0.5 us; a core does 20 to 50 multiply-adds in
# a nanosecond.
cdef Pool the_pool = Pool(pool_run, 1, 1000000, 60000, 0, 0)
pool_init()
pool = PyCapsule_New(&the_pool, "fastrnn._threads.pool", NULL)


def set_num_threads(int n):
    """Let kernels use at most so many threads, the caller's own included."""
    the_pool.most = n


def set_least_work(ptrdiff_t call, ptrdiff_t step):
    """Change from how much work on threads are used (for tests); returns what it was."""
    before = the_pool.least_call, the_pool.least_step
    the_pool.least_call, the_pool.least_step = call, step
    return before
