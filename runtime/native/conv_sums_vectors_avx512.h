/* conv_sums_vectors_avx512.h - vectors of the shared-partial-sums kernels on AVX-512: 32 lanes of 16 bits (internal). */
#include "requantize_avx512.h"

typedef __m512i sums_vec;  /* 32 x int16 */
typedef __m512i sums_wide; /* 16 x int32: the lower or the upper lanes of all quarters */

#define sums_add(a, b) _mm512_add_epi16(a, b)

/* sum += value, in place: left to itself, the compiler regroups and renames these additions until sums spill. */
#define sums_add_to(sum, value) __asm__("vpaddw %1, %0, %0" : "+v"(sum) : "v"(value))
#define sums_add_from(sum, source)                                                                                     \
    __asm__("vpaddw %1, %0, %0" : "+v"(sum) : "m"(*(const __m512i *)(const void *)(source)))

#define sums_sub(a, b) _mm512_sub_epi16(a, b)
#define sums_set(value) _mm512_set1_epi16(value)
#define sums_add32(a, b) _mm512_add_epi32(a, b)
#define sums_set32(value) _mm512_set1_epi32(value)

COC_INLINE sums_vec sums_load(const uint8_t *source) {
    return _mm512_load_si512(source);
}
COC_INLINE void sums_store(uint8_t *target, sums_vec value) {
    _mm512_store_si512(target, value);
}
COC_INLINE sums_wide sums_load32(const int32_t *source) {
    return _mm512_load_si512(source);
}
COC_INLINE void sums_store32(int32_t *target, sums_wide value) {
    _mm512_store_si512(target, value);
}

#if SUMS_ELEMENT == 1
COC_INLINE sums_vec sums_bytes(const uint8_t *source) {
    return _mm512_loadu_si512(source);
}
#else
COC_INLINE sums_vec sums_bytes(const uint8_t *source) {
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)source));
}
#endif
COC_INLINE sums_vec sums_even_bytes(const uint8_t *source) {
    return _mm512_and_si512(_mm512_loadu_si512(source), _mm512_set1_epi16(255));
}
COC_INLINE sums_vec sums_odd_bytes(const uint8_t *source) {
    return _mm512_srli_epi16(_mm512_loadu_si512(source), 8);
}

/* a + b * factor in 32 bits. */
COC_INLINE sums_wide sums_widen_low(sums_vec a, sums_vec b, int16_t factor) {
    return _mm512_madd_epi16(_mm512_unpacklo_epi16(a, b), _mm512_set1_epi32(1 + factor * 65536));
}
COC_INLINE sums_wide sums_widen_high(sums_vec a, sums_vec b, int16_t factor) {
    return _mm512_madd_epi16(_mm512_unpackhi_epi16(a, b), _mm512_set1_epi32(1 + factor * 65536));
}

/* The values that enter rows of lanes at their ends, and where from each lane moves. */
typedef struct {
    __m512i left, right, from_left, from_right;
    __mmask32 first, last; /* lanes at the ends of rows */
} sums_edges;

COC_INLINE sums_edges sums_make_edges(uint32_t lanes, int16_t left, int16_t right) {
    sums_edges e;
    _Alignas(64) int16_t lane[32];
    for (int i = 0; i < 32; i++)
        lane[i] = (int16_t)i;
    const __m512i ramp = _mm512_load_si512(lane);
    e.left = _mm512_set1_epi16(left);
    e.right = _mm512_set1_epi16(right);
    e.from_left = _mm512_sub_epi16(ramp, _mm512_set1_epi16(1));
    e.from_right = _mm512_add_epi16(ramp, _mm512_set1_epi16(1));
    e.first = lanes == 4 ? 0x11111111u : lanes == 8 ? 0x01010101u : lanes == 16 ? 0x00010001u : 1u;
    e.last = e.first << (lanes - 1);
    return e;
}

/* Moves lanes up by one: lane x receives lane x - 1. */
COC_INLINE sums_vec sums_from_left(const sums_edges *e, uint32_t lanes, int V, int v, sums_vec before, sums_vec a) {
    (void)lanes, (void)V, (void)v, (void)before;
    return _mm512_mask_permutexvar_epi16(e->left, ~e->first, e->from_left, a);
}

/* Moves lanes down by one: lane x receives lane x + 1. */
COC_INLINE sums_vec sums_from_right(const sums_edges *e, uint32_t lanes, int V, int v, sums_vec a, sums_vec after) {
    (void)lanes, (void)V, (void)v, (void)after;
    return _mm512_mask_permutexvar_epi16(e->right, ~e->last, e->from_right, a);
}

/* Stores the bytes of two vectors of results, in the order of pixels. */
#define sums_narrow(a, b, r, at_a, at_b)                                                                               \
    do {                                                                                                               \
        const __m512i clipped = _mm512_min_epu8(_mm512_packus_epi16(a, b), _mm512_set1_epi8((char)(r)->max));          \
        const __m512i sorted = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), clipped);           \
        _mm256_storeu_si256((__m256i *)(void *)(at_a), _mm512_castsi512_si256(sorted));                                \
        _mm256_storeu_si256((__m256i *)(void *)(at_b), _mm512_extracti64x4_epi64(sorted, 1));                          \
    } while (0)

#if SUMS_ELEMENT == 1
#define sums_add8(a, b) _mm512_add_epi8(a, b)
#define sums_sub8(a, b) _mm512_sub_epi8(a, b)
#define sums_set8(value) _mm512_set1_epi8(value)
#define sums_upper(a) _mm512_srli_epi16(a, 8)
#define sums_left8(a) _mm512_slli_epi16(a, 8)
#define sums_low16(a) _mm512_and_si512(a, _mm512_set1_epi32(0xFFFF))
#define sums_high16(a) _mm512_srli_epi32(a, 16)

/* Bytes of a vector of results whose even and odd columns are apart, in the order of pixels. */
#define sums_narrow_halves(even, odd, r, bytes)                                                                        \
    do {                                                                                                               \
        const __m512i order = _mm512_broadcast_i32x4(                                                                  \
            _mm_setr_epi8(0, 8, 4, 12, 1, 9, 5, 13, 2, 10, 6, 14, 3, 11, 7, 15));                                      \
        const __m512i mixed = _mm512_shuffle_epi8(_mm512_packus_epi16(even, odd), order);                              \
        _mm512_store_si512(bytes, _mm512_min_epu8(mixed, _mm512_set1_epi8((char)(r)->max)));                           \
    } while (0)
#endif
