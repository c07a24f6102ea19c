/* Vector functions that only losses and optimizers use. */
#ifndef FASTRNN_MATHS_H
#define FASTRNN_MATHS_H

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

/* exp(x) for x <= 0. */
INLINE vf vexp(vf x) {
    vf power, p = exp_reduced(at_least(x, SMALLEST_EXP), &power);
    return choose(less(x, vset(SMALLEST_EXP)), vset(0), vfma(power, p, power));
}

/* log(1 + x) for 0 <= x <= 1: 2 atanh(s), s = x / (x + 2), by the series s + s^3 / 3 + s^5 / 5 ... As
 * s <= 1/3, the truncation error is below 1/5 ulp. */
INLINE vf vlog1p(vf x) {
    vf s = x / (x + (real)2), square = s * s, p = vset((real)(1. / (2 * ATANH_TERMS - 1)));
    for (int k = ATANH_TERMS - 2; k > 0; k--) p = vfma(p, square, vset((real)(1. / (2 * k + 1))));
    return vfma(s + s, square * p, s + s);
}

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
