/* Vectors of `real`: the one header that depends on the register width.
 *
 * FASTRNN_REAL_BITS (32 or 64) selects the dtype, the compiler's flags the width. Without vector types
 * in the compiler, a vector is one number, and all code above this header works unchanged.
 */
#ifndef FASTRNN_VEC_H
#define FASTRNN_VEC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* <complex.h> defines I as a macro; here it is the input size. */
#include <complex.h>
#undef I

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if FASTRNN_REAL_BITS == 32
typedef float real;
typedef int32_t whole;
typedef uint32_t unsigned_whole;
#define NPY_REAL NPY_FLOAT32
#elif FASTRNN_REAL_BITS == 64
typedef double real;
typedef int64_t whole;
typedef uint64_t unsigned_whole;
#define NPY_REAL NPY_FLOAT64
#else
#error "FASTRNN_REAL_BITS must be 32 or 64"
#endif

/* Added to variances by layer normalisation: NORM_EPS of fastrnn/_kernels/cells.py. */
#define NORM_EPS ((real)1e-5)

#ifndef FASTRNN_DEBUG
#define FASTRNN_DEBUG 0
#endif

/* Whether these are the kernels of quantized weights. */
#ifndef FASTRNN_INT8
#define FASTRNN_INT8 0
#endif

/* Whether `vfma` rounds once, on CPUs that can. */
#ifndef FASTRNN_FUSED
#define FASTRNN_FUSED !FASTRNN_INT8
#endif

#if !(defined(__GNUC__) || defined(__clang__))
#define VECTOR_BYTES (FASTRNN_REAL_BITS / 8)
#elif defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
/* Lanes of a vector. */
#define VL (VECTOR_BYTES / (int)sizeof(real))

/* Sums whose order would follow VL have that of vectors of 64 bytes on every CPU: SUM_LANES partial
 * sums, in SUM_VECTORS vectors, and gates in blocks of SUM_LANES units. */
#define SUM_LANES (64 / (int)sizeof(real))
#define SUM_VECTORS (SUM_LANES / VL)

#if defined(__GNUC__) || defined(__clang__)
#define INLINE static inline __attribute__((always_inline, unused))
#define NOINLINE static __attribute__((noinline, unused))
typedef real vf __attribute__((vector_size(VECTOR_BYTES)));
typedef whole vi __attribute__((vector_size(VECTOR_BYTES)));
typedef unsigned_whole vu __attribute__((vector_size(VECTOR_BYTES)));
/* A vector in memory: aligned as a real only, and may alias anything. */
typedef real vf_mem __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));
INLINE vf vload(const real *p) { return *(const vf_mem *)p; }
INLINE void vstore(real *p, vf v) { *(vf_mem *)p = v; }
INLINE vi as_whole(vf v) { return (vi)v; }
INLINE vf as_real(vi v) { return (vf)v; }
INLINE vf vset(real x) { return x - (vf){0}; }
INLINE vi less(vf a, vf b) { return a < b; }
INLINE vi equal(vf a, vf b) { return a == b; }
/* Where a vector is used more than once, -Os would load it each time, as an operand. */
#if defined(__OPTIMIZE_SIZE__) && defined(__AVX512F__)
#define LOADED(v) __asm__("" : "+v"(v))
#elif defined(__OPTIMIZE_SIZE__) && defined(__AVX__)
#define LOADED(v) __asm__("" : "+x"(v))
#else
#define LOADED(v) ((void)0)
#endif
#else
#define LOADED(v) ((void)0)
#define INLINE static __forceinline
#define NOINLINE static __declspec(noinline)
typedef real vf;
typedef whole vi;
typedef unsigned_whole vu;
INLINE vf vload(const real *p) { return *p; }
INLINE void vstore(real *p, vf v) { *p = v; }
INLINE vi as_whole(vf v) { vi r; memcpy(&r, &v, sizeof r); return r; }
INLINE vf as_real(vi v) { vf r; memcpy(&r, &v, sizeof r); return r; }
INLINE vf vset(real x) { return x; }
INLINE vi less(vf a, vf b) { return -(vi)(a < b); }
INLINE vi equal(vf a, vf b) { return -(vi)(a == b); }
#endif

