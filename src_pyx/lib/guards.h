/* Workspaces of a debug build: each between two pages that no access survives, its end at the second
 * (within the alignment of 64 bytes). AddressSanitizer knows the gaps as well. */
#ifndef FASTRNN_GUARDS_H
#define FASTRNN_GUARDS_H

#include "vec.h"

#if FASTRNN_DEBUG && !defined(_WIN32)
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, size)
#define ASAN_UNPOISON_MEMORY_REGION(at, size)
#endif
#define GUARDED 1
#define GAP 0x5A

/* The pages of a workspace that ends at `aligned`: its own, and one on each side. */
static size_t guarded_pages(size_t size, size_t page, size_t *aligned) {
    *aligned = (size + 63) / 64 * 64;
    return (*aligned + page - 1) / page * page + 2 * page;
}

static char *take_guarded(size_t size) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), aligned, all = guarded_pages(size, page, &aligned);
    char *memory = mmap(NULL, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *data;
    if (memory == MAP_FAILED) return NULL;
    if (mprotect(memory + page, all - 2 * page, PROT_READ | PROT_WRITE)) {
        munmap(memory, all);
        return NULL;
    }
    data = memory + all - page - aligned;
    memset(memory + page, GAP, (size_t)(data - memory) - page);
    memset(data + size, GAP, aligned - size);
    ASAN_POISON_MEMORY_REGION(memory + page, (size_t)(data - memory) - page);
    ASAN_POISON_MEMORY_REGION(data + size, aligned - size);
    return data;
}

/* Abort if the gaps around were written to. */
static void release_guarded(char *data, size_t size) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), aligned, all = guarded_pages(size, page, &aligned);
    char *memory = data + aligned + page - all, *at;
    ASAN_UNPOISON_MEMORY_REGION(memory + page, all - 2 * page);
    for (at = memory + page; at < data + aligned; at++) {
        if (at == data) at += size;
        if (at < data + aligned && *at != GAP) {
            fprintf(stderr, "fastrnn: a kernel wrote outside of its workspace\n");
            abort();
        }
    }
    munmap(memory, all);
}
#else
#define GUARDED 0
static inline char *take_guarded(size_t size) { (void)size; return NULL; }
static inline void release_guarded(char *data, size_t size) { (void)data; (void)size; }
#endif
#endif
