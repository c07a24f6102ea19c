/* A thread pool: started when first needed, asleep when idle, reset in the child of a fork.
 *
 * Work is a function, called once for each index from 0 to count - 1. If `together`, each index runs on
 * its own thread, all at the same time, so they can wait at barriers; index 0 runs on the caller's. Else
 * any thread takes the next index, the caller's too, without waiting for threads to wake up. While the
 * pool is in use, other callers run their work alone, with a count of 1.
 */
#ifndef FASTRNN_POOL_H
#define FASTRNN_POOL_H

#include <stddef.h>

typedef void (*work_function)(int index, int count, void *what);

/* The content of the capsule "fastrnn._kernels._threads.pool". */
typedef struct {
    void (*run)(int count, work_function work, void *what, int together);
    int most;             /* threads */
    ptrdiff_t least_call; /* multiply-adds from which a second thread pays: in a call, */
    ptrdiff_t least_step; /* in a step, if threads have a barrier at each, */
    ptrdiff_t least_awake; /* and in a call so soon after another that threads are awake */
    long long ended;      /* when the last call ended, on the clock below */
    int backoff_left;     /* coming calls without barriers at each step, */
    int backoff;          /* and how many there were after the last late one */
} thread_pool;

#ifndef FASTRNN_POOL
/* The pool, in each kernel module: set at import. */
static thread_pool *pool;
static inline void use_pool(thread_pool *shared) { pool = shared; }
#endif

/* Words that other threads may write at any time, with or without the GIL. */
#if defined(__GNUC__) || defined(__clang__)
#define PEEK(word) __atomic_load_n(&(word), __ATOMIC_RELAXED)
#define POKE(word, value) __atomic_store_n(&(word), value, __ATOMIC_RELAXED)
#else
#define PEEK(word) (word)
#define POKE(word, value) ((word) = (value))
#endif

/* A lock for which no thread waits is the number of its owner's process, or 0. The GIL makes changes
 * of it atomic, if there is one. */
#ifdef _WIN32
static inline int own_process(void) { return 1; }
#else
#include <unistd.h>
static inline int own_process(void) { return (int)getpid(); }
#endif
static inline int pass_on(int *owner, int from, int to) {
#ifndef Py_GIL_DISABLED
    return *owner == from ? (*owner = to, 1) : 0;
#elif defined(_MSC_VER)
    return _InterlockedCompareExchange((volatile long *)owner, to, from) == from;
#else
    return __atomic_compare_exchange_n(owner, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
#endif
}

/* Work up to which a call holds the GIL; without one, a call is like a long one of others. */
#ifdef Py_GIL_DISABLED
#define UNLESS_FREE(work) 0
#else
#define UNLESS_FREE(work) (work)
#endif
#define HOLDS_GIL UNLESS_FREE(800000) /* multiply-adds of a scan or a step */
#define BRIEF UNLESS_FREE(32768)      /* and of other calls */

/* A barrier for the threads of one call; `late` counts waits so long that the thread yielded its CPU. */
typedef struct {
    int arrived, rounds, late;
} barrier;

#if (defined(__GNUC__) || defined(__clang__)) && !defined(_WIN32)
#include <sched.h>
#include <time.h>
/* Nanoseconds. */
static inline long long clock_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}
#if defined(__SSE2__)
#include <immintrin.h>
#define RELAX() _mm_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() ((void)0)
#endif

/* How often to poll before yielding the CPU: 700 pauses of 25 to 65 ns, about as long as waking a
 * thread takes. */
#define PATIENCE 700
/* Nanoseconds for which a thread polls for the next job, or the caller for the end of its own, before
 * it sleeps: successive calls find threads awake, even those whose share was small. */
#define AWAKE 100000

#define LOOK(word) __atomic_load_n(&(word), __ATOMIC_ACQUIRE)

static inline void barrier_wait(barrier *b, int count) {
    int before = LOOK(b->rounds);
    if (__atomic_add_fetch(&b->arrived, 1, __ATOMIC_ACQ_REL) == count) {
        b->arrived = 0;
        __atomic_store_n(&b->rounds, before + 1, __ATOMIC_RELEASE);
        return;
    }
    for (int looks = 0; LOOK(b->rounds) == before; looks++) {
        if (looks == PATIENCE) __atomic_add_fetch(&b->late, 1, __ATOMIC_RELAXED);
        if (looks < PATIENCE) RELAX();
        else sched_yield();
    }
}