/* c + a b and c - a b: rounded once where the CPU has such an instruction, else twice. Nothing else is
 * ever fused (-ffp-contract=off): all compilers and vector lengths give the same bits. */
#if FASTRNN_FUSED && defined(__FMA__) && VECTOR_BYTES == 64
#define FUSED_X86(which, a, b, c) FUSED_CALL(_mm512_##which, __m512, a, b, c)
#elif FASTRNN_FUSED && defined(__FMA__) && VECTOR_BYTES == 32
#define FUSED_X86(which, a, b, c) FUSED_CALL(_mm256_##which, __m256, a, b, c)
#endif
#if FASTRNN_REAL_BITS == 32
#define FUSED_CALL(name, type, a, b, c) (vf)name##_ps((type)(a), (type)(b), (type)(c))
#define FUSED_ARM(name, a, b, c) \
    (vf)name##_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b))
#else
#define FUSED_CALL(name, type, a, b, c) (vf)name##_pd((type##d)(a), (type##d)(b), (type##d)(c))
#define FUSED_ARM(name, a, b, c) \
    (vf)name##_f64((float64x2_t)(c), (float64x2_t)(a), (float64x2_t)(b))
#endif
#if defined(FUSED_X86)
INLINE vf vfma(vf a, vf b, vf c) { return FUSED_X86(fmadd, a, b, c); }
INLINE vf vfnma(vf a, vf b, vf c) { return FUSED_X86(fnmadd, a, b, c); }
#elif FASTRNN_FUSED && defined(__aarch64__) && defined(__GNUC__)
INLINE vf vfma(vf a, vf b, vf c) { return FUSED_ARM(vfmaq, a, b, c); }
INLINE vf vfnma(vf a, vf b, vf c) { return FUSED_ARM(vfmsq, a, b, c); }
#else
INLINE vf vfma(vf a, vf b, vf c) { return a * b + c; }
INLINE vf vfnma(vf a, vf b, vf c) { return c - a * b; }
#endif

/* Only the first n lanes of a vector: the others are read as 0 and not written. vfirst sets the others
 * to 0. */
#if VECTOR_BYTES == 64
#if FASTRNN_REAL_BITS == 32
#define MASKED(name) _mm512_##name##_ps
#else
#define MASKED(name) _mm512_##name##_pd
#endif
#define FIRST_LANES(n) ((1u << (n)) - 1)
INLINE vf vload_first(const real *p, ptrdiff_t n) {
    return n >= VL ? vload(p) : (vf)MASKED(maskz_loadu)(FIRST_LANES(n), p);
}
INLINE void vstore_first(real *p, vf v, ptrdiff_t n) {
    if (n >= VL) vstore(p, v);
    else MASKED(mask_storeu)(p, FIRST_LANES(n), v);
}
INLINE vf vfirst(vf v, ptrdiff_t n) {
    return n >= VL ? v : (vf)MASKED(maskz_mov)(FIRST_LANES(n), v);
}
#else
INLINE vf vload_first(const real *p, ptrdiff_t n) {
    if (n >= VL) return vload(p);
    real part[VL] = {0};
    for (ptrdiff_t i = 0; i < n; i++) part[i] = p[i];
    return vload(part);
}
INLINE void vstore_first(real *p, vf v, ptrdiff_t n) {
    if (n >= VL) { vstore(p, v); return; }
    real part[VL];
    vstore(part, v);
    for (ptrdiff_t i = 0; i < n; i++) p[i] = part[i];
}
INLINE vf vfirst(vf v, ptrdiff_t n) {
    static const whole lane[] = {0, 1, 2, 3, 4, 5, 6, 7};
    vi lanes;
    memcpy(&lanes, lane, sizeof lanes);
    return n >= VL ? v : as_real(as_whole(v) & (lanes < (whole)n));
}
#endif

/* Copy n numbers: most rows are too short for a call of memcpy to pay. */
INLINE void vcopy(real *to, const real *from, ptrdiff_t n) {
    for (; n > 0; n -= VL, to += VL, from += VL) vstore_first(to, vload_first(from, n), n);
}

/* a where the mask is set, b elsewhere. */
INLINE vf choose(vi mask, vf a, vf b) {
    return as_real((mask & as_whole(a)) | (~mask & as_whole(b)));
}

