/* conv_dot8_avx512.c - dot products of four channels in 8 bits (AVX-512 VNNI, vpdpbusd): exact, since it adds the four
 * products in 32 bits without saturation. Weights must fit in int8: all but 8-bit odd ones. */
#if defined(__x86_64__)
#include "level_avx512.h"

#include "conv_dot_x86.h"
#include "requantize_avx512.h"

#define DOT_LANES 16u
#define DOT_K 4u
#define DOT_VECTORS 4u
#define DOT_RAW 1
#define DOT_SPLIT 1

typedef __m512i dot_vec;

#define dot_element(w) dot_element_bytes(w)
#define dot_pack8(rows, zero, target) dot_pack_bytes(rows, target)
#define dot_pack16(rows, target) dot_pack_16(rows, target)

/* Elements of sixteen pixels of four channels: a transposition of 4 x 4 words of four bytes, then one of bytes. */
static inline void dot_pack_16(const uint8_t *const rows[4], uint32_t *target) {
    __m512i bytes = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)rows[0]));
    bytes = _mm512_inserti32x4(bytes, _mm_loadu_si128((const __m128i *)(const void *)rows[1]), 1);
    bytes = _mm512_inserti32x4(bytes, _mm_loadu_si128((const __m128i *)(const void *)rows[2]), 2);
    bytes = _mm512_inserti32x4(bytes, _mm_loadu_si128((const __m128i *)(const void *)rows[3]), 3);
    bytes = _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), bytes);
    bytes = _mm512_shuffle_epi8(
        bytes, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)));
    _mm512_storeu_si512(target, bytes);
}

COC_INLINE dot_vec dot_load(const uint8_t *at, size_t half) {
    if (half == 0)
        return _mm512_loadu_si512(at);
    const __m256i lower = _mm256_loadu_si256((const __m256i *)(const void *)at);
    return _mm512_inserti64x4(_mm512_castsi256_si512(lower),
                              _mm256_loadu_si256((const __m256i *)(const void *)(at + half)), 1);
}

#define dot_set(value) _mm512_set1_epi32(value)
#define dot_multiply_add(acc, x, weight) (acc) = _mm512_dpbusd_epi32(acc, x, weight)

#include "conv_dot_products.h"

COC_INLINE void dot_accumulate(int N, const dot_walk *walk, dot_vec acc[DOT_VECTORS][4]) {
    if (walk->half == 0)
        dot_products(N, walk, 0, acc);
    else
        dot_products(N, walk, walk->half, acc);
}

/* Requantizes N vectors of sums to bytes. */
COC_INLINE void dot_results(int N, const dot_vec *sums, const coc_conv *layer, float multiplier, uint8_t *target) {
    __m512i words[DOT_VECTORS / 2]; /* of two vectors, in quarters */
#pragma GCC unroll 2
    for (int j = 0; j < N; j += 2)
        words[j / 2] = requantize(sums[j], sums[j + 1 < N ? j + 1 : j], multiplier, layer->out_zero);
    __m512i bytes = _mm512_packus_epi16(words[0], words[N > 2]);
    bytes = _mm512_min_epu8(bytes, _mm512_set1_epi8((char)layer->out_max));
    bytes = _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), bytes);
    if (N == 4)
        _mm512_storeu_si512(target, bytes);
    else
        _mm512_mask_storeu_epi32(target, (__mmask16)((1u << 4 * N) - 1u), bytes);
}

#include "conv_dot.h"

/* Few pixels with 1-bit weights are left to the shared partial sums of AVX2, whose vectors they fill. */
static int accepts(const coc_conv *layer) {
    if (layer->weight_bits == 1 && layer->out_height * layer->out_width < 2 * DOT_LANES)
        return 0;
    return dot_accepts_shape(layer) && (layer->weight_bits < 8 || layer->encoding == COC_SYMMETRIC);
}

DOT_KERNEL(conv_dot8_avx512, COC_AVX512, accepts)

#include "level_end.h"
#endif
