/* conv_dot_vectors_avx2.h - vectors of the dot-product kernels with AVX2: 8 pixels in 32 bits (internal). */
#include "conv_dot_x86.h"
#include "requantize_avx2.h"

#define DOT_LANES 8u
#ifndef DOT_VECTORS
#define DOT_VECTORS 2u
#endif

typedef __m256i dot_vec;

/* Pixels of a vector; `half` is for wider ones. */
COC_INLINE dot_vec dot_load(const uint8_t *source, size_t half) {
    (void)half;
    return _mm256_loadu_si256((const __m256i *)(const void *)source);
}

#define dot_set(value) _mm256_set1_epi32(value)

/* sum += value, in place: left to itself, the compiler renames sums until they spill. */
#define dot_add16(sum, value) __asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(value))
#define dot_add32(sum, value) __asm__("vpaddd %1, %0, %0" : "+x"(sum) : "x"(value))

/* Requantizes N vectors of sums to bytes. */
COC_INLINE void dot_results(int N, const dot_vec *sums, const coc_conv *layer, float multiplier, uint8_t *target) {
#pragma GCC unroll 2
    for (int j = 0; j < N; j += 2, target += 16) {
        __m256i words = requantize(sums[j], sums[j + 1 < N ? j + 1 : j], multiplier, layer->out_zero);
        words = _mm256_min_epu8(_mm256_packus_epi16(words, words), _mm256_set1_epi8((char)layer->out_max));
        words = _mm256_permutevar8x32_epi32(words, _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5));
        if (j + 1 < N)
            _mm_storeu_si128((__m128i *)(void *)target, _mm256_castsi256_si128(words));
        else
            _mm_storel_epi64((__m128i *)(void *)target, _mm256_castsi256_si128(words));
    }
}