#ifdef FASTRNN_POOL /* for the one module that implements the pool */
#include <pthread.h>
#include <signal.h>

#define MAX_THREADS 64
#define LINE 64 /* bytes of a cache line */

/* What threads poll without the lock is on one cache line, what they write when done on another. A
 * ticket packs the latest job's number, its count and how many of its indices are taken. A thread takes
 * an index by incrementing the last with compare-and-swap; the `work` and `what` it has read then belong
 * to that job, as a job ends only when all taken indices are done. */
static struct {
    unsigned long long ticket;
    work_function work;
    void *what;
    int asleep;                     /* threads waiting for `wake` */
    char apart[LINE];
    int unfinished;                 /* indices of the latest job */
    int waiting;                    /* whether the caller is waiting for `done` */
    char apart_too[LINE];
    pthread_mutex_t taken, lock;
    pthread_cond_t wake, done;
    int threads;                    /* without the caller's */
    unsigned long long seen[MAX_THREADS]; /* the last job posted before each thread started */
#ifdef __linux__
    pthread_t ids[MAX_THREADS];
    int cpus[MAX_THREADS];          /* where each thread ran last */
#endif
} pool;

static unsigned long long pool_ticket(unsigned long long job, int count, int begun) {
    return job << 16 | (unsigned long long)count << 8 | (unsigned long long)begun;
}
static unsigned long long job_of(unsigned long long ticket) { return ticket >> 16; }
static int count_of(unsigned long long ticket) { return ticket >> 8 & 255; }
static int begun_of(unsigned long long ticket) { return ticket & 255; }

/* Linux tends to wake a thread on the CPU of the thread that wakes it, where it would wait for that
 * one's work to end. So a thread that last ran there is moved to the caller's other CPUs. */
static void pool_spread(int count) {
#ifdef __linux__
    int here = sched_getcpu();
    for (int index = 1; index < count; index++) {
        cpu_set_t others;
        if (LOOK(pool.cpus[index]) != here) continue;
        if (pthread_getaffinity_np(pthread_self(), sizeof others, &others) != 0) return;
        CPU_CLR(here, &others);
        if (CPU_COUNT(&others) > 0) pthread_setaffinity_np(pool.ids[index], sizeof others, &others);
    }
#else
    (void)count;
#endif
}

/* Poll for AWAKE ns for a job other than `seen`, or for the end of a job. */
static int pool_another(unsigned long long seen) { return job_of(LOOK(pool.ticket)) != seen; }
static int pool_finished(unsigned long long job) { (void)job; return LOOK(pool.unfinished) == 0; }
static int pool_look(int (*found)(unsigned long long), unsigned long long job) {
    long long end = clock_now() + AWAKE;
    do {
        for (int looks = 0; looks < 32; looks++) {
            if (found(job)) return 1;
            RELAX();
        }
    } while (clock_now() < end);
    return 0;
}

