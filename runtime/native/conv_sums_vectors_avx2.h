/* conv_sums_vectors_avx2.h - vectors of the shared-partial-sums kernels on AVX2: 16 lanes of 16 bits (internal). */
#include "requantize_avx2.h"

typedef __m256i sums_vec;  /* 16 x int16 */
typedef __m256i sums_wide; /* 8 x int32: the lower or the upper lanes of both halves */

#define sums_add(a, b) _mm256_add_epi16(a, b)

/* sum += value, in place: left to itself, the compiler regroups and renames these additions until sums spill. */
#define sums_add_to(sum, value) __asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(value))
#define sums_add_from(sum, source)                                                                                     \
    __asm__("vpaddw %1, %0, %0" : "+x"(sum) : "m"(*(const __m256i *)(const void *)(source)))

#define sums_sub(a, b) _mm256_sub_epi16(a, b)
#define sums_set(value) _mm256_set1_epi16(value)
#define sums_add32(a, b) _mm256_add_epi32(a, b)
#define sums_set32(value) _mm256_set1_epi32(value)

COC_INLINE sums_vec sums_load(const uint8_t *source) {
    return _mm256_load_si256((const __m256i *)(const void *)source);
}
COC_INLINE void sums_store(uint8_t *target, sums_vec value) {
    _mm256_store_si256((__m256i *)(void *)target, value);
}
COC_INLINE sums_wide sums_load32(const int32_t *source) {
    return _mm256_load_si256((const __m256i *)(const void *)source);
}
COC_INLINE void sums_store32(int32_t *target, sums_wide value) {
    _mm256_store_si256((__m256i *)(void *)target, value);
}

#if SUMS_ELEMENT == 1
COC_INLINE sums_vec sums_bytes(const uint8_t *source) {
    return _mm256_loadu_si256((const __m256i *)(const void *)source);
}
#else
COC_INLINE sums_vec sums_bytes(const uint8_t *source) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)source));
}
#endif
COC_INLINE sums_vec sums_even_bytes(const uint8_t *source) {
    return _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(const void *)source), _mm256_set1_epi16(255));
}
COC_INLINE sums_vec sums_odd_bytes(const uint8_t *source) {
    return _mm256_srli_epi16(_mm256_loadu_si256((const __m256i *)(const void *)source), 8);
}

/* a + b * factor in 32 bits. */
COC_INLINE sums_wide sums_widen_low(sums_vec a, sums_vec b, int16_t factor) {
    return _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), _mm256_set1_epi32(1 + factor * 65536));
}
COC_INLINE sums_wide sums_widen_high(sums_vec a, sums_vec b, int16_t factor) {
    return _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), _mm256_set1_epi32(1 + factor * 65536));
}

/* The values that enter rows of `lanes` lanes at their ends: in every lane, or in the ends of rows of four. */
typedef struct {
    __m256i left, right;
} sums_edges;

COC_INLINE sums_edges sums_make_edges(uint32_t lanes, int16_t left, int16_t right) {
    const __m256i l = _mm256_set1_epi16(left), r = _mm256_set1_epi16(right);
    return lanes == 4 ? (sums_edges){_mm256_srli_epi64(l, 48), _mm256_slli_epi64(r, 48)} : (sums_edges){l, r};
}

/* Moves lanes up by one: lane x receives lane x - 1; vector v of V, `before` is vector v - 1. */
COC_INLINE sums_vec sums_from_left(const sums_edges *e, uint32_t lanes, int V, int v, sums_vec before, sums_vec a) {
    (void)V;
    if (lanes == 4)
        return _mm256_or_si256(_mm256_slli_epi64(a, 16), e->left);
    if (lanes == 8)
        return _mm256_alignr_epi8(a, e->left, 14);
    return _mm256_alignr_epi8(a, _mm256_permute2x128_si256(v > 0 ? before : e->left, a, 0x21), 14);
}

/* Moves lanes down by one: lane x receives lane x + 1; `after` is vector v + 1. */
COC_INLINE sums_vec sums_from_right(const sums_edges *e, uint32_t lanes, int V, int v, sums_vec a, sums_vec after) {
    if (lanes == 4)
        return _mm256_or_si256(_mm256_srli_epi64(a, 16), e->right);
    if (lanes == 8)
        return _mm256_alignr_epi8(e->right, a, 2);
    return _mm256_alignr_epi8(_mm256_permute2x128_si256(a, v < V - 1 ? after : e->right, 0x21), a, 2);
}

/* Stores the bytes of two vectors of results, in the order of pixels. */
#define sums_narrow(a, b, r, at_a, at_b)                                                                               \
    do {                                                                                                               \
        const __m256i clipped = _mm256_min_epu8(_mm256_packus_epi16(a, b), _mm256_set1_epi8((char)(r)->max));          \
        const __m256i sorted = _mm256_permute4x64_epi64(clipped, 0xD8);                                                \
        _mm_storeu_si128((__m128i *)(void *)(at_a), _mm256_castsi256_si128(sorted));                                   \
        _mm_storeu_si128((__m128i *)(void *)(at_b), _mm256_extracti128_si256(sorted, 1));                              \
    } while (0)

#if SUMS_ELEMENT == 1
#define sums_add8(a, b) _mm256_add_epi8(a, b)
#define sums_sub8(a, b) _mm256_sub_epi8(a, b)
#define sums_set8(value) _mm256_set1_epi8(value)
#define sums_upper(a) _mm256_srli_epi16(a, 8)
#define sums_left8(a) _mm256_slli_epi16(a, 8)
#define sums_low16(a) _mm256_and_si256(a, _mm256_set1_epi32(0xFFFF))
#define sums_high16(a) _mm256_srli_epi32(a, 16)

/* Bytes of a vector of results whose even and odd columns are apart, in the order of pixels. */
#define sums_narrow_halves(even, odd, r, bytes)                                                                        \
    do {                                                                                                               \
        const __m256i order = _mm256_setr_epi8(0, 8, 4, 12, 1, 9, 5, 13, 2, 10, 6, 14, 3, 11, 7, 15,                   \
                                               0, 8, 4, 12, 1, 9, 5, 13, 2, 10, 6, 14, 3, 11, 7, 15);                  \
        const __m256i mixed = _mm256_shuffle_epi8(_mm256_packus_epi16(even, odd), order);                              \
        _mm256_store_si256((__m256i *)(void *)(bytes), _mm256_min_epu8(mixed, _mm256_set1_epi8((char)(r)->max)));      \
    } while (0)
#endif
