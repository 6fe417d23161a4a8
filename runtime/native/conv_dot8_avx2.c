/* conv_dot8_avx2.c - dot products of four channels in 8 bits (AVX2, vpmaddubsw): weights of up to 4 bits.
 *
 * A product pair is at most 2 * 2^in_bits * 2^weight_bits in magnitude, so that several of them can be added in 16 bits
 * (4 for 4-bit weights and 8-bit activations, 21 for 2-bit weights) before they must be widened: `flush` steps. */
#if defined(__x86_64__)
#include "level_avx2.h"

#include "conv_dot_vectors_avx2.h"

#define DOT_K 4u
#define DOT_RAW 1

#define dot_element(w) dot_element_bytes(w)
#define dot_pack8(rows, zero, target) dot_pack_bytes(rows, target)

static uint32_t dot_flush_steps(const coc_conv *layer) {
    const uint32_t largest = 2 * ((1u << layer->in_bits) - 1) * ((1u << layer->weight_bits) - 1);
    return 32767u / largest;
}

COC_INLINE void dot_accumulate(int N, const dot_walk *walk, dot_vec acc[DOT_VECTORS][4]) {
    const uint32_t *w = walk->weights;
    const dot_vec ones = _mm256_set1_epi16(1);
    dot_vec narrow[DOT_VECTORS][4];
    size_t offset = 0;
    uint32_t left = walk->flush;
#pragma GCC unroll 2
    for (int j = 0; j < N; j++)
#pragma GCC unroll 4
        for (int o = 0; o < 4; o++) {
            acc[j][o] = _mm256_set1_epi32(walk->bias[o]);
            narrow[j][o] = _mm256_setzero_si256();
        }
    for (uint32_t unit = 0; unit < walk->units; unit++, offset += walk->unit_step) {
        uint32_t tap = 0;
        while (tap < walk->taps) {
            const uint32_t end = coc_min(walk->taps, tap + left);
            left -= end - tap;
            for (; tap < end; tap++, w += 4) {
                const size_t at = offset + walk->tap[tap];
                dot_vec x[DOT_VECTORS];
#pragma GCC unroll 4
                for (int j = 0; j < N; j++)
                    x[j] = dot_load(walk->x[j] + at, 0);
#pragma GCC unroll 4
                for (int o = 0; o < 4; o++) {
                    const dot_vec weight = _mm256_set1_epi32((int32_t)w[o]);
#pragma GCC unroll 4
                    for (int j = 0; j < N; j++)
                        dot_add16(narrow[j][o], _mm256_maddubs_epi16(x[j], weight));
                }
            }
            if (left > 0 && unit + 1 < walk->units)
                continue;
            left = walk->flush;
#pragma GCC unroll 4
            for (int o = 0; o < 4; o++)
#pragma GCC unroll 4
                for (int j = 0; j < N; j++) {
                    acc[j][o] = _mm256_add_epi32(acc[j][o], _mm256_madd_epi16(narrow[j][o], ones));
                    narrow[j][o] = _mm256_setzero_si256();
                }
        }
    }
}

#include "conv_dot.h"

static int accepts(const coc_conv *layer) {
    return dot_accepts_shape(layer) && layer->weight_bits <= 4;
}

DOT_KERNEL(conv_dot8_avx2, COC_AVX2, accepts)

#include "level_end.h"
#endif
