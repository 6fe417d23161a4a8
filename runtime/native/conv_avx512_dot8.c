/* conv_avx512_dot8.c - dot products of four channels in 8 bits (AVX-512 VNNI, vpdpbusd): exact, since it adds the four
 * products in 32 bits without saturation. Weights must fit in int8: all but 8-bit odd ones. */
#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512vnni")
#endif

#include "conv_dot_x86.h"

#define DOT_LANES 16u
#define DOT_K 4u
#define DOT_VECTORS 4u
#define DOT_RAW 1

typedef __m512i dot_vec;

#define dot_element(w) dot_element_bytes(w)
#define dot_pack8(rows, zero, target) dot_pack_bytes(rows, target)

static uint32_t dot_flush_steps(const coc_conv *layer) {
    (void)layer;
    return 0;
}

COC_INLINE void dot_accumulate(int N, const dot_walk *walk, dot_vec acc[DOT_VECTORS][4]) {
    const uint32_t *w = walk->weights;
    size_t offset = 0;
    for (int j = 0; j < N; j++)
        for (int o = 0; o < 4; o++)
            acc[j][o] = _mm512_setzero_si512();
    for (uint32_t unit = 0; unit < walk->units; unit++, offset += walk->unit_step)
        for (uint32_t tap = 0; tap < walk->taps; tap++, w += 4) {
            const size_t at = offset + walk->tap[tap];
            dot_vec x[DOT_VECTORS];
#pragma GCC unroll 4
            for (int j = 0; j < N; j++)
                x[j] = _mm512_loadu_si512(walk->x[j] + at);
#pragma GCC unroll 4
            for (int o = 0; o < 4; o++) {
                const dot_vec weight = _mm512_set1_epi32((int32_t)w[o]);
#pragma GCC unroll 4
                for (int j = 0; j < N; j++)
                    acc[j][o] = _mm512_dpbusd_epi32(acc[j][o], x[j], weight);
            }
        }
}

/* Requantizes N vectors of sums to bytes; saturating conversions do all the clipping but that to out_max. */
COC_INLINE void dot_results(int N, const dot_vec *sums, int32_t bias, const coc_conv *layer, float multiplier,
                            uint8_t *target) {
    const __m512i zero = _mm512_set1_epi32(layer->out_zero), none = _mm512_setzero_si512();
    const __m128i max = _mm_set1_epi8((char)layer->out_max);
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) {
        const __m512i sum = _mm512_add_epi32(sums[j], _mm512_set1_epi32(bias));
        const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(multiplier)));
        const __m512i code = _mm512_max_epi32(_mm512_add_epi32(rounded, zero), none);
        _mm_storeu_si128((__m128i *)(void *)(target + 16 * j), _mm_min_epu8(_mm512_cvtusepi32_epi8(code), max));
    }
}

#include "conv_dot.h"

/* Few pixels with 1-bit weights are left to the shared partial sums of AVX2, whose vectors they fill. */
static int accepts(const coc_conv *layer) {
    if (layer->weight_bits == 1 && layer->out_height * layer->out_width < 2 * DOT_LANES)
        return 0;
    return dot_accepts_shape(layer) && (layer->weight_bits < 8 || layer->encoding == COC_SYMMETRIC);
}

DOT_KERNEL(conv_dot8_avx512, COC_AVX512, accepts)

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
