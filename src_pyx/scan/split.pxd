"""How a call is split among threads, and cut in rounds, between which signals are handled."""

from cpython.exc cimport PyErr_CheckSignals
from packing cimport Weights
from panels cimport Panels, ceil_div, some_panels, split_blocks, tiles, vectors
from schedule cimport Schedule
from step cimport barrier
from vec cimport VL, WIDEST, real

cdef extern from "pool.h" nogil:
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
    thread_pool *pool
    void use_pool(thread_pool *shared)
    long long clock_now()
    # Multiply-adds from which on a call releases the GIL.
    const ptrdiff_t HOLDS_GIL
    # What other threads may write at any time.
    int peek "PEEK"(int word)
    long long peek_long "PEEK"(long long word)
    void poke "POKE"(int word, int value)
    # A lock for which no thread waits.
    int own_process()
    bint pass_on(int *owner, int before, int after)
    void poke_long "POKE"(long long word, long long value)

cdef enum:
    # Least rows per thread: with fewer, tiles are half empty.
    OWN_ROWS = 3
    # Twice the rows for which a tile computes as long as its weights take from the L2 cache.
    LEAST_COST = 7
    # Bytes of a step's weights from which on they exceed a core's own caches: each core should read
    # only its share.
    LARGE_WEIGHTS = 2097152
    # If other programs use the CPUs, each barrier may cost a time slice. After a call in which more
    # than one in LATE barriers was late (one in ten is usual), the next calls go without barriers,
    # twice as many each time.
    LATE = 3
    MOST_BACKOFF = 256
    # Nanoseconds after a call in which threads are still awake, and those after which a thread must
    # have lost its CPU during a step.
    IN_A_ROW = 20000
    LOST = 200000
    # Multiply-adds of a round: some milliseconds, in the slowest kernels a few hundredths of a
    # second; and those for which what else is done for a row of a step counts.
    ROUND = 134217728
    ROW_COST = 256
    # Nanoseconds between two looks for signals: Ctrl-C is answered within a second, and the GIL,
    # for which other threads may keep this one waiting, is seldom needed.
    LOOK = 50000000
    MOST_PARTS = 4096


cdef inline int most_threads() noexcept nogil:
    """Return the number of threads that a call may use."""
    return peek(pool.most)


cdef inline bint worth(ptrdiff_t work) noexcept nogil:
    """Return whether `work` multiply-adds are worth another thread."""
    if most_threads() == 1 or work < pool.least_awake:
        return False
    return work >= pool.least_call or clock_now() - peek_long(pool.ended) < IN_A_ROW


cdef inline ptrdiff_t tiles_cost(const Panels *w, ptrdiff_t rows) noexcept nogil:
    """Return the cost of the tiles of `rows` rows, per tile 2 a row, but at least LEAST_COST."""
    cdef ptrdiff_t count = tiles(w.format, w.width, rows)
    cdef ptrdiff_t n = rows // count, larger = rows % count
    return larger * max(2 * n + 2, LEAST_COST) + (count - larger) * max(2 * n, LEAST_COST)


cdef inline bint blocks_split_better(const Weights *w, ptrdiff_t B, int threads) noexcept nogil:
    """Return whether splitting blocks is at least 5 % cheaper than rows: barriers cost too."""
    cdef ptrdiff_t most = 0
    cdef Panels mine
    cdef int i
    for i in range(threads):
        mine = some_panels(
            &w.h, split_blocks(w.blocks, i, threads), split_blocks(w.blocks, i + 1, threads)
        )
        most = max(most, vectors(&mine))
    return (
        tiles_cost(&w.h, B) * most * 20
        < tiles_cost(&w.h, ceil_div(B, threads)) * vectors(&w.h) * 19
    )


cdef inline bint backs_off() noexcept nogil:
    """Return whether this call goes without barriers, and count it."""
    cdef int left = peek(pool.backoff_left)
    if left > 0:
        poke(pool.backoff_left, left - 1)
    return left > 0


cdef inline int threads_for(
    const Weights *w, const Schedule *s, ptrdiff_t work, bint has_reset, bint *by_blocks
) noexcept nogil:
    """Return the number of threads for a call, and whether they split blocks rather than rows."""
    cdef ptrdiff_t gates = w.x.gates * w.blocks * VL, most = most_threads()
    cdef bint can_split_blocks = (
        w.splits and s.offsets is NULL and not has_reset and ceil_div(w.blocks, WIDEST) >= most
    )
    cdef bint large = gates * w.P * <ptrdiff_t>sizeof(real) // w.h.format.per_word >= LARGE_WEIGHTS
    by_blocks[0] = False
    if not worth(work):
        return 1
    if (
        can_split_blocks and s.B * gates * w.P >= pool.least_step
        and (large or blocks_split_better(w, s.B, most))
    ):
        by_blocks[0] = not backs_off()
    if s.B < most * OWN_ROWS and can_split_blocks and not by_blocks[0]:
        return 1
    return most if by_blocks[0] else min(most, s.B)


cdef inline int threads_for_step(const Weights *w, ptrdiff_t work) noexcept nogil:
    """Return the number of threads for a single step, which split blocks."""
    cdef int most = most_threads()
    if not w.splits or not worth(work) or ceil_div(w.blocks, WIDEST) < most:
        return 1
    if work < pool.least_call and backs_off():
        return 1
    return most


cdef inline void update_backoff(bint late) noexcept nogil:
    """Record whether the last call with barriers was late."""
    cdef int before = peek(pool.backoff), now = before // 2
    if late:
        now = min(2 * before + 4, MOST_BACKOFF)
        poke(pool.backoff_left, now)
    if now != before:
        poke(pool.backoff, now)


cdef inline void run_together(int threads, work_function work, void *what) noexcept nogil:
    if threads == 1:
        work(0, 1, what)
    else:
        pool.run(threads, work, what, True)


cdef inline void note_end(bint by_blocks, const barrier *others) noexcept nogil:
    """Record when a call ended, and whether its barriers were late."""
    if by_blocks and others.rounds > 0:
        update_backoff(others.late * LATE > others.rounds)
    poke_long(pool.ended, clock_now())


cdef inline int handle_signals(long long *last) except -1 nogil:
    """Run the handlers of signals that came, some times a second; raise what they raise."""
    if 0 < clock_now() - last[0] < LOOK:
        return 0
    with gil:
        PyErr_CheckSignals()
    last[0] = clock_now()
    return 0


cdef struct Parts:
    # Work that is run in `count` parts, one after another.
    work_function share
    void *what
    int part, count


cdef inline void part_share(int index, int count, void *what) noexcept nogil:
    cdef const Parts *p = <const Parts *>what
    p.share(p.part * count + index, p.count * count, p.what)


cdef inline int run_parts(
    int threads, work_function share, void *what, ptrdiff_t work
) except -1 nogil:
    """Run `work` multiply-adds on some threads, in parts if they are many.

    Each part is to the shares as if there were more threads; index % threads is one's own scratch.
    """
    cdef Parts p = Parts(share, what, 0, min(1 + work // ROUND, MOST_PARTS))
    cdef long long last = 0
    for p.part in range(p.count):
        if p.part > 0:
            handle_signals(&last)
        pool.run(threads, part_share, &p, False)
    return 0
