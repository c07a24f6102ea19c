/* Products of numbers rounded to int8: exact sums of integers, times the scales of row and weights.
 *
 * A word holds 4 int8 numbers, of consecutive k. A row of the left operand is followed by its scale and
 * by -128 times its sum. Weights have a row of words more than those of their numbers: the scale of each
 * output. They are symmetric: -128 does not occur.
 *
 * Nothing is fused or estimated, so all formats and vector lengths give the same bits, which are those of
 * fastrnn/_kernels/reference/int8.py.
 */
#if FASTRNN_REAL_BITS != 32
#error "int8.h: needs FASTRNN_REAL_BITS=32"
#endif
#include <float.h>
#include <math.h>

/* As in fastrnn/_kernels/quantized.py: the largest number; 2^-100, under which rows count as zeros. */
#define MOST ((real)127)
#define TINY ((real)7.888609052210118e-31)

#if defined(__GNUC__) || defined(__clang__)
INLINE vf to_real(vi v) { return __builtin_convertvector(v, vf); }
#else
INLINE vf to_real(vi v) { return (real)v; }
#endif

INLINE vi larger_whole(vi a, vi b) {
#if VECTOR_BYTES == 64
    return (vi)_mm512_max_epi32((__m512i)a, (__m512i)b);
#elif VECTOR_BYTES == 32
    return (vi)_mm256_max_epi32((__m256i)a, (__m256i)b);
#elif VECTOR_BYTES == 16 && defined(__SSE4_1__)
    return (vi)_mm_max_epi32((__m128i)a, (__m128i)b);
#elif VECTOR_BYTES > 4
    vi more = a > b;
    return (a & more) | (b & ~more);
#else
    return a > b ? a : b;
#endif
}

/* Write the low byte of each lane. */
INLINE void store_bytes(int8_t *to, vi v) {
#if VECTOR_BYTES == 64
    _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8((__m512i)v));
#elif VECTOR_BYTES == 32
    __m256i low = _mm256_and_si256((__m256i)v, _mm256_set1_epi32(255));
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
    _mm_storel_epi64((__m128i *)to, _mm_packus_epi16(words, words));
#else
    int32_t lanes[VL];
    memcpy(lanes, &v, sizeof lanes);
    for (int i = 0; i < VL; i++) to[i] = (int8_t)lanes[i];
#endif
}

/* The largest of all lanes, none below 0, and their sum. */
INLINE whole largest_lane(vi v) {
#if VECTOR_BYTES == 64
    return _mm512_reduce_max_epi32((__m512i)v);
#else
    whole lanes[VL], most = 0;
    memcpy(lanes, &v, sizeof lanes);
    for (int i = 0; i < VL; i++) most = lanes[i] > most ? lanes[i] : most;
    return most;
#endif
}
INLINE whole sum_of_lanes(vi v) {
#if VECTOR_BYTES == 64
    return _mm512_reduce_add_epi32((__m512i)v);
#else
    whole lanes[VL], sum = 0;
    memcpy(lanes, &v, sizeof lanes);
    for (int i = 0; i < VL; i++) sum += lanes[i];
    return sum;
#endif
}

/* The largest |a| of a row; NaN if there is one: as integers, numbers and then NaN are in order. */
INLINE real largest(const real *a, ptrdiff_t n) {
    vi most = as_whole(vset(0));
    whole of_all;
    real result;
    for (; n > 0; n -= VL, a += VL)
        most = larger_whole(most, as_whole(absolute(vload_first(a, n))));
    of_all = largest_lane(most);
    memcpy(&result, &of_all, sizeof result);
    return result;
}

/* The numbers of a row times `inverse`, rounded; return their sum. Only those scaled by a limit may be
 * larger than it. */
INLINE whole round_row(const real *a, ptrdiff_t n, real inverse, const int limited, int8_t *to) {
    vi sums = as_whole(vset(0));
    for (ptrdiff_t left = n; left > 0; left -= VL, a += VL, to += VL) {
        vf v = vload_first(a, left) * inverse;
        if (limited) v = at_most(at_least(v, -MOST), MOST);
        vi q = as_whole(v + ROUND) - as_whole(vset(ROUND));
        sums += q;
        if (left >= VL) store_bytes(to, q);
        else {
            int8_t bytes[VL];
            store_bytes(bytes, q);
            memcpy(to, bytes, (left + 3) & ~3);
        }
    }
    return sum_of_lanes(sums);
}

