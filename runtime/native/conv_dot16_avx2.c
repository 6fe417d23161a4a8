/* conv_dot16_avx2.c - dot products of pairs of channels in 16 bits (AVX2, vpmaddwd): exact for any weights of up to
 * 8 bits, and as fast as vpmaddubsw + vpmaddwd, which is not. */
#if defined(__x86_64__)
#include "level_avx2.h"

#include "conv_dot_vectors_avx2.h"

#define DOT_K 2u
#define DOT_RAW 0

static inline uint32_t dot_element(const int32_t w[DOT_K]) {
    return (uint32_t)(w[0] & 0xFFFF) | (uint32_t)(w[1] & 0xFFFF) << 16;
}

static inline void dot_pack8(const uint8_t *const rows[DOT_K], int32_t zero, uint32_t *target) {
    const __m128i ab = _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)(const void *)rows[0]),
                                         _mm_loadl_epi64((const __m128i *)(const void *)rows[1]));
    _mm256_storeu_si256((__m256i *)(void *)target,
                        _mm256_sub_epi16(_mm256_cvtepu8_epi16(ab), _mm256_set1_epi16((int16_t)zero)));
}

#define dot_multiply_add(acc, x, weight) dot_add32(acc, _mm256_madd_epi16(x, weight))

#include "conv_dot_products.h"

COC_INLINE void dot_accumulate(int N, const dot_walk *walk, dot_vec acc[DOT_VECTORS][4]) {
    dot_products(N, walk, 0, acc);
}

#include "conv_dot.h"

DOT_KERNEL(conv_dot16_avx2, COC_AVX2, dot_accepts_shape)

#include "level_end.h"
#endif
