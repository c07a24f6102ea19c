"""Packed weights, and the matrix products with them, computed in register tiles.

Units are in blocks of VL, one vector each; the last block is padded with zeros. Gate values are
"blocked": (blocks, rows, slots * VL), where a slot is the place of one gate in a block. A panel
holds the weights of one tile in the order in which it reads them: (groups, K, N * VL), where a
group is N gates of one block, all or half of them, or N blocks if there is only one gate.

Weights may be narrower than reals: words of several k each, laid out as reals are, of `depth` words
instead of K reals. The left operand is then converted row by row, before each product.

A last block of few units is narrow: its slots are `lanes` elements apart, the number of its units,
instead of VL, so several gates share a vector. Its panel is the tail.
"""

from libc.math cimport INFINITY
from vec cimport (
    FASTRNN_INT8, MAX_GROUPS, REALS, VL, WIDEST, gemm_args, gemm_run, read_narrow, real,
    set_contiguous, tile_format,
)

cdef struct Panels:
    real *w
    const tile_format *format
    ptrdiff_t K
    ptrdiff_t depth     # of words: K, if the weights are reals
    ptrdiff_t blocks
    ptrdiff_t gates     # vectors of a block
    ptrdiff_t first     # slot of the first of them
    ptrdiff_t lanes     # distance of slots in the last block, less than VL if it is narrow
    ptrdiff_t width     # vectors of a group
    ptrdiff_t groups    # of that width: in each block; with only one gate, in all
    ptrdiff_t wider     # groups of `width` + 1 after those: with only one gate
    const gemm_run *runs    # of the left operand, if it is blocked; NULL: its rows are contiguous
    ptrdiff_t run_count
    real least          # of int8, what a row of the left operand is scaled by: its largest entry,
    real limit          # but at least `least`; or `limit`, if that is finite
    bint rounded        # of int8, whether the only row is in `narrow` already: see `round_row`


cdef inline ptrdiff_t ceil_div(ptrdiff_t n, ptrdiff_t most) noexcept nogil:
    """Return n / most, rounded up: the number of parts of at most `most`."""
    return (n + most - 1) // most


cdef inline ptrdiff_t part(ptrdiff_t n, ptrdiff_t count, ptrdiff_t i) noexcept nogil:
    """Return the size of part i of n in `count` nearly equal parts, larger ones last."""
    if count == 1:
        # A division would take longer than the products of a small step.
        return n
    return n // count + (i >= count - n % count)


cdef inline ptrdiff_t tiles(
    const tile_format *format, ptrdiff_t N, ptrdiff_t rows
) noexcept nogil:
    """Return the number of tiles of N vectors for `rows` rows."""
    return 1 if rows <= format.most_rows[N] else ceil_div(rows, format.max_rows[N])


cdef inline void sweep(
    ptrdiff_t N, ptrdiff_t groups, ptrdiff_t rows, gemm_args *p,
    ptrdiff_t w_group, ptrdiff_t init_group, ptrdiff_t c_group,
) noexcept nogil:
    """Multiply `rows` rows with `groups` groups of N vectors, a tile at a time.

    The pointers in `p` advance past the groups; for a single row, its row strides are overwritten.
    """
    cdef ptrdiff_t _g, i, n, count
    cdef const real *a = p.a
    cdef const real *init
    cdef real *c
    if rows == 1:
        p.w_group, p.init_row, p.c_row = w_group, init_group, c_group
        count = ceil_div(groups, MAX_GROUPS)
        for i in range(count):
            n = part(groups, count, i)
            p.format.row_tiles[N][n](p)
            p.w += n * w_group
            p.init += n * init_group
            p.c += n * c_group
        return
    count = tiles(p.format, N, rows)
    for _g in range(groups):
        p.a = a
        init, c = p.init, p.c
        for i in range(count):
            n = part(rows, count, i)
            p.format.tiles[N][n](p)
            p.a += n * p.a_row
            p.init += n * p.init_row
            p.c += n * p.c_row
        p.w += w_group
        p.init, p.c = init + init_group, c + c_group
    p.a = a


