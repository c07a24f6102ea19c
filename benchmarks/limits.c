/* The peak speed of one core: multiply-adds per second, and bytes loaded per second.

   Vectors of WIDTH bytes of REAL. Twelve independent chains: two units with a latency of five cycles need ten. */

#include <stddef.h>

typedef REAL vector __attribute__((vector_size(WIDTH)));
typedef long long words __attribute__((vector_size(WIDTH)));

/* 12 chains a = a * x + y, `times` times; returns a value, so that they are not optimised away. The chain goes
   through the factor: if it went through the addend, GCC would split multiply-adds for some CPUs (avoid_fma_chains). */
double multiply_adds(size_t times, double factor, double addend)
{
    vector x = (vector){0} + (REAL)factor, y = (vector){0} + (REAL)addend;
    vector a = y, b = y + 1, c = y + 2, d = y + 3, e = y + 4, f = y + 5;
    vector g = y + 6, h = y + 7, i = y + 8, j = y + 9, k = y + 10, l = y + 11;
    while (times--) {
        a = a * x + y; b = b * x + y; c = c * x + y; d = d * x + y; e = e * x + y; f = f * x + y;
        g = g * x + y; h = h * x + y; i = i * x + y; j = j * x + y; k = k * x + y; l = l * x + y;
    }
    vector sum = a + b + c + d + e + f + g + h + i + j + k + l;
    return sum[0];
}

/* Reads a buffer of `bytes` bytes, a multiple of 8 * WIDTH and aligned to WIDTH, `times` times. */
long long loads(const void *buffer, size_t bytes, size_t times)
{
    words s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
    while (times--) {
        const words *p = buffer, *end = p + bytes / WIDTH;
        for (; p < end; p += 8) {
            s0 ^= p[0]; s1 ^= p[1]; s2 ^= p[2]; s3 ^= p[3];
            s0 ^= p[4]; s1 ^= p[5]; s2 ^= p[6]; s3 ^= p[7];
        }
        __asm__ volatile("" ::: "memory");
    }
    s0 ^= s1 ^ s2 ^ s3;
    return s0[0];
}
