/* conv_shared.h - what the vector convolution kernels share: integer weights and small arithmetic (internal). */
#ifndef COC_CONV_SHARED_H
#define COC_CONV_SHARED_H

#include "kernels.h"

#include <string.h>

#define COC_INLINE static inline __attribute__((always_inline))

static inline size_t coc_round_up(size_t value, size_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

static inline uint32_t coc_min(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

static inline uint32_t coc_divide_up(uint32_t a, uint32_t b) {
    return (a + b - 1) / b;
}

/* Weight number `index` in the order of the packed codes. */
static inline int32_t coc_weight(const coc_conv *layer, size_t index) {
    return coc_integer(coc_code(layer->codes, layer->weight_bits, index), layer->weight_bits, layer->encoding);
}

/* The zero point is a code, and |sum + bias| times a multiplier is below 2^30: what vector kernels rely on. */
static inline int coc_simple_numbers(const coc_conv *layer) {
    if (layer->in_bits < 1 || layer->in_bits > 8 || layer->in_zero < 0 || layer->in_zero >= 1 << layer->in_bits)
        return 0;
    const float most = layer->wide ? 0.5f : 64.0f;
    for (uint32_t out = 0; out < layer->out_channels; out++)
        if (!(layer->multiplier[out] < most && layer->multiplier[out] > -most))
            return 0;
    return 1;
}

/* Copies `count` bytes, at most `most`; the sizes that images have compile to one or two moves. */
COC_INLINE void coc_copy_row(uint8_t *target, const uint8_t *source, uint32_t count, uint32_t most) {
    if (count == 4 && most >= 4)
        memcpy(target, source, 4);
    else if (count == 8 && most >= 8)
        memcpy(target, source, 8);
    else if (count == 16 && most >= 16)
        memcpy(target, source, 16);
    else if (count == 32 && most >= 32)
        memcpy(target, source, 32);
    else
        for (uint32_t i = 0; i < count; i++)
            target[i] = source[i];
}

/* coc_copy_row for one row of each of `planes` planes, which are `source_step` bytes apart; `count` is decided once. */
static inline void coc_copy_rows(uint8_t *target, size_t target_step, const uint8_t *source, size_t source_step,
                                 uint32_t planes, uint32_t count) {
#define COC_COPY(bytes)                                                                                                \
    for (uint32_t i = 0; i < planes; i++, target += target_step, source += source_step)                                \
        memcpy(target, source, bytes)
    switch (count) {
    case 4: COC_COPY(4); break;
    case 8: COC_COPY(8); break;
    case 16: COC_COPY(16); break;
    case 32: COC_COPY(32); break;
    default: COC_COPY(count);
    }
#undef COC_COPY
}

#endif
