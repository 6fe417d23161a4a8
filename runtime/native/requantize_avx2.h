/* requantize_avx2.h - coc_requantize for sixteen sums (AVX2; internal). */
#ifndef COC_REQUANTIZE_AVX2_H
#define COC_REQUANTIZE_AVX2_H

#include "conv_shared.h"

COC_INLINE __m256i requantize_round(__m256i sums, __m256 multiplier) {
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(sums), multiplier));
}

/* Results in 16 bits, in the order of _mm256_packs_epi32. As coc_simple_numbers has seen that products stay below 2^31,
 * saturation here, and in the packing to bytes that follows, does all the clipping but that to out_max. */
COC_INLINE __m256i requantize(__m256i low, __m256i high, float multiplier, int32_t zero) {
    const __m256 factor = _mm256_set1_ps(multiplier);
    const __m256i words = _mm256_packs_epi32(requantize_round(low, factor), requantize_round(high, factor));
    return _mm256_adds_epi16(words, _mm256_set1_epi16((int16_t)zero));
}

#endif