cdef inline Panels panels_for(
    const tile_format *format, ptrdiff_t K, ptrdiff_t blocks, ptrdiff_t gates, ptrdiff_t first,
    ptrdiff_t lanes,
) noexcept nogil:
    """Return the layout of panels of these sizes."""
    cdef ptrdiff_t vectors = gates if gates > 1 else blocks, groups = ceil_div(vectors, WIDEST)
    cdef ptrdiff_t wider = vectors % groups
    return Panels(
        NULL, format, K, ceil_div(K, format.per_word) + format.extra, blocks, gates, first, lanes,
        vectors // groups, groups - wider, wider, NULL, 0, 0, INFINITY, False,
    )


cdef inline ptrdiff_t tail(const Panels *w) noexcept nogil:
    """Return the vectors of the tail, 0 if the last block is not narrow."""
    return ceil_div(w.gates * w.lanes, VL) if w.gates > 1 and w.lanes < VL else 0


cdef inline ptrdiff_t vectors(const Panels *w) noexcept nogil:
    """Return the vectors per row of all panels."""
    return (w.blocks - (tail(w) > 0)) * w.gates + tail(w)


cdef inline ptrdiff_t panels_size(const Panels *w) noexcept nogil:
    """Return the bytes of all panels."""
    return w.depth * vectors(w) * VL * <ptrdiff_t>sizeof(real)


cdef inline ptrdiff_t split_point(ptrdiff_t n, int index, int count) noexcept nogil:
    """Return where part `index` of n begins, of `count` nearly equal parts."""
    return n // count * index + n % count * index // count


cdef inline ptrdiff_t split_blocks(ptrdiff_t blocks, int index, int count) noexcept nogil:
    """Return where part `index` of the blocks begins: they are split only between groups."""
    cdef Panels w = panels_for(&REALS, 1, blocks, 1, 0, VL)
    cdef ptrdiff_t group = split_point(w.groups + w.wider, index, count)
    return group * w.width + max(0, group - w.groups)


cdef inline Panels some_panels(const Panels *w, ptrdiff_t begin, ptrdiff_t end) noexcept nogil:
    """Return the panels of blocks `begin` to before `end`, bounds from `split_blocks`."""
    cdef Panels found = w[0]
    cdef ptrdiff_t wide = w.groups * w.width
    found.w += begin * w.depth * w.gates * VL
    found.blocks = end - begin
    found.lanes = w.lanes if end == w.blocks else VL
    if w.gates == 1:
        found.groups = max(0, min(end, wide) - begin) // w.width
        found.wider = max(0, end - max(begin, wide)) // (w.width + 1)
    return found


cdef inline void round_row(const Panels *w, const real *a, real *narrow) noexcept nogil:
    """Round a row (K,) for products with int8 weights, whose panels may then be `rounded`."""
    cdef gemm_args p
    p.a, p.a_row, p.narrow, p.least, p.limit = a, 0, narrow, w.least, w.limit
    set_contiguous(&p, w.K)
    w.format.narrow_rows(&p, 1)


