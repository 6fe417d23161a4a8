/* requantize_neon.h - coc_requantize for eight sums (NEON; internal). See requantize_avx2.h. */
#ifndef COC_REQUANTIZE_NEON_H
#define COC_REQUANTIZE_NEON_H

#include "conv_shared.h"

COC_INLINE int16x4_t requantize_round(int32x4_t sums, float multiplier) {
    return vqmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(vcvtq_f32_s32(sums), multiplier)));
}

/* Results in 16 bits. */
COC_INLINE int16x8_t requantize(int32x4_t low, int32x4_t high, float multiplier, int32_t zero) {
    const int16x8_t words = vcombine_s16(requantize_round(low, multiplier), requantize_round(high, multiplier));
    return vqaddq_s16(words, vdupq_n_s16((int16_t)zero));
}

#endif
