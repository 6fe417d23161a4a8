/* conv_avx2_dot16.c - dot products of pairs of channels in 16 bits (AVX2, vpmaddwd): exact for any weights of up to
 * 8 bits, and as fast as vpmaddubsw + vpmaddwd, which is not. */
#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

#include "conv_dot_x86.h"

#define DOT_LANES 8u
#define DOT_K 2u
#define DOT_VECTORS 2u
#define DOT_RAW 0

#include "conv_dot_avx2.h"

static inline uint32_t dot_element(const int32_t w[DOT_K]) {
    return (uint32_t)(w[0] & 0xFFFF) | (uint32_t)(w[1] & 0xFFFF) << 16;
}

static inline void dot_pack8(const uint8_t *const rows[DOT_K], int32_t zero, uint32_t *target) {
    const __m128i ab = _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)(const void *)rows[0]),
                                         _mm_loadl_epi64((const __m128i *)(const void *)rows[1]));
    _mm256_storeu_si256((__m256i *)(void *)target,
                        _mm256_sub_epi16(_mm256_cvtepu8_epi16(ab), _mm256_set1_epi16((int16_t)zero)));
}

static uint32_t dot_flush_steps(const coc_conv *layer) {
    (void)layer;
    return 0;
}

COC_INLINE void dot_accumulate(int N, const dot_walk *walk, dot_vec acc[DOT_VECTORS][4]) {
    const uint32_t *w = walk->weights;
    size_t offset = 0;
#pragma GCC unroll 2
    for (int j = 0; j < N; j++)
#pragma GCC unroll 4
        for (int o = 0; o < 4; o++)
            acc[j][o] = _mm256_set1_epi32(walk->bias[o]);
    for (uint32_t unit = 0; unit < walk->units; unit++, offset += walk->unit_step)
        for (uint32_t tap = 0; tap < walk->taps; tap++, w += 4) {
            const size_t at = offset + walk->tap[tap];
            dot_vec x[DOT_VECTORS];
#pragma GCC unroll 4
            for (int j = 0; j < N; j++)
                x[j] = dot_load(walk->x[j] + at);
#pragma GCC unroll 4
            for (int o = 0; o < 4; o++) {
                const dot_vec weight = _mm256_set1_epi32((int32_t)w[o]);
#pragma GCC unroll 4
                for (int j = 0; j < N; j++)
                    dot_add32(acc[j][o], _mm256_madd_epi16(x[j], weight));
            }
        }
}

#include "conv_dot.h"

DOT_KERNEL(conv_dot16_avx2, COC_AVX2, dot_accepts_shape)

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
