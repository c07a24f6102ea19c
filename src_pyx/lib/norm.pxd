"""Layer normalisation (Ba et al. 2016, eq. 4) of blocked rows: hat = (a - mean) / sqrt(var + eps).

A row's units are in some slots of all blocks; the padding of the last block is 0 before and after.
Each of SUM_LANES partial sums has every SUM_LANES-th unit, in the order of blocks, then slots.
"""

from libc.math cimport sqrt
from maths cimport absolute, larger, vlargest
from panels cimport ceil_div
from vec cimport (
    GRADIENT_SCALE, LARGE_GRADIENT, NORM_EPS, REAL_MAX, SQUARE_SCALE, SUM_VECTORS, VL, real, vf,
    vfirst, vfma, vfnma, vload, vset, vstore, vsum,
)

cdef struct Norm:
    # Layer normalisation of a product, in groups of slots; none if gain is NULL.
    const real *gain        # (blocks, slots * VL)
    real *hat               # (blocks, rows, slots * VL)
    ptrdiff_t hat_panel
    real *rstd             # (rows, slots): 1 / sqrt(var + eps) of a group, at its first slot
    const ptrdiff_t *groups  # (slots,): neighbours of the same group are normalised together
    ptrdiff_t slots
    const real *zero        # slots * VL zeros


cdef inline real normalise_row(
    real *a, ptrdiff_t panel, ptrdiff_t count, ptrdiff_t blocks, ptrdiff_t H
) noexcept nogil:
    """Normalise `count` vectors of each block in place; return the rstd."""
    return normalise_with(a, panel, count, blocks, H, NORM_EPS)


cdef inline real normalise_with(
    real *a, ptrdiff_t panel, ptrdiff_t count, ptrdiff_t blocks, ptrdiff_t H, real eps
) noexcept nogil:
    cdef ptrdiff_t u, v, last = (blocks - 1) * panel
    cdef real n = H * count, squares, rstd
    cdef vf mean
    cdef bint shrunk
    squares = squares_around_mean(a, panel, count, blocks, H, &mean)
    shrunk = not squares <= REAL_MAX
    if shrunk:
        for u in range(blocks):
            for v in range(count):
                vstore(a + u * panel + v * VL, vload(a + u * panel + v * VL) * SQUARE_SCALE)
        squares = squares_around_mean(a, panel, count, blocks, H, &mean)
        # The variance is far above eps now, or all numbers are equal.
        shrunk = squares > 0
        eps = 0 if shrunk else eps
    rstd = 1 / sqrt(squares / n + eps)
    for u in range(blocks):
        for v in range(count):
            vstore(a + u * panel + v * VL, (vload(a + u * panel + v * VL) - mean) * vset(rstd))
    for v in range(count):
        vstore(a + last + v * VL, vfirst(vload(a + last + v * VL), H - (blocks - 1) * VL))
    return rstd * SQUARE_SCALE if shrunk else rstd


cdef inline real squares_around_mean(
    const real *a, ptrdiff_t panel, ptrdiff_t count, ptrdiff_t blocks, ptrdiff_t H, vf *mean
) noexcept nogil:
    """Return the sum of the squares of a - mean, and the mean."""
    cdef ptrdiff_t part, i, u, v
    cdef real sum = 0, squares = 0
    cdef vf d, total
    for part in range(SUM_VECTORS):
        total = vset(0)
        for i in range(ceil_div(blocks - part, SUM_VECTORS)):
            u = part + i * SUM_VECTORS
            for v in range(count):
                total = total + vload(a + u * panel + v * VL)
        sum = vsum(sum, total)
    mean[0] = vset(sum / <real>(H * count))
    for part in range(SUM_VECTORS):
        total = vset(0)
        for i in range(ceil_div(blocks - part, SUM_VECTORS)):
            u = part + i * SUM_VECTORS
            for v in range(count):
                d = vfirst(vload(a + u * panel + v * VL) - mean[0], H - u * VL)
                total = vfma(d, d, total)
        squares = vsum(squares, total)
    return squares


