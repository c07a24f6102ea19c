/* The register tile: the loop in which nearly all the time is spent.
 *
 * A tile is R rows by N vectors of c = init + sum over k of a[row, k] * w[k, vector], each output one
 * chain of multiply-adds in the order of k; with `add`, this is added to c. The order is the same in
 * every tile, so an output's bits do not depend on which tile computed it.
 *
 * The accumulators are separate variables because GCC 12 keeps an array of them on the stack, which
 * costs most of the speed. R and N are constants wherever `tile` is inlined, so code for unused rows and
 * vectors is eliminated.
 */
#ifndef FASTRNN_TILE_H
#define FASTRNN_TILE_H

#include "vec.h"

/* One product. Strides count reals. */
typedef struct {
    const real *a; /* (rows, K), in contiguous segments of `segment` elements */
    ptrdiff_t a_row, a_k, a_segment;
    ptrdiff_t a_rest; /* shift of the start of a last, shorter segment */
    const real *w; /* (K, vectors) */
    ptrdiff_t w_k, w_vec, w_group;
    const real *init;
    ptrdiff_t init_row, init_vec;
    real *c;
    ptrdiff_t c_row, c_vec;
    ptrdiff_t K, segment;
    int add;
    const real *w_tail; /* of a last group with its own number of vectors; `add` does not apply to it */
    const real *init_tail;
    real *c_tail;
} gemm_args;

#define TILE_ROWS(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7)
#define TILE_VECS(M, r) M(r, 0) M(r, 1) M(r, 2) M(r, 3)

#define TILE_DECLARE(r) vf acc##r##0, acc##r##1, acc##r##2, acc##r##3;
#define TILE_INIT_VEC(r, v) \
    acc##r##v = R > r && N > v ? vload(p.init + r * p.init_row + v * p.init_vec) : vset(0);
#define TILE_INIT(r) TILE_VECS(TILE_INIT_VEC, r)
#define TILE_SUM_VEC(r, v) \
    if (R > r && N > v) acc##r##v += vload(p.c + r * p.c_row + v * p.c_vec);
#define TILE_SUM(r) TILE_VECS(TILE_SUM_VEC, r)
#define TILE_STORE_VEC(r, v) \
    if (R > r && N > v) vstore(p.c + r * p.c_row + v * p.c_vec, acc##r##v);
#define TILE_STORE(r) TILE_VECS(TILE_STORE_VEC, r)

#define TILE_ADD_VEC(r, v) if (N > v) acc##r##v = vfma(w##v, x, acc##r##v);
#define TILE_ADD(r) \
    if (R > r) { \
        vf x = vset(a[r * p.a_row]); \
        TILE_VECS(TILE_ADD_VEC, r) \
    }

/* R rows of a batch against N vectors of weights. */
INLINE void tile(const int R, const int N, const gemm_args p) {
    TILE_ROWS(TILE_DECLARE)
    TILE_ROWS(TILE_INIT)
    const real *w = p.w, *segment = p.a;
    for (ptrdiff_t left = p.K; left > 0; left -= p.segment) {
        const real *a = left < p.segment ? segment + p.a_rest : segment;
        for (ptrdiff_t k = left < p.segment ? left : p.segment; k > 0; k--) {
            vf w0 = vload(w);
            vf w1 = N > 1 ? vload(w + p.w_vec) : w0;
            vf w2 = N > 2 ? vload(w + 2 * p.w_vec) : w0;
            vf w3 = N > 3 ? vload(w + 3 * p.w_vec) : w0;
            TILE_ROWS(TILE_ADD)
            a += p.a_k;
            w += p.w_k;
        }
        segment += p.a_segment;
    }
    if (p.add) { TILE_ROWS(TILE_SUM) }
    TILE_ROWS(TILE_STORE)
}

#define TILE_ADD_GROUP_VEC(r, v) \
    if (N > v) acc##r##v = vfma(vload(w##r + v * p.w_vec), x, acc##r##v);
#define TILE_ADD_GROUP(r) \
    if (R > r) { \
        const real *w##r = w + r * p.w_group; \
        TILE_VECS(TILE_ADD_GROUP_VEC, r) \
    }

#define TAIL_VECS(M) M(0) M(1) M(2)
#define TAIL_INIT(v) vf tail##v = E > v ? vload(p.init_tail + v * p.init_vec) : vset(0);
#define TAIL_ADD(v) if (E > v) tail##v = vfma(vload(w_tail + v * p.w_vec), x, tail##v);
#define TAIL_STORE(v) if (E > v) vstore(p.c_tail + v * p.c_vec, tail##v);

/* One row of a batch against R groups of N vectors and a last one of E: a single row needs several
 * groups for enough independent multiply-adds. The "rows" of init and c are the groups. */
INLINE void row_tile(const int R, const int N, const int E, const gemm_args p) {
    TILE_ROWS(TILE_DECLARE)
    TILE_ROWS(TILE_INIT)
    TAIL_VECS(TAIL_INIT)
    const real *w = p.w, *w_tail = p.w_tail, *segment = p.a;
    for (ptrdiff_t left = p.K; left > 0; left -= p.segment) {
        const real *a = left < p.segment ? segment + p.a_rest : segment;
        for (ptrdiff_t k = left < p.segment ? left : p.segment; k > 0; k--) {
            vf x = vset(*a);
            TILE_ROWS(TILE_ADD_GROUP)
            TAIL_VECS(TAIL_ADD)
            a += p.a_k;
            w += p.w_k;
            w_tail += E * VL;
        }
        segment += p.a_segment;
    }
    if (p.add) { TILE_ROWS(TILE_SUM) }
    TILE_ROWS(TILE_STORE)
    TAIL_VECS(TAIL_STORE)
}

typedef void (*tile_function)(const gemm_args *);

#define TILE_DEFINE(R, N) \
    NOINLINE void tile_##R##x##N(const gemm_args *p) { tile(R, N, *p); }
/* More rows than registers can hold with all N vectors: one half of the vectors, then the other. */
#define HALVES_DEFINE(R, N) \
    NOINLINE void tile_##R##x##N(const gemm_args *p) { \
        gemm_args half = *p; \
        tile(R, N / 2, half); \
        half.w += N / 2 * half.w_vec; \
        half.init += N / 2 * half.init_vec; \
        half.c += N / 2 * half.c_vec; \
        tile(R, N / 2, half); \
    }