static void pool_reset(void) {
    pthread_mutex_init(&pool.taken, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pthread_cond_init(&pool.done, NULL);
    pool.ticket = 0;
    pool.threads = pool.unfinished = pool.asleep = pool.waiting = 0;
}

static void pool_init(void) {
    pool_reset();
    pthread_atfork(NULL, NULL, pool_reset); /* a forked child has none of the threads */
}

/* Run the indices of a job that are not taken yet, if it is still the latest. */
static void pool_help(unsigned long long job) {
    unsigned long long ticket = LOOK(pool.ticket);
    while (job_of(ticket) == job && begun_of(ticket) < count_of(ticket)) {
        work_function work = LOOK(pool.work);
        void *what = LOOK(pool.what);
        if (!__atomic_compare_exchange_n(
                &pool.ticket, &ticket, ticket + 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            continue;
        work(begun_of(ticket), count_of(ticket), what);
        if (__atomic_sub_fetch(&pool.unfinished, 1, __ATOMIC_SEQ_CST) == 0 &&
            __atomic_load_n(&pool.waiting, __ATOMIC_SEQ_CST)) {
            pthread_mutex_lock(&pool.lock);
            pthread_cond_signal(&pool.done);
            pthread_mutex_unlock(&pool.lock);
        }
        ticket = LOOK(pool.ticket);
    }
}

static void *pool_thread(void *argument) {
    int index = (int)(size_t)argument;
    unsigned long long seen = pool.seen[index];
    for (;;) {
        if (!pool_look(pool_another, seen)) {
            /* Either the poster of a job sees this thread asleep, or this thread sees the job. */
            pthread_mutex_lock(&pool.lock);
            __atomic_add_fetch(&pool.asleep, 1, __ATOMIC_SEQ_CST);
            while (job_of(__atomic_load_n(&pool.ticket, __ATOMIC_SEQ_CST)) == seen)
                pthread_cond_wait(&pool.wake, &pool.lock);
            __atomic_sub_fetch(&pool.asleep, 1, __ATOMIC_SEQ_CST);
            pthread_mutex_unlock(&pool.lock);
        }
        unsigned long long ticket = LOOK(pool.ticket);
        seen = job_of(ticket);
        if (index < count_of(ticket)) pool_help(seen);
#ifdef __linux__
        int here = sched_getcpu();
        if (here != pool.cpus[index]) __atomic_store_n(&pool.cpus[index], here, __ATOMIC_RELAXED);
#endif
    }
    return NULL;
}

/* Start threads until there are `wanted`, or until it fails. */
static void pool_start(int wanted) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the interpreter's threads */
    while (pool.threads < wanted) {
        int index = pool.threads + 1;
        pthread_t thread;
        pool.seen[index] = job_of(LOOK(pool.ticket));
        if (pthread_create(&thread, NULL, pool_thread, (void *)(size_t)index) != 0) break;
        pthread_detach(thread);
#ifdef __linux__
        pool.ids[index] = thread;
        pool.cpus[index] = sched_getcpu();
#endif
        pool.threads = index;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void pool_run(int count, work_function work, void *what, int together) {
    if (count > MAX_THREADS) count = MAX_THREADS;
    if (count < 2 || pthread_mutex_trylock(&pool.taken) != 0) {
        work(0, 1, what);
        return;
    }
    if (pool.threads < count - 1) pool_start(count - 1);
    if (pool.threads < count - 1) count = pool.threads + 1;
    __atomic_store_n(&pool.work, work, __ATOMIC_RELAXED);
    __atomic_store_n(&pool.what, what, __ATOMIC_RELAXED);
    __atomic_store_n(&pool.unfinished, count, __ATOMIC_RELAXED);
    pool_spread(count);
    unsigned long long job = job_of(LOOK(pool.ticket)) + 1;
    __atomic_store_n(&pool.ticket, pool_ticket(job, count, 1), __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&pool.asleep, __ATOMIC_SEQ_CST) > 0) {
        pthread_mutex_lock(&pool.lock);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.lock);
    }
    work(0, count, what);
    if (!together) pool_help(job);
    if (__atomic_sub_fetch(&pool.unfinished, 1, __ATOMIC_SEQ_CST) > 0 &&
        !pool_look(pool_finished, job)) {
        pthread_mutex_lock(&pool.lock);
        __atomic_store_n(&pool.waiting, 1, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&pool.unfinished, __ATOMIC_SEQ_CST) > 0)
            pthread_cond_wait(&pool.done, &pool.lock);
        __atomic_store_n(&pool.waiting, 0, __ATOMIC_SEQ_CST);
        pthread_mutex_unlock(&pool.lock);
    }
    pthread_mutex_unlock(&pool.taken);
}
#endif
#else
static void barrier_wait(barrier *b, int count) { (void)b, (void)count; }
static long long clock_now(void) { return 0; }
#ifdef FASTRNN_POOL
static void pool_init(void) {}
static void pool_run(int count, work_function work, void *what, int together) {
    (void)count, (void)together, work(0, 1, what);
}
#endif
#endif
#endif