cdef inline void normalise_row_back(
    real *d, ptrdiff_t d_panel, const real *hat, ptrdiff_t hat_panel, real rstd,
    ptrdiff_t count, ptrdiff_t blocks, ptrdiff_t H,
) noexcept nogil:
    """Turn the gradient of hat into that of the input of `normalise_row`, in place."""
    cdef ptrdiff_t part, i, u, v
    cdef real n = H * count, sum = 0, product = 0, largest
    cdef vf v_d, mean, along, most = vset(0)
    for part in range(SUM_VECTORS):
        mean = along = vset(0)
        for i in range(ceil_div(blocks - part, SUM_VECTORS)):
            u = part + i * SUM_VECTORS
            for v in range(count):
                v_d = vload(d + u * d_panel + v * VL)
                most = larger(most, absolute(v_d))
                mean = mean + v_d
                along = vfma(v_d, vload(hat + u * hat_panel + v * VL), along)
        sum, product = vsum(sum, mean), vsum(product, along)
    largest = vlargest(most)
    if LARGE_GRADIENT < largest <= REAL_MAX:
        for u in range(blocks):
            for v in range(count):
                vstore(
                    d + u * d_panel + v * VL, vload(d + u * d_panel + v * VL) * GRADIENT_SCALE
                )
        normalise_row_back(
            d, d_panel, hat, hat_panel, rstd / GRADIENT_SCALE, count, blocks, H
        )
        return
    mean, along = vset(sum / n), vset(product / n)
    for u in range(blocks):
        for v in range(count):
            v_d = vload(d + u * d_panel + v * VL) - mean
            v_d = vfnma(vload(hat + u * hat_panel + v * VL), along, v_d) * vset(rstd)
            vstore(d + u * d_panel + v * VL, vfirst(v_d, H - u * VL))


cdef inline ptrdiff_t group_end(const Norm *norm, ptrdiff_t slot, ptrdiff_t end) noexcept nogil:
    """Return the end of the group that starts at `slot`."""
    cdef ptrdiff_t last = slot + 1
    while last < end and norm.groups[last] == norm.groups[slot]:
        last += 1
    return last


cdef inline void normalise(
    const Norm *norm, ptrdiff_t first, ptrdiff_t count, ptrdiff_t rows, ptrdiff_t blocks,
    ptrdiff_t H, real *z, ptrdiff_t z_panel,
) noexcept nogil:
    """Normalise the product in hat, and add gain * hat to z: `count` slots of each."""
    cdef ptrdiff_t b, u, slot, end, at, size = norm.slots * VL
    for b in range(rows):
        slot = first
        while slot < first + count:
            end = group_end(norm, slot, first + count)
            norm.rstd[b * norm.slots + slot] = normalise_row(
                norm.hat + b * size + slot * VL, norm.hat_panel, end - slot, blocks, H
            )
            slot = end
        for u in range(blocks):
            for slot in range(first, first + count):
                at = b * size + slot * VL
                vstore(
                    z + u * z_panel + at,
                    vfma(
                        vload(norm.gain + u * size + slot * VL),
                        vload(norm.hat + u * norm.hat_panel + at), vload(z + u * z_panel + at),
                    ),
                )


cdef inline void normalise_back(
    const Norm *norm, ptrdiff_t first, ptrdiff_t count, ptrdiff_t rows, ptrdiff_t blocks,
    ptrdiff_t H, const real *dz, real *d, ptrdiff_t dz_panel,
) noexcept nogil:
    """Write to `d`, laid out as dz, the gradient of the product, from that of gain * hat."""
    cdef ptrdiff_t b, u, slot, end, at, size = norm.slots * VL
    for b in range(rows):
        for u in range(blocks):
            for slot in range(first, first + count):
                at = u * dz_panel + b * size + slot * VL
                vstore(d + at, vload(dz + at) * vload(norm.gain + u * size + slot * VL))
        slot = first
        while slot < first + count:
            end = group_end(norm, slot, first + count)
            at = b * size + slot * VL
            normalise_row_back(
                d + at, dz_panel, norm.hat + at, norm.hat_panel,
                norm.rstd[b * norm.slots + slot], end - slot, blocks, H,
            )
            slot = end
