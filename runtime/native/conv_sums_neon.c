/* conv_sums_neon.c - shared partial sums with 8 lanes (NEON): 1-bit weights, 1x1 and 3x3, stride 1 and 2. */
#if defined(__aarch64__)
#include <arm_neon.h>

#define SUMS_LANES 8u
#define SUMS_GROUP 4u
#define SUMS_ELEMENT 2u
#define SUMS_TILE 4
#define SUMS_LEAST_LANES 4u
#define SUMS_MAX_VECTORS 4
#define SUMS_TABLE 24576u /* bytes of tables that the first-level cache is asked to hold */

#include "requantize_neon.h"

typedef int16x8_t sums_vec;
typedef int32x4_t sums_wide; /* the lower or the upper lanes */

#define sums_add(a, b) vaddq_s16(a, b)
#define sums_add_from(sum, source) (sum) = vaddq_s16(sum, sums_load(source))
#define sums_sub(a, b) vsubq_s16(a, b)
#define sums_set(value) vdupq_n_s16(value)
#define sums_add32(a, b) vaddq_s32(a, b)
#define sums_load32(source) vld1q_s32(source)
#define sums_store32(target, value) vst1q_s32(target, value)
#define sums_set32(value) vdupq_n_s32(value)

/* a + b * factor in 32 bits. */
#define sums_widen_low(a, b, factor) vmlal_n_s16(vmovl_s16(vget_low_s16(a)), vget_low_s16(b), factor)
#define sums_widen_high(a, b, factor) vmlal_high_n_s16(vmovl_high_s16(a), b, factor)

COC_INLINE sums_vec sums_load(const uint8_t *source) {
    return vreinterpretq_s16_u8(vld1q_u8(source));
}
COC_INLINE void sums_store(uint8_t *target, sums_vec value) {
    vst1q_u8(target, vreinterpretq_u8_s16(value));
}
COC_INLINE sums_vec sums_bytes(const uint8_t *source) {
    return vreinterpretq_s16_u16(vmovl_u8(vld1_u8(source)));
}
COC_INLINE sums_vec sums_even_bytes(const uint8_t *source) {
    return vreinterpretq_s16_u16(vmovl_u8(vld2_u8(source).val[0]));
}
COC_INLINE sums_vec sums_odd_bytes(const uint8_t *source) {
    return vreinterpretq_s16_u16(vmovl_u8(vld2_u8(source).val[1]));
}

/* The values that enter rows of lanes at their ends. */
typedef struct {
    sums_vec left, right;
} sums_edges;

COC_INLINE sums_edges sums_make_edges(uint32_t lanes, int16_t left, int16_t right) {
    (void)lanes;
    return (sums_edges){vdupq_n_s16(left), vdupq_n_s16(right)};
}

/* Moves lanes up by one: lane x receives lane x - 1; vector v of V, `before` is vector v - 1. */
COC_INLINE sums_vec sums_from_left(const sums_edges *e, uint32_t lanes, int V, int v, sums_vec before, sums_vec a) {
    (void)V;
    if (lanes == 4)
        return vcombine_s16(vext_s16(vget_low_s16(e->left), vget_low_s16(a), 3),
                            vext_s16(vget_low_s16(e->left), vget_high_s16(a), 3));
    return vextq_s16(v > 0 ? before : e->left, a, 7);
}

/* Moves lanes down by one: lane x receives lane x + 1; `after` is vector v + 1. */
COC_INLINE sums_vec sums_from_right(const sums_edges *e, uint32_t lanes, int V, int v, sums_vec a, sums_vec after) {
    if (lanes == 4)
        return vcombine_s16(vext_s16(vget_low_s16(a), vget_low_s16(e->right), 1),
                            vext_s16(vget_high_s16(a), vget_low_s16(e->right), 1));
    return vextq_s16(a, v < V - 1 ? after : e->right, 1);
}

/* Stores the bytes of two vectors of results. */
#define sums_narrow(a, b, r, at_a, at_b)                                                                               \
    do {                                                                                                               \
        vst1_u8(at_a, vmin_u8(vqmovun_s16(a), vdup_n_u8((uint8_t)(r)->max)));                                          \
        vst1_u8(at_b, vmin_u8(vqmovun_s16(b), vdup_n_u8((uint8_t)(r)->max)));                                          \
    } while (0)

#include "conv_sums.h"

SUMS_KERNEL(conv_w1_sums_neon, COC_NEON, sums_accepts)

#endif
