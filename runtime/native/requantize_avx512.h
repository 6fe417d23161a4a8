/* requantize_avx512.h - coc_requantize for 32 sums (AVX-512; internal). See requantize_avx2.h. */
#ifndef COC_REQUANTIZE_AVX512_H
#define COC_REQUANTIZE_AVX512_H

#include "conv_shared.h"

COC_INLINE __m512i requantize_round(__m512i sums, __m512 multiplier) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), multiplier));
}

/* Results in 16 bits, in the order of _mm512_packs_epi32. */
COC_INLINE __m512i requantize(__m512i low, __m512i high, float multiplier, int32_t zero) {
    const __m512 factor = _mm512_set1_ps(multiplier);
    const __m512i words = _mm512_packs_epi32(requantize_round(low, factor), requantize_round(high, factor));
    return _mm512_adds_epi16(words, _mm512_set1_epi16((int16_t)zero));
}

#endif
