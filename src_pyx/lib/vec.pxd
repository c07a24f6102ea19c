"""Vectors of `real` and the register tile, from vec.h and tile.h.

Cython treats `vf` as a number, so `a + b` reaches the C compiler unchanged, which turns it into one
vector instruction. `a + w * b` is two, each of which rounds; `vfma(w, b, a)` rounds once.
"""

cdef extern from "vec.h" nogil:
    ctypedef double real
    ctypedef double vf
    ctypedef int float_mode
    const ptrdiff_t VL
    const ptrdiff_t SUM_LANES
    const ptrdiff_t SUM_VECTORS
    const real NORM_EPS
    const real LARGE_GRADIENT
    const real GRADIENT_SCALE
    const real SQUARE_SCALE
    const real REAL_MAX
    const bint FASTRNN_INT8
    vf vset(real x)
    vf vfma(vf a, vf b, vf c)       # c + a b
    vf vfnma(vf a, vf b, vf c)      # c - a b
    vf vload(const real *p)
    vf vload_first(const real *p, ptrdiff_t n)
    vf vfirst(vf v, ptrdiff_t n)
    void vstore(real *p, vf v)
    void vstore_first(real *p, vf v, ptrdiff_t n)
    void vcopy(real *to, const real *from_, ptrdiff_t n)
    real vsum(real total, vf v)
    void transpose_square(
        const real *from_, ptrdiff_t from_row, ptrdiff_t rows, ptrdiff_t columns, real *to,
        ptrdiff_t to_row,
    )
    vf vsigmoid(vf x)
    vf vtanh(vf x)
    vf vsettled(vf state)
    vf vrelu(vf x)
    vf vrelu_grad(vf r, vf g)
    float_mode flush_subnormals()
    void restore_mode(float_mode before)

cdef extern from "tile.h" nogil:
    ctypedef struct tile_format
    ctypedef struct gemm_run:
        ptrdiff_t block
        ptrdiff_t offset
        ptrdiff_t length
    ctypedef struct gemm_args:
        const real *a
        ptrdiff_t a_row
        ptrdiff_t a_k
        ptrdiff_t a_block
        ptrdiff_t a_high
        const gemm_run *runs
        ptrdiff_t run_count
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
        bint add
        const real *w_tail
        const real *init_tail
        real *c_tail
        const tile_format *format
        real *narrow
        real least
        real limit
    ctypedef void (*tile_function)(const gemm_args *p) noexcept
    ctypedef struct tile_format:
        tile_function tiles[5][9]
        tile_function row_tiles[5][5]
        tile_function tailed_tiles[5][4][5]
        int max_rows[5]
        int most_rows[5]
        int per_word
        int extra
        int flip
        void (*narrow_rows)(gemm_args *p, ptrdiff_t rows) noexcept nogil
        void (*make_words)(const real *a, ptrdiff_t n, real *to) noexcept nogil
        void (*pair_rows)(
            const real *low, const real *high, ptrdiff_t n, real *to
        ) noexcept nogil
        void (*pair_left)(
            const real *low, const real *high, ptrdiff_t n, real *to
        ) noexcept nogil
        ptrdiff_t a_width
    const tile_format REALS
    const tile_format *BFLOAT16
    void use_bfloat16(bint has_instruction)
    void use_dot(bint has_instruction)
    ptrdiff_t narrow_row(ptrdiff_t K)
    void set_contiguous(gemm_args *p, ptrdiff_t K)
    void read_narrow(gemm_args *p, ptrdiff_t row, ptrdiff_t K)
    const ptrdiff_t WIDEST
    const ptrdiff_t MAX_GROUPS
