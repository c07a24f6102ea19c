/* The tiles of one format: included by tile.h, bfloat16.h and int8.h, which define
 *
 * FORMAT                    the end of all names
 * TARGET                    an attribute of the functions, or nothing
 * STEPS(M)                  M(high) for each number of a word, in order: high is 1 or 0
 * WEIGHT(high, w)           a vector of weights from a vector of words
 * OPERAND(high, a)          the left operand at `a`, in all lanes
 * MULTIPLY_ADD(w, x, acc)   acc + w x
 * START(row, init)          the first sums of a row of the left operand
 * END_TILE, END_ROW         write the outputs: `w` and `w_tail` point past the last weights
 *
 * The accumulators are separate variables because GCC 12 keeps an array of them on the stack, which
 * costs most of the speed. R and N are constants wherever `tile` is inlined, so code for unused rows and
 * vectors is eliminated.
 */
#ifndef FASTRNN_TILE_BODY_H
#define FASTRNN_TILE_BODY_H

#define TILE_ROWS(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7)
#define TILE_VECS(M, r) M(r, 0) M(r, 1) M(r, 2) M(r, 3)

#define TILE_DECLARE(r) vf acc##r##0, acc##r##1, acc##r##2, acc##r##3;
#define INIT_VEC(row, r, v) \
    acc##r##v = R > r && N > v ? START(row, p.init + r * p.init_row + v * p.init_vec) : vset(0);
#define TILE_INIT_VEC(r, v) INIT_VEC(p.a + r * p.a_row, r, v)
#define TILE_INIT(r) TILE_VECS(TILE_INIT_VEC, r)
#define ROW_INIT_VEC(r, v) INIT_VEC(p.a, r, v)
#define ROW_INIT(r) TILE_VECS(ROW_INIT_VEC, r)
#define TILE_SUM_VEC(r, v) \
    if (R > r && N > v) acc##r##v += vload(p.c + r * p.c_row + v * p.c_vec);
#define TILE_SUM(r) TILE_VECS(TILE_SUM_VEC, r)
#define TILE_STORE_VEC(r, v) \
    if (R > r && N > v) vstore(p.c + r * p.c_row + v * p.c_vec, acc##r##v);
#define TILE_STORE(r) TILE_VECS(TILE_STORE_VEC, r)

/* For sums that start at `init`. */
#define STORE_TILE \
    if (p.add) { TILE_ROWS(TILE_SUM) } \
    TILE_ROWS(TILE_STORE)
#define STORE_ROW \
    STORE_TILE \
    TAIL_VECS(TAIL_STORE)

#define TILE_ADD_VEC(r, v) if (N > v) acc##r##v = MULTIPLY_ADD(w##v, x, acc##r##v);
#define TILE_ADD(r) \
    if (R > r) { \
        vf x = OPERAND(high, a + r * p.a_row); \
        TILE_VECS(TILE_ADD_VEC, r) \
    }
#define TILE_STEP(h) { \
        const int high = h; \
        vf w0 = WEIGHT(high, vload(w)); \
        vf w1 = N > 1 ? WEIGHT(high, vload(w + p.w_vec)) : w0; \
        vf w2 = N > 2 ? WEIGHT(high, vload(w + 2 * p.w_vec)) : w0; \
        vf w3 = N > 3 ? WEIGHT(high, vload(w + 3 * p.w_vec)) : w0; \
        (void)high; \
        if (R > 1) { LOADED(w0); LOADED(w1); LOADED(w2); LOADED(w3); } \
        TILE_ROWS(TILE_ADD) \
    }

#define ROW_ADD_VEC(r, v) \
    if (N > v) acc##r##v = MULTIPLY_ADD(WEIGHT(high, vload(w##r + v * p.w_vec)), x, acc##r##v);
#define ROW_ADD(r) \
    if (R > r) { \
        const real *w##r = w + r * p.w_group; \
        TILE_VECS(ROW_ADD_VEC, r) \
    }
#define TAIL_VECS(M) M(0) M(1) M(2)
#define TAIL_INIT(v) vf tail##v = E > v ? START(p.a, p.init_tail + v * p.init_vec) : vset(0);
#define TAIL_ADD(v) \
    if (E > v) tail##v = MULTIPLY_ADD(WEIGHT(high, vload(w_tail + v * p.w_vec)), x, tail##v);
#define TAIL_STORE(v) if (E > v) vstore(p.c_tail + v * p.c_vec, tail##v);
#define ROW_STEP(h) { \
        const int high = h; \
        vf x = OPERAND(high, a); \
        (void)high; \
        TILE_ROWS(ROW_ADD) \
        TAIL_VECS(TAIL_ADD) \
    }