cdef inline void multiply(
    const Panels *w, ptrdiff_t rows, gemm_args *p, ptrdiff_t init_panel, ptrdiff_t c_panel,
) noexcept nogil:
    """Compute c = init + a w, blocked. `p` has a, init and c; init and c point to slot 0.

    If the weights are narrow, `p` also has `narrow`: scratch for `rows` rows of a.

    `p` is passed by pointer and modified: copying it would stall, as wide loads of what was just
    written in narrow stores cannot be forwarded.
    """
    cdef ptrdiff_t i, j, n = w.width, count, blocks, panel = w.depth * w.gates * VL
    cdef ptrdiff_t narrow = tail(w), full = w.blocks - (narrow > 0)
    cdef const real *weights = w.w
    cdef const real *init = p.init + w.first * VL
    cdef real *c = p.c + w.first * VL
    p.add = False
    p.format = w.format
    if w.runs is NULL:
        set_contiguous(p, w.K)
    else:
        p.runs, p.run_count = w.runs, w.run_count
    if w.format.narrow_rows is not NULL:
        p.least, p.limit = w.least, w.limit
        if FASTRNN_INT8 and w.rounded:
            read_narrow(p, 0, w.depth - w.format.extra)
        else:
            w.format.narrow_rows(p, rows)
    if w.gates > 1:
        p.w_vec = p.init_vec = p.c_vec = VL
        p.w_tail = weights + full * panel
        p.init_tail = p.init + full * init_panel + w.first * w.lanes
        p.c_tail = p.c + full * c_panel + w.first * w.lanes
        p.w_k = n * VL
        count = ceil_div(full, MAX_GROUPS)
        for i in range(count):
            blocks = part(full, count, i)
            for j in range(w.groups):
                p.w = weights + j * w.depth * p.w_k
                p.init, p.c = init + j * p.w_k, c + j * p.w_k
                if (
                    rows == 1 and narrow and i == count - 1 and j == w.groups - 1
                    and p.format.tailed_tiles[n][narrow][blocks] is not NULL
                ):
                    p.w_group, p.init_row, p.c_row = panel, init_panel, c_panel
                    p.format.tailed_tiles[n][narrow][blocks](p)
                    return
                sweep(n, blocks, rows, p, panel, init_panel, c_panel)
            weights += blocks * panel
            init += blocks * init_panel
            c += blocks * c_panel
        if narrow:
            p.w, p.w_k, p.init, p.c = p.w_tail, narrow * VL, p.init_tail, p.c_tail
            sweep(narrow, 1, rows, p, 0, 0, 0)
    else:
        p.w, p.init, p.c = weights, init, c
        p.w_vec, p.init_vec, p.c_vec = VL, init_panel, c_panel
        p.w_k = n * VL
        sweep(n, w.groups, rows, p, w.depth * p.w_k, n * init_panel, n * c_panel)
        if w.wider:
            n += 1
            p.w_k = n * VL
            sweep(n, w.wider, rows, p, w.depth * p.w_k, n * init_panel, n * c_panel)


cdef struct WeightProduct:
    # A product with a weight gradient: dw += a^T dz. In a narrow format, two rows are one of words.
    const tile_format *format
    const Panels *dw        # of reals
    const real *a
    ptrdiff_t a_row
    ptrdiff_t a_high
    const real *dz
    ptrdiff_t dz_row
    ptrdiff_t dz_panel


cdef inline void accumulate(
    const WeightProduct *w, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t rows, const real *zero
) noexcept nogil:
    """Add the product over `rows` rows to dw, for k from `begin` to `end`; `zero` is a zero vector.

    The sum of these rows starts at 0 and is then added: a single long chain would lose digits, as
    it grows large relative to its terms.
    """
    cdef const Panels *dw = w.dw
    cdef const real *dz = w.dz
    cdef ptrdiff_t dz_panel = w.dz_panel
    cdef ptrdiff_t i, n = dw.width, run = dw.groups * n, panel = dw.K * dw.gates * VL
    cdef ptrdiff_t narrow = tail(dw), full = dw.blocks - (narrow > 0), count = end - begin
    cdef gemm_args p
    if count <= 0:
        return
    p.add = True
    p.format = w.format
    p.a, p.a_row, p.a_k, p.a_high = w.a + begin, 1, w.a_row, w.a_high
    p.w_k = w.dz_row
    set_contiguous(&p, rows)
    p.init, p.init_row, p.init_vec = zero, 0, 0
    p.c_vec = VL
    if dw.gates > 1:
        p.w_vec = VL
        for i in range(dw.groups):
            p.c_row = n * VL
            p.w, p.c = dz + (dw.first + i * n) * VL, dw.w + (i * dw.K + begin) * p.c_row
            sweep(n, full, count, &p, dz_panel, 0, panel)
        if narrow:
            p.c_row = narrow * VL
            p.w = dz + full * dz_panel + dw.first * dw.lanes
            p.c = dw.w + full * panel + begin * p.c_row
            sweep(narrow, 1, count, &p, 0, 0, 0)
    else:
        p.w_vec = dz_panel
        p.c_row = n * VL
        p.w, p.c = dz + dw.first * VL, dw.w + begin * p.c_row
        sweep(n, dw.groups, count, &p, n * dz_panel, 0, dw.K * n * VL)
        if dw.wider:
            p.c_row = (n + 1) * VL
            p.w, p.c = dz + dw.first * VL + run * dz_panel, dw.w + run * dw.K * VL + begin * p.c_row
            sweep(n + 1, dw.wider, count, &p, (n + 1) * dz_panel, 0, dw.K * (n + 1) * VL)
