/* Gates of cells with other activations than their own. */
#ifndef FASTRNN_GATING_H
#define FASTRNN_GATING_H

#include "functions.h"

#define MAX_ACTIVATIONS 3

/* A function of functions.h, of what is clipped to +-clip first, and its parameters. */
typedef struct {
    int which;
    real a, b, clip;
} activation;

typedef struct {
    int given;                      /* whether all this is in place of a cell's own way */
    activation of[MAX_ACTIVATIONS]; /* of gates, of a candidate, of a cell state */
    int coupled;                    /* whether the forget gate is 1 - i */
} gating;

/* What calls a cold function is compiled to be small, not fast: other activations are rare. */
#if defined(__GNUC__) || defined(__clang__)
#define COLD NOINLINE __attribute__((cold))
COLD void be_small(void) { __asm__ volatile(""); }
#else
#define COLD NOINLINE
INLINE void be_small(void) {}
#endif

INLINE vf clipped(const activation *f, vf z) { return at_most(at_least(z, -f->clip), f->clip); }

/* An activation of z. */
COLD vf activated(const activation *f, vf z) {
    return function_of(f->which, clipped(f, z), f->a, f->b);
}

/* The gradient of z, from that of its activation; where z is clipped, as torch.clamp. */
COLD vf activated_back(const activation *f, vf z, vf d) {
    d = gradient_of(f->which, clipped(f, z), d, f->a, f->b);
    return choose(less(vset(f->clip), absolute(z)), vset(0), d);
}

#endif
