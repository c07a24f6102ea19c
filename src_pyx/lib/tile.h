/* The register tile: the loop in which nearly all the time is spent.
 *
 * A tile is R rows by N vectors of c = init + sum over k of a[row, k] * w[k, vector], each output one
 * chain of multiply-adds in a fixed order of k; with `add`, this is added to c. The order is the same
 * in every tile, so an output's bits do not depend on which tile computed it.
 *
 * There are tiles for each format of the operands, all from tile_body.h: reals, and words that hold
 * several narrower numbers, of consecutive k. A word is as large as a real, so that weights are laid
 * out as reals are, with fewer k.
 */
#ifndef FASTRNN_TILE_H
#define FASTRNN_TILE_H

#include "vec.h"

typedef struct tile_format tile_format;

/* Consecutive k of a row of `a`, from block * a_block + offset on. */
typedef struct {
    ptrdiff_t block, offset, length;
} gemm_run;

/* One product. Strides count reals, or words. */
typedef struct {
    const real *a; /* (rows, K), in one run or more */
    ptrdiff_t a_row, a_k, a_block;
    ptrdiff_t a_high; /* from the low to the high number of a pair, where both are reals */
    const gemm_run *runs;
    ptrdiff_t run_count;
    gemm_run whole; /* the only run of a contiguous row */
    const real *w; /* (K, vectors) */
    ptrdiff_t w_k, w_vec, w_group;
    const real *init;
    ptrdiff_t init_row, init_vec;
    real *c;
    ptrdiff_t c_row, c_vec;
    int add;
    const real *w_tail; /* of a last group with its own number of vectors; `add` does not apply to it */
    const real *init_tail;
    real *c_tail;
    const tile_format *format;
    real *narrow; /* scratch for the rows of `a` in this format: see `narrow_row` */
    real least, limit; /* of int8: the least and the largest entry that a row is scaled by */
} gemm_args;

/* Make `a` contiguous rows of K elements. */
INLINE void set_contiguous(gemm_args *p, ptrdiff_t K) {
    p->whole.block = p->whole.offset = 0;
    p->whole.length = K;
    p->runs = &p->whole;
    p->run_count = 1;
    p->a_block = 0;
}

typedef void (*tile_function)(const gemm_args *);

/* WIDEST is the most vectors of a tile; if it is 3, four gates are computed in groups of two.
 * MAX_GROUPS: most groups of a `row_tile`. */
#if VECTOR_BYTES == 64
#define WIDEST 4
#else
#define WIDEST 3
#endif
#define MAX_GROUPS 4

/* A format of operands, and its tiles: of R rows and N vectors tiles[N][R]; of one row by groups
 * row_tiles[N][groups], with a last group of E vectors tailed_tiles[N][E][groups], or NULL. */
struct tile_format {
    tile_function tiles[WIDEST + 1][9];
    tile_function row_tiles[WIDEST + 1][MAX_GROUPS + 1];
    tile_function tailed_tiles[WIDEST + 1][4][MAX_GROUPS + 1];
    /* For each N, up to how many rows accumulators, weights and one operand fit into the registers: 32
     * with AVX-512, else 16; and up to how many one tile beats two, which both read all the weights. */
    int max_rows[WIDEST + 1];
    int most_rows[WIDEST + 1];
    /* Numbers in a word of the weights. The rest is for words only. */
    int per_word;
    int extra; /* rows of words after those of the weights */
    int flip; /* exclusive-or of each byte of the weights */
    /* Convert the left operand, `rows` rows of reals, to `narrow`, and make `p` read that. */
    void (*narrow_rows)(gemm_args *p, ptrdiff_t rows);
    /* Make words of n numbers. */
    void (*make_words)(const real *a, ptrdiff_t n, real *to);
    /* Make words of the n numbers of `low` and of `high`, the next k; NULL: of zeros. */
    void (*pair_rows)(const real *low, const real *high, ptrdiff_t n, real *to);
    /* Likewise for the left operand, as `a_high` = n reals apart or as words: `a_width` * n reals. */
    void (*pair_left)(const real *low, const real *high, ptrdiff_t n, real *to);
    ptrdiff_t a_width;
};

/* Make `a` the rows in `narrow`, `row` apart, of K words. */
INLINE void read_narrow(gemm_args *p, ptrdiff_t row, ptrdiff_t K) {
    p->a = p->narrow;
    p->a_row = row;
    p->a_k = 1;
    set_contiguous(p, K);
}

/* Reals that a row of K numbers takes in `narrow`. */
INLINE ptrdiff_t narrow_row(ptrdiff_t K) { return (K + 15) & ~(ptrdiff_t)15; }

#if VECTOR_BYTES == 64
#define ROWS_OF_REALS .max_rows = {0, 8, 8, 8, 6}, .most_rows = {0, 8, 8, 8, 8}
#else
#define ROWS_OF_REALS .max_rows = {0, 8, 6, 4}, .most_rows = {0, 8, 6, 4}
#endif

#define JOINED(a, b) a##_##b
#define JOIN(a, b) JOINED(a, b)
#define NAMED(name) JOIN(name, FORMAT)

#if FASTRNN_INT8
/* All products are of int8. */
#include "int8.h"
#define REALS (*INT8)
#define BFLOAT16 INT8
#else
#define FORMAT real
#define TARGET
#define STEPS(M) M(0)
#define WEIGHT(high, w) (w)
#define OPERAND(high, a) vset(*(a))
#define MULTIPLY_ADD(w, x, acc) vfma(w, x, acc)
#define START(row, init) vload(init)
#define END_TILE STORE_TILE
#define END_ROW STORE_ROW
#include "tile_body.h"
static const tile_format REALS = {TILES_OF(real), ROWS_OF_REALS, .per_word = 1};

#include "bfloat16.h"
#endif

#endif
