/* Products of numbers rounded to bfloat16, the upper half of a float32 (Kalamkar et al. 2019). A word
 * holds a pair: the number of an even k in its low half, that of the next k in its high half.
 *
 * The instruction `vdpbf16ps` adds the product of the high halves and then that of the low ones, each
 * rounded once, with subnormals as 0 (Intel SDM vol. 2); a product of two bfloat16 is exact. Without it,
 * shifts and multiply-adds give the same bits.
 */
#if FASTRNN_REAL_BITS == 32
#include <float.h>

#if defined(__GNUC__) || defined(__clang__)
typedef uint32_t vw __attribute__((vector_size(VECTOR_BYTES)));
#else
typedef uint32_t vw;
#endif

/* x rounded to nearest, ties to even; subnormals become 0, NaN stays NaN: as `vcvtneps2bf16`. */
INLINE vf vround(vf x) {
    vw bits = (vw)as_whole(x), sign = bits & 0x80000000u;
    vf rounded = as_real((vi)((bits + 0x7FFFu + (bits >> 16 & 1u)) & 0xFFFF0000u));
    vf cut = as_real((vi)((bits | 0x400000u) & 0xFFFF0000u));
    vf zero = as_real((vi)sign);
    return choose(less(absolute(x), vset(FLT_MIN)), zero, choose(equal(x, x), rounded, cut));
}

INLINE void round_row(const real *a, ptrdiff_t n, real *to) {
    for (; n > 0; n -= VL, a += VL, to += VL) vstore_first(to, vround(vload_first(a, n)), n);
}

/* K of the left operand. */
INLINE ptrdiff_t run_elements(const gemm_args *p) {
    ptrdiff_t K = 0;
    for (ptrdiff_t i = 0; i < p->run_count; i++) K += p->runs[i].length;
    return K;
}

/* The left operand as rounded reals. */
NOINLINE void narrow_rows_shift(gemm_args *p, ptrdiff_t rows) {
    const ptrdiff_t K = run_elements(p), row = narrow_row(K);
    for (ptrdiff_t r = 0; r < rows; r++) {
        const real *a = p->a + r * p->a_row;
        real *to = p->narrow + r * row;
        for (const gemm_run *run = p->runs; run < p->runs + p->run_count; run++) {
            round_row(a + run->block * p->a_block + run->offset, run->length, to);
            to += run->length;
        }
        if (K % 2) *to = 0;
    }
    p->a = p->narrow;
    p->a_row = row;
    p->a_k = 2;
    p->a_high = 1;
    set_contiguous(p, (K + 1) / 2);
}

NOINLINE void make_words_shift(const real *a, ptrdiff_t n, real *to) {
    real rounded[2 * VL];
    for (; n > 0; n -= 2 * VL, a += 2 * VL, to += VL) {
        ptrdiff_t words = n < 2 * VL ? (n + 1) / 2 : VL;
        vstore(rounded, vround(vload_first(a, n)));
        vstore(rounded + VL, n > VL ? vround(vload_first(a + VL, n - VL)) : vset(0));
        for (ptrdiff_t i = 0; i < words; i++) {
            uint32_t pair[2];
            memcpy(pair, rounded + 2 * i, sizeof pair);
            pair[0] = pair[0] >> 16 | pair[1];
            memcpy(to + i, pair, sizeof *pair);
        }
    }
}

INLINE vf vpair(vf low, vf high) {
    return as_real((vi)((vw)as_whole(vround(low)) >> 16 | (vw)as_whole(vround(high))));
}

NOINLINE void pair_rows_shift(const real *low, const real *high, ptrdiff_t n, real *to) {
    for (ptrdiff_t i = 0; i < n; i += VL) {
        vf upper = high ? vload_first(high + i, n - i) : vset(0);
        vstore_first(to + i, vpair(vload_first(low + i, n - i), upper), n - i);
    }
}

NOINLINE void pair_left_shift(const real *low, const real *high, ptrdiff_t n, real *to) {
    round_row(low, n, to);
    if (high) round_row(high, n, to + n);
    else memset(to + n, 0, n * sizeof(real));
}

/* Weights are read again for the other half, and the mask for each vector: there are no registers for
 * them. */
#if defined(__GNUC__) || defined(__clang__)
#define READ_AGAIN __asm__ volatile("" : : : "memory");
#else
#define READ_AGAIN
#endif
static const volatile uint32_t UPPER_HALF = 0xFFFF0000u;
INLINE vf upper_half(vf w) { return as_real((vi)((vw)as_whole(w) & UPPER_HALF)); }
#define FORMAT shift
#define TARGET
#define STEPS(M) M(1) READ_AGAIN M(0)
#define WEIGHT(high, w) ((high) ? upper_half(w) : as_real((vi)((vw)as_whole(w) << 16)))
#define OPERAND(high, a) vset((a)[(high) ? p.a_high : 0])
#define MULTIPLY_ADD(w, x, acc) vfma(w, x, acc)
#define START(row, init) vload(init)
#define END_TILE STORE_TILE
#define END_ROW STORE_ROW
#include "tile_body.h"
/* With 16 registers, the mask of `upper_half` takes one. */
#if VECTOR_BYTES == 64
#define ROWS_OF_SHIFT .max_rows = {0, 8, 8, 8, 6}, .most_rows = {0, 8, 8, 8, 6}
#else
#define ROWS_OF_SHIFT .max_rows = {0, 8, 6, 3}, .most_rows = {0, 8, 6, 3}
#endif
static const tile_format SHIFT = {
    FEWER_TILES_OF(shift), ROWS_OF_SHIFT, .per_word = 2, .narrow_rows = narrow_rows_shift,
    .make_words = make_words_shift, .pair_rows = pair_rows_shift, .pair_left = pair_left_shift,
    .a_width = 2,
};

