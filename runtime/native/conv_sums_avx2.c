/* conv_sums_avx2.c - shared partial sums with 16 lanes (AVX2): 1-bit weights, 1x1 and 3x3, stride 1 and 2. */
#if defined(__x86_64__)
#include "level_avx2.h"

#define SUMS_LANES 16u
#define SUMS_GROUP 4u
#define SUMS_ELEMENT 2u
#define SUMS_TILE 4
#define SUMS_TILE_1X1 8
#define SUMS_LEAST_LANES 4u
#define SUMS_MAX_VECTORS 2
#define SUMS_TABLE 40960u /* bytes of tables that the first-level cache is asked to hold */

#include "conv_sums_vectors_avx2.h"
#include "conv_sums.h"

SUMS_KERNEL(conv_w1_sums_avx2, COC_AVX2, sums_accepts)

#include "level_end.h"
#endif
