/* conv_dot_avx2.h - vectors of the AVX2 dot-product kernels: 8 pixels in 32 bits (internal). */
typedef __m256i dot_vec;

COC_INLINE dot_vec dot_load(const uint8_t *source) {
    return _mm256_loadu_si256((const __m256i *)(const void *)source);
}

/* sum += value, in place: left to itself, the compiler renames sums until they spill. */
#define dot_add16(sum, value) __asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(value))
#define dot_add32(sum, value) __asm__("vpaddd %1, %0, %0" : "+x"(sum) : "x"(value))

COC_INLINE __m256i dot_rounded(dot_vec sum, float multiplier) {
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(multiplier)));
}

/* Requantizes N vectors of sums to bytes; saturating packs do all the clipping but that to out_max. */
COC_INLINE void dot_results(int N, const dot_vec *sums, const coc_conv *layer, float multiplier, uint8_t *target) {
#pragma GCC unroll 2
    for (int j = 0; j < N; j += 2, target += 16) {
        const __m256i a = dot_rounded(sums[j], multiplier);
        const __m256i b = j + 1 < N ? dot_rounded(sums[j + 1], multiplier) : a;
        __m256i words = _mm256_adds_epi16(_mm256_packs_epi32(a, b), _mm256_set1_epi16((int16_t)layer->out_zero));
        words = _mm256_min_epu8(_mm256_packus_epi16(words, words), _mm256_set1_epi8((char)layer->out_max));
        words = _mm256_permutevar8x32_epi32(words, _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5));
        if (j + 1 < N)
            _mm_storeu_si128((__m128i *)(void *)target, _mm256_castsi256_si128(words));
        else
            _mm_storel_epi64((__m128i *)(void *)target, _mm256_castsi256_si128(words));
    }
}