/* `total` and the lanes of a vector, added first to last. */
INLINE real vsum(real total, vf v) {
    real part[VL];
    vstore(part, v);
    for (int i = 0; i < VL; i++) total += part[i];
    return total;
}

/* to[c, r] = from[r, c] for a block of at most VL by VL; `rows` and `columns` are those of `from`.
 *
 * A full block is transposed in registers: stage s swaps squares of s by s. FIRST and SECOND are the
 * shuffle indices of its two results; indices from VL on are into the second vector. (s % VL keeps them
 * valid in stages that are compiled but never run.) */
#if (defined(__clang__) || __GNUC__ >= 12) && VECTOR_BYTES >= 16
#define HAS_SHUFFLE
#define FIRST(j, s) ((j) & (s) ? VL + (j) - (s) : (j))
#define SECOND(j, s) ((j) & (s) ? VL + (j) : (j) + (s))
#define INDICES_2(which, s, j) which(j, s), which((j) + 1, s)
#define INDICES_4(which, s, j) INDICES_2(which, s, j), INDICES_2(which, s, (j) + 2)
#define INDICES_8(which, s, j) INDICES_4(which, s, j), INDICES_4(which, s, (j) + 4)
#if VECTOR_BYTES * 8 == 2 * FASTRNN_REAL_BITS
#define INDICES(which, s) INDICES_2(which, s, 0)
#elif VECTOR_BYTES * 8 == 4 * FASTRNN_REAL_BITS
#define INDICES(which, s) INDICES_4(which, s, 0)
#elif VECTOR_BYTES * 8 == 8 * FASTRNN_REAL_BITS
#define INDICES(which, s) INDICES_8(which, s, 0)
#else
#define INDICES(which, s) INDICES_8(which, s, 0), INDICES_8(which, s, 8)
#endif
#define SWAP(s, r) \
    if ((r) + (s) < VL && !((r) & (s))) { \
        vf a = square[r], b = square[(r) + (s)]; \
        square[r] = __builtin_shufflevector(a, b, INDICES(FIRST, (s) % VL)); \
        square[(r) + (s)] = __builtin_shufflevector(a, b, INDICES(SECOND, (s) % VL)); \
    }
#define SWAP_4(s, r) SWAP(s, r) SWAP(s, (r) + 1) SWAP(s, (r) + 2) SWAP(s, (r) + 3)
#define STAGE(s) if (s < VL) { SWAP_4(s, 0) SWAP_4(s, 4) SWAP_4(s, 8) SWAP_4(s, 12) }
#endif
NOINLINE void transpose_square(
    const real *from, ptrdiff_t from_row, ptrdiff_t rows, ptrdiff_t columns, real *to,
    ptrdiff_t to_row
) {
#ifdef HAS_SHUFFLE
    if (rows == VL && columns == VL) {
        vf square[16];
        for (int r = 0; r < VL; r++) square[r] = vload(from + r * from_row);
        STAGE(1) STAGE(2) STAGE(4) STAGE(8)
        for (int r = 0; r < VL; r++) vstore(to + r * to_row, square[r]);
        return;
    }
#endif
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t c = 0; c < columns; c++) to[c * to_row + r] = from[r * from_row + c];
}

/* x clipped from below, or from above, at `limit`; NaN stays NaN: the x86 instructions return their
 * second operand where either is NaN. */
#if VECTOR_BYTES == 64
#define X86_BOUND(which, x, limit) REGISTER_CALL(_mm512_##which, __m512, x, limit)
#elif VECTOR_BYTES == 32
#define X86_BOUND(which, x, limit) REGISTER_CALL(_mm256_##which, __m256, x, limit)
#elif VECTOR_BYTES == 16 && defined(__SSE2__)
#define X86_BOUND(which, x, limit) REGISTER_CALL(_mm_##which, __m128, x, limit)
#endif
#if FASTRNN_REAL_BITS == 32
#define REGISTER_CALL(name, type, x, limit) (vf)name##_ps((type)vset(limit), (type)(x))
#else
#define REGISTER_CALL(name, type, x, limit) (vf)name##_pd((type##d)vset(limit), (type##d)(x))
#endif
#ifdef X86_BOUND
INLINE vf at_least(vf x, real limit) { return X86_BOUND(max, x, limit); }
INLINE vf at_most(vf x, real limit) { return X86_BOUND(min, x, limit); }
#else
INLINE vf at_least(vf x, real limit) { return choose(less(x, vset(limit)), vset(limit), x); }
INLINE vf at_most(vf x, real limit) { return choose(less(vset(limit), x), vset(limit), x); }
#endif

