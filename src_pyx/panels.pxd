"""Packed weights, and the matrix products with them: every tile of the project is called from here.

Units stand in blocks of VL, one vector each; the last block is filled up with zeros. Gate values
are "blocked": (blocks, rows, slots * VL), where a slot is the place of one gate of a block. A panel
holds what one tile reads, in the order in which it reads it: (groups, K, N * VL), where a group is
N gates of one block, all or half of them, or N blocks where there is one gate only.
"""

from vec cimport (
    MAX_GROUPS, MAX_ROWS, ROW_TILES, TILES, VL, WIDEST, product, real, tile_function,
)

cdef struct Panels:
    real *w
    ptrdiff_t K
    ptrdiff_t blocks
    ptrdiff_t gates     # vectors of a block
    ptrdiff_t first     # slot in which the first of them stands
    ptrdiff_t width     # vectors of a group
    ptrdiff_t wider     # groups that come first and have `width` + 1: with one gate only


cdef inline ptrdiff_t parts(ptrdiff_t n, ptrdiff_t most) noexcept nogil:
    """Into how many parts of at most `most` to cut n."""
    return (n + most - 1) // most


cdef inline ptrdiff_t part(ptrdiff_t n, ptrdiff_t count, ptrdiff_t i) noexcept nogil:
    """Size of part i when n is cut into `count` parts as equal as can be, larger ones first."""
    return n // count + (i < n % count)


cdef inline void sweep(
    ptrdiff_t N, ptrdiff_t groups, ptrdiff_t rows, product *p,
    ptrdiff_t w_group, ptrdiff_t init_group, ptrdiff_t c_group,
) noexcept nogil:
    """One product, of `rows` rows with `groups` groups of N vectors, a tile at a time.

    What `p` points to moves on behind the groups, and a single row uses strides of `p` for groups.
    """
    cdef ptrdiff_t _g, i, n, count
    cdef const real *a = p.a
    cdef const real *init
    cdef real *c
    if rows == 1:
        p.w_group, p.init_row, p.c_row = w_group, init_group, c_group
        count = parts(groups, MAX_GROUPS)
        for i in range(count):
            n = part(groups, count, i)
            ROW_TILES[N][n](p)
            p.w += n * w_group
            p.init += n * init_group
            p.c += n * c_group
        return
    count = parts(rows, MAX_ROWS[N])
    for _g in range(groups):
        p.a = a
        init, c = p.init, p.c
        for i in range(count):
            n = part(rows, count, i)
            TILES[N][n](p)
            p.a += n * p.a_row
            p.init += n * p.init_row
            p.c += n * p.c_row
        p.w += w_group
        p.init, p.c = init + init_group, c + c_group
    p.a = a


cdef inline Panels panels_for(
    ptrdiff_t K, ptrdiff_t blocks, ptrdiff_t gates, ptrdiff_t first
) noexcept nogil:
    """How panels of these sizes are laid out."""
    cdef ptrdiff_t groups = parts(blocks, WIDEST)
    if gates > 1:
        return Panels(NULL, K, blocks, gates, first, gates // parts(gates, WIDEST), 0)
    return Panels(NULL, K, blocks, gates, first, blocks // groups, blocks % groups)


cdef inline ptrdiff_t share(ptrdiff_t n, int index, int count) noexcept nogil:
    """Where part `index` of n begins when n is cut into `count` parts."""
    return n * index // count


cdef inline ptrdiff_t share_blocks(ptrdiff_t blocks, int index, int count) noexcept nogil:
    """The same for blocks, which are cut only between groups."""
    cdef Panels w = panels_for(1, blocks, 1, 0)
    cdef ptrdiff_t group = share(parts(blocks, WIDEST), index, count)
    return group * w.width + min(group, w.wider)


cdef inline Panels some_panels(const Panels *w, ptrdiff_t begin, ptrdiff_t end) noexcept nogil:
    """The panels of some blocks, cut as by `share_blocks`."""
    cdef Panels found = w[0]
    cdef ptrdiff_t wide = w.wider * (w.width + 1)
    found.w += begin * w.K * w.gates * VL
    found.blocks = end - begin
    found.wider = max(0, min(end, wide) - begin) // (w.width + 1)
    return found


cdef inline void multiply(
    const Panels *w, ptrdiff_t rows, product *p, ptrdiff_t init_panel, ptrdiff_t c_panel,
) noexcept nogil:
    """c = init + a w, blocked. `p` comes with a, init and c; init and c are those of slot 0.

    It goes by pointer, and is used up: a copy would read in wide loads what was stored in narrow
    ones, and wait for each.
    """
    cdef ptrdiff_t i, j, n = w.width, run, count, blocks, panel = w.K * w.gates * VL
    cdef const real *weights = w.w
    cdef const real *init = p.init + w.first * VL
    cdef real *c = p.c + w.first * VL
    p.add = False
    if w.gates > 1:
        p.w_k = n * VL
        p.w_vec = p.init_vec = p.c_vec = VL
        count = parts(w.blocks, MAX_GROUPS)
        for i in range(count):
            blocks = part(w.blocks, count, i)
            for j in range(w.gates // n):
                p.w = weights + j * w.K * p.w_k
                p.init, p.c = init + j * p.w_k, c + j * p.w_k
                sweep(n, blocks, rows, p, panel, init_panel, c_panel)
            weights += blocks * panel
            init += blocks * init_panel
            c += blocks * c_panel
    else:
        p.w, p.init, p.c = weights, init, c
        p.w_vec, p.init_vec, p.c_vec = VL, init_panel, c_panel
        run = w.wider
        if run:
            p.w_k = (n + 1) * VL
            sweep(n + 1, run, rows, p, w.K * p.w_k, (n + 1) * init_panel, (n + 1) * c_panel)
        p.w_k = n * VL
        sweep(
            n, (w.blocks - run * (n + 1)) // n, rows, p, w.K * p.w_k, n * init_panel, n * c_panel
        )


cdef inline void accumulate(
    const Panels *dw, ptrdiff_t rows, const real *a, ptrdiff_t a_row,
    const real *dz, ptrdiff_t dz_row, ptrdiff_t dz_panel, const real *zero,
) noexcept nogil:
    """dw += a^T dz over `rows` rows; `zero` is a vector of zeros.

    The rows' own sum starts at 0 and is then added: one long chain would lose digits, as it grows
    large beside its terms.
    """
    cdef ptrdiff_t i, n = dw.width, run
    cdef product p
    p.add = True
    p.a, p.a_row, p.a_k, p.a_segment = a, 1, a_row, 0
    p.w_k = dz_row
    p.K, p.segments = rows, 1
    p.init, p.init_row, p.init_vec = zero, 0, 0
    p.c_vec = VL
    if dw.gates > 1:
        p.w_vec = VL
        for i in range(dw.gates // n):
            p.w, p.c = dz + (dw.first + i * n) * VL, dw.w + i * dw.K * n * VL
            p.c_row = n * VL
            sweep(n, dw.blocks, dw.K, &p, dz_panel, 0, dw.K * dw.gates * VL)
    else:
        p.w, p.c, p.w_vec = dz + dw.first * VL, dw.w, dz_panel
        run = dw.wider
        if run:
            p.c_row = (n + 1) * VL
            sweep(n + 1, run, dw.K, &p, (n + 1) * dz_panel, 0, dw.K * (n + 1) * VL)
        p.c_row = n * VL
        sweep(n, (dw.blocks - run * (n + 1)) // n, dw.K, &p, n * dz_panel, 0, dw.K * n * VL)
