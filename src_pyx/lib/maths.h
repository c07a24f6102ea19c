/* Vector functions that cells do not use. */
#ifndef FASTRNN_MATHS_H
#define FASTRNN_MATHS_H

#include <float.h>
#include <math.h>

#include "vec.h"

#if FASTRNN_REAL_BITS == 32
#define REAL_SQRT sqrtf
#define ATANH_TERMS 7
#define SMALLEST_EXP ((real)-87) /* soon below, e^x is subnormal, flushed to 0 */
#else
#define REAL_SQRT sqrt
#define ATANH_TERMS 16
#define SMALLEST_EXP ((real)-708)
#endif

#if defined(__GNUC__) || defined(__clang__)
INLINE vf vsqrt(vf v) {
    for (int i = 0; i < VL; i++) v[i] = REAL_SQRT(v[i]); /* compiles to one instruction */
    return v;
}
#else
INLINE vf vsqrt(vf v) { return REAL_SQRT(v); }
#endif

/* exp(x) and exp(x) - 1, which keeps the digits of a small x, for x <= 0. */
#if FASTRNN_INT8
/* 2^t, t clipped to +-FARTHEST. For |f| <= 1/2, 2^f is the minimax polynomial of degree 5 that is 1 at 0
 * (Lawson 1961), error below 1e-7. */
#define FARTHEST ((real)126)
INLINE vf exp2_clipped(vf t) {
    t = at_most(at_least(t, -FARTHEST), FARTHEST);
    vf shifted = t + ROUND, f = t - (shifted - ROUND), square = f * f;
    vf power = power_of_2(shifted);
    vf high = ((real)0.240222424 + (real)0.0555073358 * f)
        + square * ((real)0.00967151299 + (real)0.00132647273 * f);
    return power * (((real)1 + (real)0.693147004 * f) + square * high);
}

INLINE vf vexp(vf x) {
    return choose(less(x, vset(SMALLEST_EXP)), vset(0), exp2_clipped(x * LOG2_E));
}
INLINE vf vexpm1(vf x) { return exp2_clipped(x * LOG2_E) - (real)1; }
#else
INLINE vf vexp(vf x) {
    vf power, p = exp_reduced(at_least(x, SMALLEST_EXP), &power);
    /* Not power * p + power, whose product is subnormal long before the sum. */
    return choose(less(x, vset(SMALLEST_EXP)), vset(0), power * (p + (real)1));
}
INLINE vf vexpm1(vf x) {
    vf power, p = exp_reduced(at_least(x, -CERTAIN), &power);
    return vfma(power, p, power - (real)1);
}
#endif

/* log(1 + x) for 0 <= x <= 1: 2 atanh(s), s = x / (x + 2), by the series s + s^3 / 3 + s^5 / 5 ... As
 * s <= 1/3, the truncation error is below 1/5 ulp. Where s would be subnormal, 2 s is not. */
INLINE vf vlog1p(vf x) {
    vf twice = (x + x) / (x + (real)2), s = twice * (real)0.5, square = s * s;
    vf p = vset((real)(1. / (2 * ATANH_TERMS - 1)));
    for (int k = ATANH_TERMS - 2; k > 0; k--) p = vfma(p, square, vset((real)(1. / (2 * k + 1))));
    return vfma(twice, square * p, twice);
}

/* log x for x >= 1, and NaN for NaN: n ln 2 + 2 atanh(s) with x = 2^n m and s as above, from m - 1. That
 * of the C library may differ between CPUs, in the last bit. n * LN_2 is exact. */
INLINE double log_of(double x) {
    static const double LN_2 = 0x1.62e42fee00000p-1, REST = 0x1.a39ef35793c76p-33;
    int n;
    if (!(x <= DBL_MAX)) return x;
    double m = frexp(x, &n), p = 1. / 23;
    if (m < 2. / 3) { m *= 2; n -= 1; }
    double s = (m - 1) / (m + 1), square = s * s;
    for (int k = 21; k > 1; k -= 2) p = p * square + 1. / k;
    return n * LN_2 + (2 * s + (2 * s * (square * p) + n * REST));
}

/* x^n for a whole n >= 0, by repeated squaring: as above, the same on all CPUs. */
INLINE double power_of(double x, double n) {
    double result = 1;
    uint64_t left = (uint64_t)fmin(fmax(n, 0), 0x1p53);
    for (; left; left >>= 1, x *= x)
        if (left & 1) result *= x;
    return result;
}

INLINE vi at_or_below(vf a, vf b) { return less(a, b) | equal(a, b); }

/* The elementwise maximum; b where either is NaN. */
INLINE vf larger(vf a, vf b) { return choose(less(b, a), a, b); }

/* The maximum of a vector without NaN. */
INLINE real vlargest(vf v) {
    real part[VL], most;
    vstore(part, v);
    most = part[0];
    for (int i = 1; i < VL; i++) most = part[i] > most ? part[i] : most;
    return most;
}

#endif