/* IEEE 754 (2019), table 3.5: mantissa and exponent bias. ROUND is 1.5 * 2^mantissa: adding it rounds
 * to the nearest integer and leaves it in the low bits. LN2_HI has few enough bits that n * LN2_HI is
 * exact for every n that occurs here; LN2_HI + LN2_LO is ln 2 to twice the precision.
 * CERTAIN: 1 + exp(-CERTAIN) rounds to 1. OVERFLOW: the least n with 2^n infinite. */
#if FASTRNN_REAL_BITS == 32
#define MANTISSA 23
#define BIAS 127
#define ROUND ((real)12582912.0)
#define LN2_HI ((real)0.693359375)
#define LN2_LO ((real)-2.12194440054690583e-4)
#define CERTAIN ((real)20)
#define OVERFLOW ((real)89)
/* Powers of 2, by which gradients, and numbers that are squared, are multiplied where sums overflow. */
#define LARGE_GRADIENT ((real)0x1p69)
#define GRADIENT_SCALE ((real)0x1p-60)
#define SQUARE_SCALE ((real)0x1p-100)
#define REAL_MAX ((real)0x1.fffffep127)
#else
#define MANTISSA 52
#define BIAS 1023
#define ROUND 6755399441055744.0
#define LN2_HI 0.693145751953125
#define LN2_LO 1.42860682030941723212e-6
#define CERTAIN 40.0
#define OVERFLOW 710.0
#define LARGE_GRADIENT 0x1p530
#define GRADIENT_SCALE 0x1p-500
#define SQUARE_SCALE 0x1p-600
#define REAL_MAX 0x1.fffffffffffffp1023
#endif
#define LOG2_E ((real)1.44269504088896340736)

/* 2^n, from ROUND + n: exact for normal results, and infinite for the next n. In unsigned numbers, as a
 * NaN may overflow. */
INLINE vf power_of_2(vf shifted) {
    vu n = (vu)as_whole(shifted);
    return as_real((vi)((n << MANTISSA) + ((unsigned_whole)BIAS << MANTISSA)));
}

INLINE vf absolute(vf x) { return as_real(as_whole(x) & ~as_whole(vset((real)-0.0))); }

#if FASTRNN_INT8
/* x (p0 + p1 x^2 + p2 x^4) / (q0 + q1 x^2 + q2 x^4 + x^6), x clipped to +-farthest. */
INLINE vf odd_ratio(vf x, real farthest, real p0, real p1, real p2, real q0, real q1, real q2) {
    x = at_most(at_least(x, -farthest), farthest);
    vf square = x * x;
    return x * (p0 + square * (p1 + square * p2)) / (q0 + square * (q1 + square * (q2 + square)));
}

/* As operands have 8 bits, absolute errors of 1.2e-5 and 6e-6 will do. The ratio is that of the least
 * error of tanh (minimax, by linear programs) that stays below 1: a saturated gate must not let a state
 * grow. It is clipped where it is largest, 3e-7 below 1. */
INLINE vf vtanh(vf x) {
    return odd_ratio(
        x, (real)6.139402, (real)19480.05, (real)2210.1877, (real)27.915707, (real)19480.896,
        (real)8701.12, (real)333.3164
    );
}
/* (1 + tanh(x / 2)) / 2 */
INLINE vf vsigmoid(vf x) {
    return (real)0.5 + odd_ratio(
        x, (real)12.278804, (real)311680.8, (real)8840.751, (real)27.915707, (real)1246777.4,
        (real)139217.92, (real)1333.2656
    );
}

/* A state without numbers so small that later ones would be subnormal. */
INLINE vf vsettled(vf state) {
    return choose(less(absolute(state), vset((real)8.673617379884035e-19)), vset(0), state); /* 2^-60 */
}
#else
INLINE vf vsettled(vf state) { return state; }

