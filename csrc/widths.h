/* Inner loops written once, compiled for several instruction sets, the widest that the processor has
   taken at import. Such loops stand in C so that `restrict`, the width of the arithmetic and the
   instruction set are spelt out.

   A kernel writes a macro LOOPS(suffix, attribute) whose functions end in the suffix, has it expanded by
   CELLSEG_EVERY_WIDTH, and chooses with CELLSEG_PICK(level, name). */

#ifndef CELLSEG_WIDTHS_H
#define CELLSEG_WIDTHS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__) && !defined(__clang__)
#define CELLSEG_PLAIN __attribute__((optimize("no-trapping-math")))
#define CELLSEG_TARGET(set) __attribute__((target(set), optimize("no-trapping-math")))
#else
#define CELLSEG_PLAIN
#define CELLSEG_TARGET(set) __attribute__((target(set)))
#endif

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define CELLSEG_X86 1
#include <immintrin.h>
#define CELLSEG_EVERY_WIDTH(LOOPS)                                                                    \
    LOOPS(plain, CELLSEG_PLAIN)                                                                       \
    LOOPS(avx2, CELLSEG_TARGET("avx2"))                                                               \
    LOOPS(avx512, CELLSEG_TARGET("avx512f,avx512bw,avx512vl,prefer-vector-width=512"))
/* 0 baseline, 1 AVX2, 2 AVX-512, 3 with VBMI. */
static inline int cellseg_widest(void) {
    if (__builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vl")) return 3;
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) return 2;
    return __builtin_cpu_supports("avx2") ? 1 : 0;
}
#define CELLSEG_PICK(level, name) (level >= 2 ? name##_avx512 : level == 1 ? name##_avx2 : name##_plain)
#else
#define CELLSEG_EVERY_WIDTH(LOOPS) LOOPS(plain, CELLSEG_PLAIN)
static inline int cellseg_widest(void) { return 0; }
#define CELLSEG_PICK(level, name) name##_plain
#endif

#endif