#if VECTOR_BYTES == 64 && (defined(__clang__) || __GNUC__ >= 10)
#define HAS_DOT
#define BF16 __attribute__((target("avx512bf16")))
#define FIRST_16(n) ((n) >= 16 ? 0xFFFFu : (1u << ((n) > 0 ? (n) : 0)) - 1)
#define FIRST_32(n) ((n) >= 32 ? 0xFFFFFFFFu : (1u << (n)) - 1)
INLINE BF16 vf vset_word(const real *p) {
    int32_t word;
    memcpy(&word, p, sizeof word);
    return (vf)_mm512_set1_epi32(word);
}

/* Write n numbers side by side, which are words of pairs; return the end. */
INLINE BF16 uint16_t *narrow_run(const real *a, ptrdiff_t n, uint16_t *to) {
    for (ptrdiff_t i = 0; i < n; i += 32) {
        __m512 low = _mm512_maskz_loadu_ps(FIRST_16(n - i), a + i);
        __m512 high = _mm512_maskz_loadu_ps(FIRST_16(n - i - 16), a + i + 16);
        __m512i both = (__m512i)_mm512_cvtne2ps_pbh(high, low);
        _mm512_mask_storeu_epi16(to + i, FIRST_32(n - i), both);
    }
    return to + n;
}

NOINLINE BF16 void make_words_dot(const real *a, ptrdiff_t n, real *to) {
    uint16_t *end = narrow_run(a, n, (uint16_t *)to);
    if (n % 2) memset(end, 0, sizeof *end);
}

/* The left operand as words. */
NOINLINE BF16 void narrow_rows_dot(gemm_args *p, ptrdiff_t rows) {
    const ptrdiff_t K = run_elements(p), words = (K + 1) / 2, row = narrow_row(words);
    const gemm_run *end = p->runs + p->run_count;
    for (ptrdiff_t r = 0; r < rows; r++) {
        uint16_t *to = (uint16_t *)(p->narrow + r * row);
        for (const gemm_run *run = p->runs; run < end; run++) {
            const real *a = p->a + r * p->a_row + run->block * p->a_block + run->offset;
            to = narrow_run(a, run->length, to);
        }
        if (K % 2) memset(to, 0, sizeof *to);
    }
    p->a = p->narrow;
    p->a_row = row;
    p->a_k = 1;
    set_contiguous(p, words);
}

NOINLINE BF16 void pair_rows_dot(const real *low, const real *high, ptrdiff_t n, real *to) {
    for (ptrdiff_t i = 0; i < n; i += 16) {
        __mmask16 first = FIRST_16(n - i);
        __m512 upper = high ? _mm512_maskz_loadu_ps(first, high + i) : _mm512_setzero_ps();
        __m256i l = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(first, low + i));
        __m256i h = (__m256i)_mm512_cvtneps_pbh(upper);
        __m512i both = _mm512_or_si512(
            _mm512_cvtepu16_epi32(l), _mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)
        );
        _mm512_mask_storeu_epi32(to + i, first, both);
    }
}

#define FORMAT dot
#define TARGET BF16
#define STEPS(M) M(0)
#define WEIGHT(high, w) (w)
#define OPERAND(high, a) vset_word(a)
#define MULTIPLY_ADD(w, x, acc) \
    (vf)_mm512_dpbf16_ps((__m512)(acc), (__m512bh)(w), (__m512bh)(x))
#define START(row, init) vload(init)
#define END_TILE STORE_TILE
#define END_ROW STORE_ROW
#include "tile_body.h"
static const tile_format DOT = {
    TILES_OF(dot), ROWS_OF_REALS, .per_word = 2, .narrow_rows = narrow_rows_dot,
    .make_words = make_words_dot, .pair_rows = pair_rows_dot, .pair_left = pair_rows_dot,
    .a_width = 1,
};
#endif

/* How this CPU multiplies: chosen once, at import. */
static const tile_format *BFLOAT16 = &SHIFT;
INLINE void use_bfloat16(int has_instruction) {
#ifdef HAS_DOT
    if (has_instruction) BFLOAT16 = &DOT;
#endif
    (void)has_instruction;
}
#else
/* For float32 only. */
static const tile_format *BFLOAT16 = &REALS;
INLINE void use_bfloat16(int has_instruction) { (void)has_instruction; }
#endif
