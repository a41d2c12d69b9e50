/* The inner loops for each kind of vectors, and which of them this processor has. */
#include "sparse.h"

#include <string.h>

#define JOIN(a, b) a##b

#define VECTOR 4
#define EVENS 0, 2, 5, 7
#define TITLE "baseline"
#define NAME(x) JOIN(x, _baseline)
#define TARGET
#include "simd.h"
#undef VECTOR
#undef EVENS
#undef TITLE
#undef NAME
#undef TARGET

#if defined(__x86_64__)
#define VECTOR 8
#define EVENS 0, 2, 4, 6, 9, 11, 13, 15
#define TITLE "avx2"
#define NAME(x) JOIN(x, _avx2)
#define TARGET __attribute__((target("avx2,fma")))
#include "simd.h"
#undef VECTOR
#undef EVENS
#undef TITLE
#undef NAME
#undef TARGET

#define VECTOR 16
#define EVENS 0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31
#define TITLE "avx512"
#define NAME(x) JOIN(x, _avx512)
#define TARGET __attribute__((target("avx512f")))
#include "simd.h"

static void cpuid(uint32_t leaf, uint32_t out[4]) {
    __asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(0));
}

/* Read by hand: what compilers offer for it is not the same everywhere (zig cc answers that there is nothing). */
static int processor_has(int wide) {
    uint32_t r[4], low, high;
    cpuid(0, r);
    if (r[0] < 7) return 0;
    cpuid(1, r);
    if (!(r[2] >> 27 & 1) || !(r[2] >> 12 & 1)) return 0; /* registers saved by the system; fused multiply-add */
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    uint32_t saved = wide ? 0xe6 : 6;
    cpuid(7, r);
    return (low & saved) == saved && (r[1] >> 5 & 1) && (!wide || (r[1] >> 16 & 1));
}
#endif

const Simd *choose_simd(const char *asked) {
    const Simd *all[3] = {NULL, NULL, &simd_baseline};
#if defined(__x86_64__)
    if (processor_has(1)) all[0] = &simd_avx512;
    if (processor_has(0)) all[1] = &simd_avx2;
#endif
    for (int i = 0; i < 3; i++)
        if (all[i] && (!asked || !*asked || !strcmp(asked, all[i]->name))) return all[i];
    return NULL;
}