/* The left operand, whose rows are contiguous, as words, scales and sums. */
NOINLINE void narrow_rows(gemm_args *p, ptrdiff_t rows) {
    const ptrdiff_t n = p->runs->length, words = (n + 3) / 4, row = narrow_row(words + 2);
    const int limited = p->limit <= FLT_MAX;
    for (ptrdiff_t r = 0; r < rows; r++) {
        const real *a = p->a + r * p->a_row;
        real *to = p->narrow + r * row;
        real most = largest(a, n), inverse = 0, scale = 0;
        whole sum = 0;
        if (most <= FLT_MAX) {
            most = limited ? p->limit : most > p->least ? most : p->least;
            if (most >= TINY) { inverse = MOST / most; scale = most / MOST; }
            sum = limited ? round_row(a, n, inverse, 1, (int8_t *)to)
                : round_row(a, n, inverse, 0, (int8_t *)to);
        } else { /* no whole number stands for NaN, but the scale does */
            memset(to, 0, (size_t)words * sizeof *to);
            scale = NAN;
        }
        sum = (whole)((unsigned_whole)sum * (unsigned_whole)-128);
        to[words] = scale;
        memcpy(to + words + 1, &sum, sizeof sum);
    }
    read_narrow(p, row, words);
}

/* A word in all lanes. */
INLINE vf vset_word(const real *p) {
    whole word;
    memcpy(&word, p, sizeof word);
    return as_real(word - (vi)as_whole(vset(0)));
}

/* Outputs of a tile: init + sum * (scale of the output * scale of the row), for `rows` rows of n vectors.
 * `w` points to the scales of the outputs, `w_row` apart for each row, and `a` to the scale of the first
 * row. Sums come through memory: GCC 12 keeps accumulators on the stack in the tile's loop, if more than
 * stores follows it. */
NOINLINE void finish(
    const real *sums, ptrdiff_t rows, ptrdiff_t n, const real *w, ptrdiff_t w_row, const real *a,
    ptrdiff_t a_row, const real *init, real *c, const gemm_args *p
) {
    const ptrdiff_t init_row = p->init_row, c_row = p->c_row;
    for (ptrdiff_t v = 0; v < n; v++, w += VL, sums += VL, init += p->init_vec, c += p->c_vec) {
        const real *sum = sums, *of_w = w, *of_a = a, *from = init;
        real *to = c;
        for (ptrdiff_t r = rows; r > 0; r--) {
            vstore(to, vload(from) + to_real(as_whole(vload(sum))) * (vload(of_w) * *of_a));
            sum += n * VL;
            of_w += w_row;
            of_a += a_row;
            from += init_row;
            to += c_row;
        }
    }
}
#define KEEP_VEC(r, v) if (R > r && N > v) vstore(sums + (r * N + v) * VL, acc##r##v);
#define KEEP(r) TILE_VECS(KEEP_VEC, r)
#define KEEP_TAIL(v) if (E > v) vstore(tails + v * VL, tail##v);
#define FINISH_TILE \
    real sums[24 * VL]; \
    TILE_ROWS(KEEP) \
    finish(sums, R, N, w, 0, p.a + p.whole.length, p.a_row, p.init, p.c, args);
#define FINISH_ROW \
    real sums[24 * VL], *tails = sums + R * N * VL; \
    TILE_ROWS(KEEP) \
    TAIL_VECS(KEEP_TAIL) \
    finish(sums, R, N, w, p.w_group, p.a + p.whole.length, 0, p.init, p.c, args); \
    if (E) finish(tails, 1, E, w_tail, 0, p.a + p.whole.length, 0, p.init_tail, p.c_tail, args);

/* The sum and the products of 4 signed bytes in each lane. A pair of products is at most 2 * 128 * 127, so
 * 16 bits hold it. */
