/* add_avx2.c - additions in 16 bits, 32 codes at a time. */
#include "ops/add.h"

#if defined(__x86_64__)
#include "level_avx2.h"

typedef struct {
    __m256i a_factor, b_factor, zero, odd, below_half, out_zero;
    __m128i shift;
} constants;

/* Whether sums, and what rounding adds to them, fit 16 bits: codes are at most 255. */
static int is_narrow(const coc_addition *op) {
    return op->shift >= 0 && op->shift <= 8 && op->a_factor + op->b_factor <= 64;
}

/* Half of the divisor is added before the shift, less one where that would round a tie to an odd number. */
static inline __m256i sixteen(const constants *k, const uint8_t *a, const uint8_t *b) {
    const __m256i wide_a = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)a));
    const __m256i wide_b = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)b));
    const __m256i products =
        _mm256_add_epi16(_mm256_mullo_epi16(wide_a, k->a_factor), _mm256_mullo_epi16(wide_b, k->b_factor));
    const __m256i sum = _mm256_sub_epi16(products, k->zero);
    const __m256i tie = _mm256_and_si256(_mm256_sra_epi16(sum, k->shift), k->odd);
    const __m256i rounded = _mm256_add_epi16(_mm256_add_epi16(sum, k->below_half), tie);
    return _mm256_add_epi16(_mm256_sra_epi16(rounded, k->shift), k->out_zero);
}

size_t coc_add_avx2(const coc_addition *op, const uint8_t *a, const uint8_t *b, uint8_t *y) {
    if (!is_narrow(op))
        return 0;
    const constants k = {
        .a_factor = _mm256_set1_epi16((int16_t)op->a_factor),
        .b_factor = _mm256_set1_epi16((int16_t)op->b_factor),
        .zero = _mm256_set1_epi16((int16_t)op->zero),
        .odd = _mm256_set1_epi16(op->shift > 0),
        .below_half = _mm256_set1_epi16((int16_t)(op->shift > 0 ? (1 << (op->shift - 1)) - 1 : 0)),
        .out_zero = _mm256_set1_epi16((int16_t)op->out_zero),
        .shift = _mm_cvtsi32_si128(op->shift),
    };
    const __m256i most = _mm256_set1_epi8((char)op->out_max);
    size_t i = 0;
    for (; i + 32 <= op->count; i += 32) {
        const __m256i mixed = _mm256_packus_epi16(sixteen(&k, a + i, b + i), sixteen(&k, a + i + 16, b + i + 16));
        const __m256i codes = _mm256_min_epu8(_mm256_permute4x64_epi64(mixed, 0xD8), most);
        _mm256_storeu_si256((__m256i *)(void *)(y + i), codes);
    }
    return i;
}

#include "level_end.h"
#endif