/* Two k at a time, for fewer instructions, and no copies of the loops for strides of 1. */
#if defined(__GNUC__) && !defined(__clang__)
#define TILE_FUNCTION NOINLINE __attribute__((optimize("no-version-loops-for-strides")))
#define UNROLLED _Pragma("GCC unroll 2")
#else
#define TILE_FUNCTION NOINLINE
#define UNROLLED
#endif
#define TILE_DEFINE(R, N) \
    TILE_FUNCTION TARGET void NAMED(tile_##R##x##N)(const gemm_args *p) { NAMED(tile)(R, N, p); }
/* More rows than registers can hold with all N vectors: one half of the vectors, then the other. */
#define HALVES_DEFINE(R, N) \
    TILE_FUNCTION TARGET void NAMED(tile_##R##x##N)(const gemm_args *p) { \
        gemm_args half = *p; \
        NAMED(tile)(R, N / 2, &half); \
        half.w += N / 2 * half.w_vec; \
        half.init += N / 2 * half.init_vec; \
        half.c += N / 2 * half.c_vec; \
        NAMED(tile)(R, N / 2, &half); \
    }
#define ROW_TILE_DEFINE(R, N) \
    TILE_FUNCTION TARGET void NAMED(row_tile_##R##x##N)(const gemm_args *p) { \
        NAMED(row_tile)(R, N, 0, p); \
    }
#define TAILED_TILE_DEFINE(R, N, E) \
    TILE_FUNCTION TARGET void NAMED(tailed_tile_##R##x##N##_##E)(const gemm_args *p) { \
        NAMED(row_tile)(R, N, E, p); \
    }
#define TAILED_TILES_DEFINE(N, E) \
    TAILED_TILE_DEFINE(1, N, E) TAILED_TILE_DEFINE(2, N, E) \
    TAILED_TILE_DEFINE(3, N, E) TAILED_TILE_DEFINE(4, N, E)

/* The members of a tile_format. The tail of three gates has 1 or 2 vectors, that of four gates up to
 * 3. */
#define TAILED_OF(f, N, E) \
    {0, tailed_tile_1x##N##_##E##_##f, tailed_tile_2x##N##_##E##_##f, \
     tailed_tile_3x##N##_##E##_##f, tailed_tile_4x##N##_##E##_##f}
#define ROWS_OF(f, N) \
    {0, tile_1x##N##_##f, row_tile_2x##N##_##f, row_tile_3x##N##_##f, row_tile_4x##N##_##f}
#define UP_TO_3(f, N) tile_1x##N##_##f, tile_2x##N##_##f, tile_3x##N##_##f
#define UP_TO_4(f, N) UP_TO_3(f, N), tile_4x##N##_##f
#define UP_TO_6(f, N) UP_TO_4(f, N), tile_5x##N##_##f, tile_6x##N##_##f
#define UP_TO_8(f, N) UP_TO_6(f, N), tile_7x##N##_##f, tile_8x##N##_##f
/* FEWER_TILES_OF: for a format that is not the fastest of its module, whose code would weigh too much. */
#if VECTOR_BYTES == 64
#define FEWER_TILES_OF(f) \
    .tiles = {{0}, {0, UP_TO_8(f, 1)}, {0, UP_TO_8(f, 2)}, {0, UP_TO_8(f, 3)}, {0, UP_TO_6(f, 4)}}, \
    .row_tiles = {{0}, ROWS_OF(f, 1), ROWS_OF(f, 2), ROWS_OF(f, 3), ROWS_OF(f, 4)}
#else
#define FEWER_TILES_OF(f) \
    .tiles = {{0}, {0, UP_TO_8(f, 1)}, {0, UP_TO_6(f, 2)}, {0, UP_TO_3(f, 3)}}, \
    .row_tiles = {{0}, ROWS_OF(f, 1), ROWS_OF(f, 2), ROWS_OF(f, 3)}
#endif
#if VECTOR_BYTES == 64
#define TILES_OF(f) \
    .tiles = {{0}, {0, UP_TO_8(f, 1)}, {0, UP_TO_8(f, 2)}, {0, UP_TO_8(f, 3)}, {0, UP_TO_8(f, 4)}}, \
    ROW_TILES_OF(f)
#define ROW_TILES_OF(f) \
    .row_tiles = {{0}, ROWS_OF(f, 1), ROWS_OF(f, 2), ROWS_OF(f, 3), ROWS_OF(f, 4)}, \
    .tailed_tiles = { \
        {{0}}, {{0}}, {{0}}, {{0}, TAILED_OF(f, 3, 1), TAILED_OF(f, 3, 2)}, \
        {{0}, TAILED_OF(f, 4, 1), TAILED_OF(f, 4, 2), TAILED_OF(f, 4, 3)}}
#else
#define TILES_OF(f) \
    .tiles = {{0}, {0, UP_TO_8(f, 1)}, {0, UP_TO_6(f, 2)}, {0, UP_TO_4(f, 3)}}, \
    ROW_TILES_OF(f)
#define ROW_TILES_OF(f) \
    .row_tiles = {{0}, ROWS_OF(f, 1), ROWS_OF(f, 2), ROWS_OF(f, 3)}, \
    .tailed_tiles = { \
        {{0}}, {{0}}, {{0}, TAILED_OF(f, 2, 1), TAILED_OF(f, 2, 2), TAILED_OF(f, 2, 3)}, \
        {{0}, TAILED_OF(f, 3, 1), TAILED_OF(f, 3, 2)}}
#endif

#endif

/* R rows of a batch against N vectors of weights. */
INLINE TARGET void NAMED(tile)(const int R, const int N, const gemm_args *args) {
    const gemm_args p = *args;
    TILE_ROWS(TILE_DECLARE)
    TILE_ROWS(TILE_INIT)
    const real *w = p.w;
    for (const gemm_run *run = p.runs, *end = run + p.run_count; run < end; run++) {
        const real *a = p.a + run->block * p.a_block + run->offset;
        UNROLLED
        for (ptrdiff_t k = run->length; k > 0; k--) {
            STEPS(TILE_STEP)
            a += p.a_k;
            w += p.w_k;
        }
    }
    END_TILE
}

/* One row of a batch against R groups of N vectors and a last one of E: a single row needs several
 * groups for enough independent multiply-adds. The "rows" of init and c are the groups. */
INLINE TARGET void NAMED(row_tile)(const int R, const int N, const int E, const gemm_args *args) {
    const gemm_args p = *args;
    TILE_ROWS(TILE_DECLARE)
    TILE_ROWS(ROW_INIT)
    TAIL_VECS(TAIL_INIT)
    const real *w = p.w, *w_tail = p.w_tail;
    for (const gemm_run *run = p.runs, *end = run + p.run_count; run < end; run++) {
        const real *a = p.a + run->block * p.a_block + run->offset;
        UNROLLED
        for (ptrdiff_t k = run->length; k > 0; k--) {
            STEPS(ROW_STEP)
            a += p.a_k;
            w += p.w_k;
            w_tail += E * VL;
        }
    }
    END_ROW
}

TILE_DEFINE(1, 1) TILE_DEFINE(2, 1) TILE_DEFINE(3, 1) TILE_DEFINE(4, 1)
TILE_DEFINE(5, 1) TILE_DEFINE(6, 1) TILE_DEFINE(7, 1) TILE_DEFINE(8, 1)
TILE_DEFINE(1, 2) TILE_DEFINE(2, 2) TILE_DEFINE(3, 2) TILE_DEFINE(4, 2)
TILE_DEFINE(5, 2) TILE_DEFINE(6, 2)
TILE_DEFINE(1, 3) TILE_DEFINE(2, 3) TILE_DEFINE(3, 3) TILE_DEFINE(4, 3)
ROW_TILE_DEFINE(2, 1) ROW_TILE_DEFINE(3, 1) ROW_TILE_DEFINE(4, 1)
ROW_TILE_DEFINE(2, 2) ROW_TILE_DEFINE(3, 2) ROW_TILE_DEFINE(4, 2)
ROW_TILE_DEFINE(2, 3) ROW_TILE_DEFINE(3, 3) ROW_TILE_DEFINE(4, 3)
TAILED_TILES_DEFINE(3, 1) TAILED_TILES_DEFINE(3, 2)
#if VECTOR_BYTES == 64
TILE_DEFINE(7, 2) TILE_DEFINE(8, 2)
TILE_DEFINE(5, 3) TILE_DEFINE(6, 3) TILE_DEFINE(7, 3) TILE_DEFINE(8, 3)
TILE_DEFINE(1, 4) TILE_DEFINE(2, 4) TILE_DEFINE(3, 4)
TILE_DEFINE(4, 4) TILE_DEFINE(5, 4) TILE_DEFINE(6, 4)
HALVES_DEFINE(7, 4) HALVES_DEFINE(8, 4)
ROW_TILE_DEFINE(2, 4) ROW_TILE_DEFINE(3, 4) ROW_TILE_DEFINE(4, 4)
TAILED_TILES_DEFINE(4, 1) TAILED_TILES_DEFINE(4, 2) TAILED_TILES_DEFINE(4, 3)
#else
TAILED_TILES_DEFINE(2, 1) TAILED_TILES_DEFINE(2, 2) TAILED_TILES_DEFINE(2, 3)
#endif

#undef FORMAT
#undef TARGET
#undef STEPS
#undef WEIGHT
#undef OPERAND
#undef MULTIPLY_ADD
#undef START
#undef END_TILE
#undef END_ROW
