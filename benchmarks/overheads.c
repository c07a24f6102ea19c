/* What a second thread costs: the pool of all kernels, with work that is nothing but meetings. */

#define FASTRNN_POOL
#include "../src_pyx/lib/pool.h"

typedef struct {
    meeting others;
    int times;
} meetings;

static void meet_often(int index, int count, void *what)
{
    meetings *m = what;
    (void)index;
    for (int i = 0; i < m->times; i++) meet(&m->others, count);
}

void begin(void) { pool_init(); }

/* Nanoseconds of a call of two threads that meet so many times. */
double call(int times)
{
    meetings m = {{0, 0, 0}, times};
    long long start = clock_now();
    pool_run(2, meet_often, &m, 1);
    return (double)(clock_now() - start);
}
