/* conv_dot16_neon.c - multiplication of single channels in 16 bits (NEON, smlal): exact for any weights of up to 8 bits,
 * any kernel, stride and padding. Baseline ARMv8; no dot-product instructions. */
#if defined(__aarch64__)
#include <arm_neon.h>

#include "requantize_neon.h"

#define DOT_LANES 8u
#define DOT_K 1u
#define DOT_VECTORS 2u
#define DOT_RAW 0

typedef uint16_t dot_cell;
typedef int32x4x2_t dot_vec;

/* The path of a register tile through stage and weights. */
typedef struct {
    const uint8_t *x[DOT_VECTORS];
    const int32_t *bias;    /* of the four output channels */
    const dot_cell *weights;
    uint32_t units, taps, flush;
    size_t unit_step;
    size_t half;            /* distance of the upper half of a vector's pixels, if that is elsewhere; or 0 */
    size_t tap[49];
} dot_walk;

static inline dot_cell dot_element(const int32_t w[DOT_K]) {
    return (dot_cell)(w[0] & 0xFFFF);
}

static inline void dot_pack8(const uint8_t *const rows[DOT_K], int32_t zero, dot_cell *target) {
    const uint16x8_t wide = vmovl_u8(vld1_u8(rows[0]));
    vst1q_u16(target, vsubq_u16(wide, vdupq_n_u16((uint16_t)zero)));
}

static inline void dot_split(const dot_cell *row, dot_cell *even, dot_cell *odd, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        even[i] = row[2 * i];
        if (odd)
            odd[i] = row[2 * i + 1];
    }
}

static uint32_t dot_flush_steps(const coc_conv *layer) {
    (void)layer;
    return 0;
}

#define DOT_OUT(o)                                                                                                     \
    for (int j = 0; j < N; j++) {                                                                                      \
        acc[j][o].val[0] = vmlal_lane_s16(acc[j][o].val[0], vget_low_s16(x[j]), weight, o);                            \
        acc[j][o].val[1] = vmlal_high_lane_s16(acc[j][o].val[1], x[j], weight, o);                                     \
    }

COC_INLINE void dot_accumulate(int N, const dot_walk *walk, dot_vec acc[DOT_VECTORS][4]) {
    const dot_cell *w = walk->weights;
    size_t offset = 0;
#pragma GCC unroll 2
    for (int j = 0; j < N; j++)
#pragma GCC unroll 4
        for (int o = 0; o < 4; o++)
            acc[j][o].val[0] = acc[j][o].val[1] = vdupq_n_s32(walk->bias[o]);
    for (uint32_t unit = 0; unit < walk->units; unit++, offset += walk->unit_step)
        for (uint32_t tap = 0; tap < walk->taps; tap++, w += 4) {
            const size_t at = offset + walk->tap[tap];
            const int16x4_t weight = vreinterpret_s16_u16(vld1_u16(w));
            int16x8_t x[DOT_VECTORS];
#pragma GCC unroll 2
            for (int j = 0; j < N; j++)
                x[j] = vreinterpretq_s16_u8(vld1q_u8(walk->x[j] + at));
            DOT_OUT(0)
            DOT_OUT(1)
            DOT_OUT(2)
            DOT_OUT(3)
        }
}

/* Requantizes N vectors of sums to bytes. */
COC_INLINE void dot_results(int N, const dot_vec *sums, const coc_conv *layer, float multiplier, uint8_t *target) {
    for (int j = 0; j < N; j++) {
        const int16x8_t words = requantize(sums[j].val[0], sums[j].val[1], multiplier, layer->out_zero);
        vst1_u8(target + 8 * j, vmin_u8(vqmovun_s16(words), vdup_n_u8((uint8_t)layer->out_max)));
    }
}

#include "conv_dot.h"

DOT_KERNEL(conv_dot16_neon, COC_NEON, dot_accepts_shape)

#endif
