/* Memory of NumPy's arrays (NEP 49) for tests: see guards.py. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Where arrays lie: END, their last byte before an unreadable page; START, their first byte after one;
 * else from malloc, without NumPy's cache of small arrays: for AddressSanitizer. All begin at a
 * multiple of 4, as tests of misaligned arrays expect, so that END is exact to 3 bytes. */
enum { MALLOC, START, END };
static int placement;

/* The mappings, in a hash table with linear probing. Beyond COUNT / 4 of them, and wherever the
 * kernel has no more, arrays come from malloc. */
#define COUNT (1 << 16)
typedef struct { char *data, *memory; size_t size, all; } Mapping;
static Mapping mappings[COUNT];
static size_t used;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static size_t slot_of(const char *data) { return ((uintptr_t)data >> 3) * 2654435761u % COUNT; }

static Mapping *find(const char *data) {
    for (size_t i = slot_of(data); mappings[i].data; i = (i + 1) % COUNT)
        if (mappings[i].data == data) return &mappings[i];
    return NULL;
}

static void insert(Mapping m) {
    size_t i = slot_of(m.data);
    while (mappings[i].data) i = (i + 1) % COUNT;
    mappings[i] = m;
}

static void take_out(Mapping *m) {
    size_t i = (size_t)(m - mappings);
    m->data = NULL;
    for (i = (i + 1) % COUNT; mappings[i].data; i = (i + 1) % COUNT) {
        Mapping moved = mappings[i];
        mappings[i].data = NULL;
        insert(moved);
    }
}

static char *mapped(size_t size) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (size + page - 1) / page * page;
    size_t all = pages + 2 * page;
    char *memory, *data = NULL;
    /* Terabytes can be mapped, but not filled: malloc refuses them. */
    if (size > UINT32_MAX) return NULL;
    memory = mmap(NULL, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return NULL;
    if (mprotect(memory + page, pages, PROT_READ | PROT_WRITE) == 0) {
        pthread_mutex_lock(&lock);
        if (used < COUNT / 4) {
            data = memory + page + (placement == END ? pages - (size + 3) / 4 * 4 : 0);
            insert((Mapping){data, memory, size, all});
            used++;
        }
        pthread_mutex_unlock(&lock);
    }
    if (data == NULL) munmap(memory, all);
    return data;
}

static void *take(void *context, size_t size) {
    char *data = placement == MALLOC ? NULL : mapped(size ? size : 1);
    (void)context;
    /* Not zeros, which would hide reads of memory that nobody has written. */
    return data ? memset(data, 0xA5, size) : malloc(size);
}

static void *take_zeros(void *context, size_t count, size_t each) {
    size_t size;
    char *data;
    (void)context;
    if (__builtin_mul_overflow(count, each, &size)) return NULL;
    data = placement == MALLOC ? NULL : mapped(size ? size : 1);
    return data ? data : calloc(count, each);
}

static void release(void *context, void *data, size_t size) {
    Mapping *m, found = {0};
    (void)context, (void)size;
    if (data == NULL) return;
    pthread_mutex_lock(&lock);
    m = find(data);
    if (m) found = *m, take_out(m), used--;
    pthread_mutex_unlock(&lock);
    if (found.data) munmap(found.memory, found.all);
    else free(data);
}

static void *resize(void *context, void *data, size_t size) {
    Mapping *m;
    size_t old = 0;
    char *fresh;
    if (data == NULL) return take(context, size);
    pthread_mutex_lock(&lock);
    m = find(data);
    if (m) old = m->size;
    pthread_mutex_unlock(&lock);
    if (m == NULL) return realloc(data, size);
    fresh = take(context, size);
    if (fresh == NULL) return NULL;
    memcpy(fresh, data, old < size ? old : size);
    release(context, data, old);
    return fresh;
}

/* PyDataMem_Handler of numpy/ndarraytypes.h. */
static struct {
    char name[127];
    uint8_t version;
    struct {
        void *context;
        void *(*malloc)(void *, size_t);
        void *(*calloc)(void *, size_t, size_t);
        void *(*realloc)(void *, void *, size_t);
        void (*free)(void *, void *, size_t);
    } allocator;
} handler = {"guards", 1, {NULL, take, take_zeros, resize, release}};

/* Of the capsule that NumPy expects. */
const char guards_name[] = "mem_handler";

void *guards_handler(int where) {
    placement = where;
    return &handler;
}