INLINE vf multiply_add_signed(vf w, vf x, vf sum) {
#if VECTOR_BYTES == 64
    __m512i a = (__m512i)x, b = (__m512i)w, zero = _mm512_setzero_si512();
    b = _mm512_mask_sub_epi8(b, _mm512_movepi8_mask(a), zero, b);
    b = _mm512_maddubs_epi16(_mm512_abs_epi8(a), b);
    return as_real(as_whole(sum) + (vi)_mm512_madd_epi16(b, _mm512_set1_epi16(1)));
#elif VECTOR_BYTES == 32
    __m256i a = (__m256i)x, b = _mm256_sign_epi8((__m256i)w, a);
    b = _mm256_maddubs_epi16(_mm256_abs_epi8(a), b);
    return as_real(as_whole(sum) + (vi)_mm256_madd_epi16(b, _mm256_set1_epi16(1)));
#elif VECTOR_BYTES == 16 && defined(__SSSE3__)
    __m128i a = (__m128i)x, b = _mm_sign_epi8((__m128i)w, a);
    b = _mm_maddubs_epi16(_mm_abs_epi8(a), b);
    return as_real(as_whole(sum) + (vi)_mm_madd_epi16(b, _mm_set1_epi16(1)));
#elif VECTOR_BYTES == 16 && defined(__aarch64__)
    int8x16_t a = vreinterpretq_s8_f32((float32x4_t)x), b = vreinterpretq_s8_f32((float32x4_t)w);
    int16x8_t pairs = vpaddq_s16(
        vmull_s8(vget_low_s8(a), vget_low_s8(b)), vmull_high_s8(a, b)
    );
    return as_real((vi)vpadalq_s16((int32x4_t)as_whole(sum), pairs));
#else
    vi a = as_whole(x), b = as_whole(w), total = as_whole(sum);
    for (int shift = 0; shift < 32; shift += 8)
        total += (a << shift >> 24) * (b << shift >> 24);
    return as_real(total);
#endif
}

#define FORMAT signed
#define TARGET
#define STEPS(M) M(0)
#define WEIGHT(high, w) (w)
#define OPERAND(high, a) vset_word(a)
#define MULTIPLY_ADD(w, x, acc) multiply_add_signed(w, x, acc)
#define START(row, init) vset(0)
#define END_TILE FINISH_TILE
#define END_ROW FINISH_ROW
#include "tile_body.h"
/* Registers are needed for the operand, its absolute value, ones and two results too. */
static const tile_format SIGNED = {
#if VECTOR_BYTES == 64
    .tiles = {
        {0}, {0, UP_TO_8(signed, 1)}, {0, UP_TO_8(signed, 2)},
        {0, UP_TO_6(signed, 3), tile_7x3_signed}, {0, UP_TO_4(signed, 4), tile_5x4_signed}
    },
    .max_rows = {0, 8, 8, 7, 5}, .most_rows = {0, 8, 8, 7, 5},
#else
    .tiles = {
        {0}, {0, UP_TO_8(signed, 1)}, {0, UP_TO_4(signed, 2)}, {0, tile_1x3_signed, tile_2x3_signed}
    },
    .max_rows = {0, 8, 4, 2}, .most_rows = {0, 8, 4, 2},
#endif
    ROW_TILES_OF(signed), .per_word = 4, .extra = 1, .narrow_rows = narrow_rows,
};

/* `vpdpbusd` multiplies unsigned with signed bytes: 128 is added to the weights, and 128 times the sum of
 * the row taken from the result. In between, sums may wrap around. */
#if VECTOR_BYTES == 64 && (defined(__clang__) || __GNUC__ >= 9)
#define HAS_DOT
#define DOT_TARGET __attribute__((target("avx512vnni")))
#define DOT(acc, x, w) (vf)_mm512_dpbusd_epi32((__m512i)(acc), (__m512i)(x), (__m512i)(w))
#elif VECTOR_BYTES == 32 && (defined(__clang__) || __GNUC__ >= 11)
#define HAS_DOT
#define DOT_TARGET __attribute__((target("avxvnni")))
#define DOT(acc, x, w) (vf)_mm256_dpbusd_avx_epi32((__m256i)(acc), (__m256i)(x), (__m256i)(w))
#endif
#ifdef HAS_DOT
#define FORMAT dot
#define TARGET DOT_TARGET
#define STEPS(M) M(0)
#define WEIGHT(high, w) (w)
#define OPERAND(high, a) vset_word(a)
#define MULTIPLY_ADD(w, x, acc) DOT(acc, w, x)
#define START(row, init) vset_word((row) + p.whole.length + 1)
#define END_TILE FINISH_TILE
#define END_ROW FINISH_ROW
#include "tile_body.h"
static const tile_format DOTS = {
    TILES_OF(dot), ROWS_OF_REALS, .per_word = 4, .extra = 1, .narrow_rows = narrow_rows,
    .flip = -128,
};
#endif

/* How this CPU multiplies: chosen once, at import. */
static const tile_format *INT8 = &SIGNED;
INLINE void use_dot(int has_instruction) {
#ifdef HAS_DOT
    if (has_instruction) INT8 = &DOTS;
#endif
    (void)has_instruction;
}