#define ROW_TILE_DEFINE(R, N) \
    NOINLINE void row_tile_##R##x##N(const gemm_args *p) { row_tile(R, N, 0, *p); }
#define TAILED_TILE_DEFINE(R, N, E) \
    NOINLINE void tailed_tile_##R##x##N##_##E(const gemm_args *p) { row_tile(R, N, E, *p); }
#define TAILED_TILES_DEFINE(N, E) \
    TAILED_TILE_DEFINE(1, N, E) TAILED_TILE_DEFINE(2, N, E) \
    TAILED_TILE_DEFINE(3, N, E) TAILED_TILE_DEFINE(4, N, E)

/* MAX_ROWS: accumulators, weights and one broadcast fit into the registers: 32 with AVX-512, else 16.
 * MOST_ROWS: up to as many rows, one tile in halves beats two tiles, which both read all the weights.
 * WIDEST is the most vectors; if it is 3, four gates are computed in groups of two. */
TILE_DEFINE(1, 1) TILE_DEFINE(2, 1) TILE_DEFINE(3, 1) TILE_DEFINE(4, 1)
TILE_DEFINE(5, 1) TILE_DEFINE(6, 1) TILE_DEFINE(7, 1) TILE_DEFINE(8, 1)
TILE_DEFINE(1, 2) TILE_DEFINE(2, 2) TILE_DEFINE(3, 2) TILE_DEFINE(4, 2)
TILE_DEFINE(5, 2) TILE_DEFINE(6, 2)
TILE_DEFINE(1, 3) TILE_DEFINE(2, 3) TILE_DEFINE(3, 3) TILE_DEFINE(4, 3)
ROW_TILE_DEFINE(2, 1) ROW_TILE_DEFINE(3, 1) ROW_TILE_DEFINE(4, 1)
ROW_TILE_DEFINE(2, 2) ROW_TILE_DEFINE(3, 2) ROW_TILE_DEFINE(4, 2)
ROW_TILE_DEFINE(2, 3) ROW_TILE_DEFINE(3, 3) ROW_TILE_DEFINE(4, 3)
#if VECTOR_BYTES == 64
TILE_DEFINE(7, 2) TILE_DEFINE(8, 2)
TILE_DEFINE(5, 3) TILE_DEFINE(6, 3) TILE_DEFINE(7, 3) TILE_DEFINE(8, 3)
TILE_DEFINE(1, 4) TILE_DEFINE(2, 4) TILE_DEFINE(3, 4)
TILE_DEFINE(4, 4) TILE_DEFINE(5, 4) TILE_DEFINE(6, 4)
HALVES_DEFINE(7, 4) HALVES_DEFINE(8, 4)
ROW_TILE_DEFINE(2, 4) ROW_TILE_DEFINE(3, 4) ROW_TILE_DEFINE(4, 4)
#define WIDEST 4
static const int MAX_ROWS[WIDEST + 1] = {0, 8, 8, 8, 6};
static const int MOST_ROWS[WIDEST + 1] = {0, 8, 8, 8, 8};
#else
#define WIDEST 3
static const int MAX_ROWS[WIDEST + 1] = {0, 8, 6, 4};
static const int MOST_ROWS[WIDEST + 1] = {0, 8, 6, 4};
#endif
/* The tail of three gates has 1 or 2 vectors, that of four gates up to 3. */
TAILED_TILES_DEFINE(3, 1) TAILED_TILES_DEFINE(3, 2)
#if VECTOR_BYTES == 64
TAILED_TILES_DEFINE(4, 1) TAILED_TILES_DEFINE(4, 2) TAILED_TILES_DEFINE(4, 3)
#else
TAILED_TILES_DEFINE(2, 1) TAILED_TILES_DEFINE(2, 2) TAILED_TILES_DEFINE(2, 3)
#endif
/* Most groups of a `row_tile`. */
#define MAX_GROUPS 4

