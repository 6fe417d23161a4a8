/* conv_dot_x86.h - what the dot-product kernels of all x86 levels share (internal). */
#ifndef COC_CONV_DOT_X86_H
#define COC_CONV_DOT_X86_H

#include "conv_shared.h"

typedef uint32_t dot_cell;

/* The path of a register tile through stage and weights. */
typedef struct {
    const uint8_t *x[4];
    const int32_t *bias;    /* of the four output channels */
    const dot_cell *weights;
    uint32_t units, taps, flush;
    size_t unit_step;
    size_t half;            /* distance of the upper half of a vector's pixels, if that is elsewhere; or 0 */
    size_t tap[49];
} dot_walk;

/* Even and odd elements of a row. Reads up to seven elements more than 2 * count. */
static inline void dot_split(const uint32_t *row, uint32_t *even, uint32_t *odd, uint32_t count) {
    uint32_t i = 0;
    for (; i + 4 <= count; i += 4) {
        const __m128 a = _mm_loadu_ps((const float *)(const void *)(row + 2 * i));
        const __m128 b = _mm_loadu_ps((const float *)(const void *)(row + 2 * i + 4));
        _mm_storeu_ps((float *)(void *)(even + i), _mm_shuffle_ps(a, b, 0x88));
        if (odd)
            _mm_storeu_ps((float *)(void *)(odd + i), _mm_shuffle_ps(a, b, 0xDD));
    }
    for (; i < count; i++) {
        even[i] = row[2 * i];
        if (odd)
            odd[i] = row[2 * i + 1];
    }
}

/* Elements of eight pixels of four channels of bytes. */
static inline void dot_pack_bytes(const uint8_t *const rows[4], uint32_t *target) {
    const __m128i ab = _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)(const void *)rows[0]),
                                         _mm_loadl_epi64((const __m128i *)(const void *)rows[1]));
    const __m128i cd = _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)(const void *)rows[2]),
                                         _mm_loadl_epi64((const __m128i *)(const void *)rows[3]));
    _mm_storeu_si128((__m128i *)(void *)target, _mm_unpacklo_epi16(ab, cd));
    _mm_storeu_si128((__m128i *)(void *)(target + 4), _mm_unpackhi_epi16(ab, cd));
}

static inline uint32_t dot_element_bytes(const int32_t w[4]) {
    return (uint32_t)(w[0] & 255) | (uint32_t)(w[1] & 255) << 8 | (uint32_t)(w[2] & 255) << 16 |
           (uint32_t)(w[3] & 255) << 24;
}

#endif
