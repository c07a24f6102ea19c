/* Memory allocation that fails when told to: for out_of_memory.py, by LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static long first = -1, last = -1, calls; /* which calls fail; none if `first` is negative */
static size_t least;                      /* only those of this many bytes count */

/* Let the calls from `from` to before `to` fail, of those for at least `size` bytes. */
void fail_calls(long from, long to, size_t size) { calls = 0, least = size, last = to, first = from; }

/* Stop failing; return the number of calls since `fail_calls`. */
long stop_failing(void) {
    first = -1;
    return calls;
}

static int fails(size_t size) {
    if (first < 0 || size < least) return 0;
    long call = __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
    if (call < first || call >= last) return 0;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size) { return fails(size) ? NULL : __libc_malloc(size); }
void *calloc(size_t n, size_t size) { return fails(n * size) ? NULL : __libc_calloc(n, size); }
void *realloc(void *old, size_t size) { return fails(size) ? NULL : __libc_realloc(old, size); }
void *aligned_alloc(size_t alignment, size_t size) {
    return fails(size) ? NULL : __libc_memalign(alignment, size);
}
int posix_memalign(void **to, size_t alignment, size_t size) {
    if (fails(size)) return ENOMEM;
    *to = __libc_memalign(alignment, size);
    return *to ? 0 : ENOMEM;
}