/* exp(r) - 1 for r = x - n ln 2, and 2^n, for n = round(x / ln 2). As |r| <= ln(2) / 2, the
 * truncation error of the Taylor series is below 1/5 ulp; for float32, (exp(r) - 1 - r) / r^2 is the
 * minimax polynomial of degree 4 (Remez 1934), error below 1/10 ulp, evaluated in pairs (Estrin 1960)
 * for shorter dependency chains. */
INLINE vf exp_reduced(vf x, vf *power) {
    vf shifted = vfma(x, vset(LOG2_E), vset(ROUND));
    vf n = shifted - ROUND;
    *power = power_of_2(shifted);
    vf r = vfnma(n, vset(LN2_LO), vfnma(n, vset(LN2_HI), x));
    vf r2 = r * r;
#if FASTRNN_REAL_BITS == 32
    vf p = vfma(r, vset((real)8.3687454e-3), vset((real)4.1668389e-2));
    p = vfma(r2, vset((real)1.3814541e-3), p);
    p = vfma(r2, p, vfma(r, vset((real)1.6666521e-1), vset((real)4.9999994e-1)));
#else
    vf p = vfma(r, vset((real)(1. / 6227020800)), vset((real)(1. / 479001600)));
    p = vfma(p, r, vset((real)(1. / 39916800)));
    p = vfma(p, r, vset((real)(1. / 3628800)));
    p = vfma(p, r, vset((real)(1. / 362880)));
    p = vfma(p, r, vset((real)(1. / 40320)));
    p = vfma(p, r, vset((real)(1. / 5040)));
    p = vfma(p, r, vset((real)(1. / 720)));
    p = vfma(p, r, vset((real)(1. / 120)));
    p = vfma(p, r, vset((real)(1. / 24)));
    p = vfma(p, r, vset((real)(1. / 6)));
    p = vfma(p, r, vset((real)(1. / 2)));
#endif
    return vfma(r2, p, r);
}

/* 1 / (1 + exp(-x)): where exp overflows, 0. */
INLINE vf vsigmoid(vf x) {
    vf power, p = exp_reduced(at_most(at_least(-x, -CERTAIN), OVERFLOW), &power);
    return (real)1 / vfma(power, p + (real)1, vset(1));
}

/* tanh |x| = -t / (2 + t) with t = exp(-2 |x|) - 1, which keeps the digits of a small x. */
INLINE vf vtanh(vf x) {
    vf power, p = exp_reduced(at_least(absolute(x) * (real)-2, -CERTAIN), &power);
    vf t = vfma(power, p, power - (real)1);
    vf result = -t / (t + (real)2);
    return as_real(as_whole(result) | (as_whole(x) & as_whole(vset((real)-0.0))));
}

#endif

/* max(x, 0); NaN stays NaN. */
INLINE vf vrelu(vf x) { return choose(less(x, vset(0)), vset(0), x); }

/* g, or 0 where r, a result of vrelu, is 0; as in torch. */
INLINE vf vrelu_grad(vf r, vf g) { return choose(equal(r, vset(0)), vset(0), g); }

/* Subnormals are slow on many processors: a decaying state would slow down all later steps. Kernels
 * flush them to 0; those of quantized weights, which avoid them, do not, as NumPy does not. */
#if defined(__SSE2__)
typedef unsigned int float_mode;
INLINE float_mode flush_subnormals(void) {
    float_mode before = _mm_getcsr();
    /* FTZ | DAZ: Intel SDM vol. 1, 10.2.3 */
    _mm_setcsr(FASTRNN_INT8 ? before & ~0x8040u : before | 0x8040);
    return before;
}
INLINE void restore_mode(float_mode before) { _mm_setcsr(before); }
#elif defined(__aarch64__) && defined(__GNUC__)
typedef uint64_t float_mode;
INLINE float_mode flush_subnormals(void) {
    float_mode before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    float_mode flush = 1u << 24; /* FZ: Arm ARM, FPCR */
    __asm__ volatile("msr fpcr, %0" : : "r"(FASTRNN_INT8 ? before & ~flush : before | flush));
    return before;
}
INLINE void restore_mode(float_mode before) { __asm__ volatile("msr fpcr, %0" : : "r"(before)); }
#else
typedef int float_mode;
INLINE float_mode flush_subnormals(void) { return 0; }
INLINE void restore_mode(float_mode before) { (void)before; }
#endif

#endif