/* TILES[N][R] and ROW_TILES[N][groups]. */
static const tile_function TILES[][9] = {
    {0},
    {0, tile_1x1, tile_2x1, tile_3x1, tile_4x1, tile_5x1, tile_6x1, tile_7x1, tile_8x1},
#if VECTOR_BYTES == 64
    {0, tile_1x2, tile_2x2, tile_3x2, tile_4x2, tile_5x2, tile_6x2, tile_7x2, tile_8x2},
    {0, tile_1x3, tile_2x3, tile_3x3, tile_4x3, tile_5x3, tile_6x3, tile_7x3, tile_8x3},
    {0, tile_1x4, tile_2x4, tile_3x4, tile_4x4, tile_5x4, tile_6x4, tile_7x4, tile_8x4},
#else
    {0, tile_1x2, tile_2x2, tile_3x2, tile_4x2, tile_5x2, tile_6x2},
    {0, tile_1x3, tile_2x3, tile_3x3, tile_4x3},
#endif
};
static const tile_function ROW_TILES[][MAX_GROUPS + 1] = {
    {0},
    {0, tile_1x1, row_tile_2x1, row_tile_3x1, row_tile_4x1},
    {0, tile_1x2, row_tile_2x2, row_tile_3x2, row_tile_4x2},
    {0, tile_1x3, row_tile_2x3, row_tile_3x3, row_tile_4x3},
#if VECTOR_BYTES == 64
    {0, tile_1x4, row_tile_2x4, row_tile_3x4, row_tile_4x4},
#endif
};
/* TAILED_TILES[N][vectors of the tail][groups]. */
#define TAILED_TILES_OF(N, E) \
    {0, tailed_tile_1x##N##_##E, tailed_tile_2x##N##_##E, tailed_tile_3x##N##_##E, \
     tailed_tile_4x##N##_##E}
static const tile_function TAILED_TILES[][4][MAX_GROUPS + 1] = {
    {{0}},
    {{0}},
#if VECTOR_BYTES == 64
    {{0}},
    {{0}, TAILED_TILES_OF(3, 1), TAILED_TILES_OF(3, 2)},
    {{0}, TAILED_TILES_OF(4, 1), TAILED_TILES_OF(4, 2), TAILED_TILES_OF(4, 3)},
#else
    {{0}, TAILED_TILES_OF(2, 1), TAILED_TILES_OF(2, 2), TAILED_TILES_OF(2, 3)},
    {{0}, TAILED_TILES_OF(3, 1), TAILED_TILES_OF(3, 2)},
#endif
};

#endif
