/* What CPU and operating system both support: __builtin_cpu_supports checks both. */
#if (defined(__GNUC__) || defined(__clang__)) && (defined(__x86_64__) || defined(__i386__))
#define SUPPORTS(feature) (__builtin_cpu_supports(feature) != 0)
static int has_baseline(void) { return SUPPORTS("sse4.2") && SUPPORTS("popcnt"); }
static int has_avx2(void) { return has_baseline() && SUPPORTS("avx2") && SUPPORTS("fma"); }
static int has_avx512(void) {
    return has_avx2() && SUPPORTS("avx512f") && SUPPORTS("avx512bw") && SUPPORTS("avx512dq") &&
           SUPPORTS("avx512vl");
}
/* Instructions that some CPUs of a variant have: kernels are compiled with and without them. */
#if defined(__clang__) || __GNUC__ >= 10
static int has_avx512bf16(void) { return has_avx512() && SUPPORTS("avx512bf16"); }
static int has_avx512vnni(void) { return has_avx512() && SUPPORTS("avx512vnni"); }
#else
static int has_avx512bf16(void) { return 0; }
static int has_avx512vnni(void) { return 0; }
#endif
/* Clang knows this name from version 18; Apple's numbers are others, and no Mac has it. */
#if defined(__clang__) ? __clang_major__ >= 18 && !defined(__apple_build_version__) : __GNUC__ >= 12
static int has_avxvnni(void) { return has_avx2() && SUPPORTS("avxvnni"); }
#else
static int has_avxvnni(void) { return 0; }
#endif
static int has_neon(void) { return 0; }
#else
/* Elsewhere there is one variant, for the compiler's own baseline, which has NEON on every ARM64. */
static int has_baseline(void) { return 1; }
static int has_avx2(void) { return 0; }
static int has_avx512(void) { return 0; }
static int has_avx512bf16(void) { return 0; }
static int has_avx512vnni(void) { return 0; }
static int has_avxvnni(void) { return 0; }
#if defined(__aarch64__)
static int has_neon(void) { return 1; }
#else
static int has_neon(void) { return 0; }
#endif
#endif
