/* What a second thread costs: the thread pool of all kernels, with work that only waits at a barrier. */

#define FASTRNN_POOL
#include "../src_pyx/lib/pool.h"

typedef struct {
    barrier threads;
    int times;
} work;

static void wait_often(int index, int count, void *what)
{
    work *w = what;
    (void)index;
    for (int i = 0; i < w->times; i++) barrier_wait(&w->threads, count);
}

void begin(void) { pool_init(); }

/* Nanoseconds of a call of two threads that wait for each other `times` times. */
double call(int times)
{
    work w = {{0, 0, 0}, times};
    long long start = clock_now();
    pool_run(2, wait_often, &w, 1);
    return (double)(clock_now() - start);
}
