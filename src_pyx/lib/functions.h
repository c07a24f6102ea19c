/* Functions of each number, and their gradients. Their numbers, formulas and parameters a and b are
 * those of fastrnn/_kernels/functions.py. One call for each vector: a loop for each would be large. */
#ifndef FASTRNN_FUNCTIONS_H
#define FASTRNN_FUNCTIONS_H

#include "maths.h"

enum { AFFINE, RELU, CLIP, LEAKY_RELU, THRESHOLDED_RELU, ELU, TANH, SIGMOID, HARD_SIGMOID, SOFTPLUS,
       SOFTSIGN, SILU, GELU_TANH, SOFTMAX, LOG_SOFTMAX, LAYER_NORM, STANDARDISE, RESTORE };

#define GELU_SCALE ((real)0.7978845608028654) /* sqrt(2 / pi): Hendrycks and Gimpel 2016, section 2 */
#define GELU_CUBE ((real)0.044715)
#define GELU_CERTAIN ((real)16) /* where the tangent is 1 */

INLINE vf gelu_angle(vf x) { return vfma(x * x * vset(GELU_CUBE), x, x) * vset(GELU_SCALE); }

/* In float64: the mean may be large, beside the deviation. */
INLINE real standardised(real x, double mean, double deviation) {
    return (real)(((double)x - mean) / deviation);
}
INLINE real restored(real x, double mean, double deviation) {
    return (real)((double)x * deviation + mean);
}

NOINLINE vf function_of(int which, vf x, real a, real b) {
    switch (which) {
    case AFFINE: return vfma(vset(a), x, vset(b));
    case RELU: return vrelu(x);
    case CLIP: return at_most(at_least(x, a), b);
    case LEAKY_RELU: return choose(less(x, vset(0)), x * a, x);
    case THRESHOLDED_RELU: return choose(at_or_below(x, vset(a)), vset(0), x);
    case ELU: return choose(less(vset(0), x), x * b, vexpm1(at_most(x, 0)) * (a * b));
    case TANH: return vtanh(x * b) * a;
    case SIGMOID: return vsigmoid(x);
    case HARD_SIGMOID: return at_most(at_least(vfma(vset(a), x, vset(b)), 0), 1);
    case SOFTPLUS: return at_least(x, 0) + vlog1p(vexp(-absolute(x)));
    case SOFTSIGN: return x / (absolute(x) + (real)1);
    case SILU: return x * vsigmoid(x);
    default: return x * (real)0.5 * (vtanh(gelu_angle(x)) + (real)1);
    }
}

/* The gradient of x, from that of the function, d. */
NOINLINE vf gradient_of(int which, vf x, vf d, real a, real b) {
    vf y;
    switch (which) {
    case AFFINE: return d * a;
    case RELU: return choose(at_or_below(x, vset(0)), vset(0), d);
    case CLIP: return choose(at_or_below(x, vset(a)) | at_or_below(vset(b), x), vset(0), d);
    case LEAKY_RELU: return choose(at_or_below(x, vset(0)), d * a, d);
    case THRESHOLDED_RELU: return choose(at_or_below(x, vset(a)), vset(0), d);
    case ELU: return d * choose(less(vset(0), x), vset(b), vexp(at_most(x, 0)) * (a * b));
    case TANH: y = vtanh(x * b); return d * vfnma(y, y, vset(1)) * (a * b);
    case SIGMOID: y = vsigmoid(x); return d * y * ((real)1 - y);
    case HARD_SIGMOID:
        y = vfma(vset(a), x, vset(b));
        return choose(at_or_below(y, vset(0)) | at_or_below(vset(1), y), vset(0), d * a);
    case SOFTPLUS: return d * vsigmoid(x);
    case SOFTSIGN: y = absolute(x) + (real)1; return d / (y * y);
    case SILU: y = vsigmoid(x); return d * y * vfma(x, (real)1 - y, vset(1));
    default:
        y = vtanh(gelu_angle(x));
        x = at_most(at_least(x, -GELU_CERTAIN), GELU_CERTAIN);
        x = x * vfma(x * x, vset(3 * GELU_CUBE * GELU_SCALE), vset(GELU_SCALE));
        return d * (real)0.5 * (vfma(x, vfnma(y, y, vset(1)), y) + (real)1);
    }
}

#endif
