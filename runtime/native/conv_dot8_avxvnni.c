/* conv_dot8_avxvnni.c - dot products of four channels in 8 bits (AVX-VNNI, vpdpbusd): exact, since it adds the four
 * products in 32 bits without saturation. Weights must fit in int8: all but 8-bit odd ones.
 *
 * With COC_EMULATE_AVX_VNNI the instruction is replaced by its definition, for tests on CPUs that lack it. */
#include "kernels.h"

#if defined(COC_AVX_VNNI)
#include "level_avxvnni.h"

#define DOT_VECTORS 3u /* twelve sums hide the five cycles of vpdpbusd, two of which can begin in each */
#include "conv_dot_vectors_avx2.h"

#define DOT_K 4u
#define DOT_RAW 1

#define dot_element(w) dot_element_bytes(w)
#define dot_pack8(rows, zero, target) dot_pack_bytes(rows, target)

#if defined(COC_EMULATE_AVX_VNNI)
/* sum + the four products of unsigned bytes of x with signed bytes of w, per 32 bits; none of these steps saturates. */
COC_INLINE __m256i dot_definition(__m256i sum, __m256i x, __m256i w) {
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(x, _mm256_set1_epi16(255)),
                                           _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8));
    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(x, 8), _mm256_srai_epi16(w, 8));
    return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}
#define dot_multiply_add(acc, x, weight) (acc) = dot_definition(acc, x, weight)
#else
#define dot_multiply_add(acc, x, weight) (acc) = _mm256_dpbusd_avx_epi32(acc, x, weight)
#endif

#include "conv_dot_products.h"

COC_INLINE void dot_accumulate(int N, const dot_walk *walk, dot_vec acc[DOT_VECTORS][4]) {
    dot_products(N, walk, 0, acc);
}

#include "conv_dot.h"

extern const coc_conv_kernel coc_conv_w1_sums_avx2;

/* 1-bit weights are left to the shared partial sums of AVX2 where these take the layer. */
static int accepts(const coc_conv *layer) {
    if (layer->weight_bits == 1 && coc_conv_w1_sums_avx2.accepts(layer))
        return 0;
    return dot_accepts_shape(layer) && (layer->weight_bits < 8 || layer->encoding == COC_SYMMETRIC);
}

DOT_KERNEL(conv_dot8_avxvnni, COC_AVXVNNI, accepts)

#include "level_end.h"
#endif
