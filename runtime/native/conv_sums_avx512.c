/* conv_sums_avx512.c - shared partial sums with 32 lanes (AVX-512 F, BW, VL): 1-bit weights, 1x1 and 3x3. */
#if defined(__x86_64__)
#include "level_avx512.h"

#define SUMS_LANES 32u
#define SUMS_GROUP 4u
#define SUMS_ELEMENT 2u
#define SUMS_TILE 4
#define SUMS_LEAST_LANES 4u
#define SUMS_MAX_VECTORS 1
#define SUMS_TABLE 49152u /* bytes of tables that the first-level cache is asked to hold */

#include "conv_sums_vectors_avx512.h"
#include "conv_sums.h"

/* vpdpbusd wins at 1x1, where tables serve one tap only; with stride 2 its stage costs more. */
static int accepts(const coc_conv *layer) {
    return sums_accepts(layer) && sums_fills_vectors(layer) &&
           !(layer->kernel_width == 1 && layer->stride == 1);
}

SUMS_KERNEL(conv_w1_sums_avx512, COC_AVX512, accepts)

#include "level_end.h"
#endif
