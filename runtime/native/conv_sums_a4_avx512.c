/* conv_sums_a4_avx512.c - shared partial sums with 64 lanes of 8 bits (AVX-512 F, BW, VL): 1-bit weights, activations
 * of at most 4 bits, 3x3 with stride 1. */
#if defined(__x86_64__)
#include "level_avx512.h"

#define SUMS_LANES 64u
#define SUMS_GROUP 4u
#define SUMS_ELEMENT 1u
#define SUMS_TILE 4
#define SUMS_LEAST_LANES 8u
#define SUMS_MAX_VECTORS 1
#define SUMS_TABLE 49152u /* bytes of tables that the first-level cache is asked to hold */

#include "conv_sums_vectors_avx512.h"
#include "conv_sums.h"

static int accepts(const coc_conv *layer) {
    return sums_accepts(layer) && sums_fills_vectors(layer);
}

SUMS_KERNEL(conv3x3s1_w1a4_sums_avx512, COC_AVX512, accepts)

#include "level_end.h"
#endif
