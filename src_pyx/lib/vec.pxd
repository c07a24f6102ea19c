"""Vectors of `real` and the register tile, from vec.h and tile.h.

Cython treats `vf` as a number, so `a + b` reaches the C compiler unchanged, which turns it into one
vector instruction. `a + w * b` is two, each of which rounds; `vfma(w, b, a)` rounds once.
"""

cdef extern from "vec.h" nogil:
    ctypedef double real
    ctypedef double vf
    ctypedef int float_mode
    const ptrdiff_t VL
    const real NORM_EPS
    vf vset(real x)
    vf vfma(vf a, vf b, vf c)       # c + a b
    vf vfnma(vf a, vf b, vf c)      # c - a b
    vf vload(const real *p)
    vf vload_first(const real *p, ptrdiff_t n)
    vf vfirst(vf v, ptrdiff_t n)
    void vstore(real *p, vf v)
    void vstore_first(real *p, vf v, ptrdiff_t n)
    void vcopy(real *to, const real *from_, ptrdiff_t n)
    real vsum(vf v)
    void transpose_square(
        const real *from_, ptrdiff_t from_row, ptrdiff_t rows, ptrdiff_t columns, real *to,
        ptrdiff_t to_row,
    )
    vf vsigmoid(vf x)
    vf vtanh(vf x)
    vf vrelu(vf x)
    vf vrelu_grad(vf r, vf g)
    float_mode flush_subnormals()
    void restore_mode(float_mode before)

cdef extern from "tile.h" nogil:
    ctypedef struct gemm_args:
        const real *a
        ptrdiff_t a_row
        ptrdiff_t a_k
        ptrdiff_t a_segment
        ptrdiff_t a_rest
        const real *w
        ptrdiff_t w_k
        ptrdiff_t w_vec
        ptrdiff_t w_group
        const real *init
        ptrdiff_t init_row
        ptrdiff_t init_vec
        real *c
        ptrdiff_t c_row
        ptrdiff_t c_vec
        ptrdiff_t K
        ptrdiff_t segment
        bint add
        const real *w_tail
        const real *init_tail
        real *c_tail
    ctypedef void (*tile_function)(const gemm_args *p) noexcept
    const tile_function TILES[5][9]
    const tile_function ROW_TILES[5][5]
    const tile_function TAILED_TILES[5][4][5]
    const int MAX_ROWS[5]
    const int MOST_ROWS[5]
    const ptrdiff_t WIDEST
    const ptrdiff_t MAX_GROUPS
