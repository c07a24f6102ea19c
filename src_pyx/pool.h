/* A pool of threads: started when first needed, asleep when idle, begun anew after a fork.
 *
 * Work is a function that runs once for each index from 0 to count - 1. Run together, each has a thread
 * of its own at the same time, so that they can meet; 0 is the caller's. Run apart, they are taken by
 * whoever is free, and one whose thread has not woken up by then is the caller's too. While the pool is
 * taken, others run their work alone, with a count of 1.
 */
#ifndef FASTRNN_POOL_H
#define FASTRNN_POOL_H

#include <stddef.h>

typedef void (*work_function)(int index, int count, void *what);

/* What kernels find through the capsule "fastrnn._threads.pool". */
typedef struct {
    void (*run)(int count, work_function work, void *what, int together);
    int most;             /* threads */
    ptrdiff_t least_call; /* multiply-adds of a call from which on a second thread pays, */
    ptrdiff_t least_step; /* and of one step where threads meet at each, */
    ptrdiff_t least_awake; /* and of a call so soon after another that the threads are awake */
    long long ended;      /* when the last call ended, on the clock below */
    int crowded;          /* calls for which they had better not meet at each step, */
    int penalty;          /* and for how many they did not, the last time */
} thread_pool;

/* Where the threads of one work wait for each other; `late` counts those that tried one's patience. */
typedef struct {
    int arrived, meetings, late;
} meeting;

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

/* How often to look for another thread before letting go of the CPU: 700 pauses of 25 to 65 ns, about
 * what it costs to wake a thread. */
#define PATIENCE 700
/* Nanoseconds for which a thread looks for the next work, or the caller for the end of this, before it
 * sleeps: calls in a row find it awake, though its share was the smaller one. */
#define AWAKE 100000

#define LOOK(word) __atomic_load_n(&(word), __ATOMIC_ACQUIRE)

static inline void meet(meeting *m, int count) {
    int before = LOOK(m->meetings);
    if (__atomic_add_fetch(&m->arrived, 1, __ATOMIC_ACQ_REL) == count) {
        m->arrived = 0;
        __atomic_store_n(&m->meetings, before + 1, __ATOMIC_RELEASE);
        return;
    }
    for (int looks = 0; LOOK(m->meetings) == before; looks++) {
        if (looks == PATIENCE) __atomic_add_fetch(&m->late, 1, __ATOMIC_RELAXED);
        if (looks < PATIENCE) RELAX();
        else sched_yield();
    }
}

#ifdef FASTRNN_POOL /* for the one module that has the pool */
#include <pthread.h>
#include <signal.h>

#define MAX_THREADS 64

static struct {
    pthread_mutex_t taken, lock;
    pthread_cond_t wake, done;
    int threads;                 /* beside the caller's */
    int jobs, seen[MAX_THREADS]; /* jobs so far, and before a thread's first one */
    int count, begun, unfinished; /* of the latest job */
    work_function work;
    void *what;
#ifdef __linux__
    pthread_t ids[MAX_THREADS];
    int cpus[MAX_THREADS]; /* where a thread ran last */
#endif
} pool;

/* Linux likes to wake a thread on the CPU of the one that wakes it, where it would wait for that one's
 * work to end. So a thread that ran there last is sent to the caller's other CPUs. */
static void pool_spread(int count) {
#ifdef __linux__
    int here = sched_getcpu();
    for (int index = 1; index < count; index++) {
        cpu_set_t others;
        if (pool.cpus[index] != here) continue;
        if (pthread_getaffinity_np(pthread_self(), sizeof others, &others) != 0) return;
        CPU_CLR(here, &others);
        if (CPU_COUNT(&others) > 0) pthread_setaffinity_np(pool.ids[index], sizeof others, &others);
    }
#else
    (void)count;
#endif
}

/* Wait for a while until a word has, or has not, some value. */
static void pool_look(const int *word, int value, int has) {
    long long end = clock_now() + AWAKE;
    do {
        for (int looks = 0; looks < 32; looks++) {
            if ((LOOK(*word) == value) == has) return;
            RELAX();
        }
    } while (clock_now() < end);
}

static void pool_reset(void) {
    pthread_mutex_init(&pool.taken, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pthread_cond_init(&pool.done, NULL);
    pool.threads = pool.jobs = pool.unfinished = 0;
}

static void pool_init(void) {
    pool_reset();
    pthread_atfork(NULL, NULL, pool_reset); /* a child has none of the threads */
}

/* Do what is left to begin of a job, if it is still the latest. */
static void pool_help(int job) {
    for (;;) {
        pthread_mutex_lock(&pool.lock);
        int index = pool.jobs == job && pool.begun < pool.count ? pool.begun++ : -1;
        int count = pool.count;
        work_function work = pool.work;
        void *what = pool.what;
        pthread_mutex_unlock(&pool.lock);
        if (index < 0) return;
        work(index, count, what);
        if (__atomic_sub_fetch(&pool.unfinished, 1, __ATOMIC_ACQ_REL) == 0) {
            pthread_mutex_lock(&pool.lock);
            pthread_cond_signal(&pool.done);
            pthread_mutex_unlock(&pool.lock);
        }
    }
}

static void *pool_thread(void *argument) {
    int index = (int)(size_t)argument, seen = pool.seen[index];
    for (;;) {
        pool_look(&pool.jobs, seen, 0);
        pthread_mutex_lock(&pool.lock);
        while (pool.jobs == seen) pthread_cond_wait(&pool.wake, &pool.lock);
        seen = pool.jobs;
        int wanted = index < pool.count;
#ifdef __linux__
        pool.cpus[index] = sched_getcpu();
#endif
        pthread_mutex_unlock(&pool.lock);
        if (wanted) pool_help(seen);
    }
    return NULL;
}

/* Start threads until there are `wanted`, or as many as can be had. */
static void pool_start(int wanted) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the interpreter's */
    while (pool.threads < wanted) {
        int index = pool.threads + 1;
        pthread_t thread;
        pool.seen[index] = pool.jobs;
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
    pthread_mutex_lock(&pool.lock);
    pool.work = work;
    pool.what = what;
    pool.count = pool.unfinished = count;
    pool.begun = 1;
    pool_spread(count);
    int job = pool.jobs + 1;
    __atomic_store_n(&pool.jobs, job, __ATOMIC_RELEASE);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
    work(0, count, what);
    if (!together) pool_help(job);
    if (__atomic_sub_fetch(&pool.unfinished, 1, __ATOMIC_ACQ_REL) > 0) {
        pool_look(&pool.unfinished, 0, 1);
        pthread_mutex_lock(&pool.lock);
        while (LOOK(pool.unfinished) > 0) pthread_cond_wait(&pool.done, &pool.lock);
        pthread_mutex_unlock(&pool.lock);
    }
    pthread_mutex_unlock(&pool.taken);
}
#endif
#else
static void meet(meeting *m, int count) { (void)m, (void)count; }
static long long clock_now(void) { return 0; }
#ifdef FASTRNN_POOL
static void pool_init(void) {}
static void pool_run(int count, work_function work, void *what, int together) {
    (void)count, (void)together, work(0, 1, what);
}
#endif
#endif
#endif
