/* ops.c - addition, average pooling, linear layers, the gate. */
#include "ops.h"

#include <float.h>
#include <math.h>

_Static_assert(FLT_EVAL_METHOD == 0, "float arithmetic must be single precision: use -msse2 -mfpmath=sse");

#if defined(__GNUC__)
#define COC_INLINE static inline __attribute__((always_inline))
#else
#define COC_INLINE static inline
#endif

COC_INLINE void add_body(const coc_addition *op, const uint8_t *restrict a, const uint8_t *restrict b,
                         uint8_t *restrict y, size_t count) {
    const coc_addition use = *op;
    for (size_t i = 0; i < count; i++) {
        int32_t sum = a[i] * use.a_factor + b[i] * use.b_factor - use.zero;
        y[i] = coc_requantize(sum, use.multiplier, use.out_zero, use.out_max);
    }
}

COC_INLINE void pool_body(const coc_pooling *op, const uint8_t *restrict x, uint8_t *restrict y) {
    for (size_t channel = 0; channel < op->channels; channel++) {
        const uint8_t *plane = x + channel * op->plane;
        uint32_t sum = 0;
        for (size_t i = 0; i < op->plane; i++)
            sum += plane[i];
        y[channel] = coc_requantize((int32_t)sum - op->zero, op->multiplier, op->out_zero, op->out_max);
    }
}

COC_INLINE void linear_body(const coc_linear *op, const int16_t *restrict weights, const uint8_t *restrict x,
                            float *restrict y, int16_t *restrict scratch) {
    const size_t features = op->features;
    for (size_t i = 0; i < features; i++)
        scratch[i] = (int16_t)(x[i] - op->in_zero);
    for (size_t out = 0; out < op->classes; out++) {
        const int16_t *row = weights + out * features;
        int32_t sum = 0;
        for (size_t i = 0; i < features; i++)
            sum += (int32_t)row[i] * (int32_t)scratch[i];
        y[out] = (float)(sum + op->bias[out]) * op->scale;
    }
}

#define COC_OPS(level, target)                                                                                 \
    target static void add_##level(const coc_addition *op, const uint8_t *a, const uint8_t *b, uint8_t *y,    \
                                   size_t count) {                                                             \
        add_body(op, a, b, y, count);                                                                          \
    }                                                                                                          \
    target static void pool_##level(const coc_pooling *op, const uint8_t *x, uint8_t *y) {                     \
        pool_body(op, x, y);                                                                                   \
    }                                                                                                          \
    target static void linear_##level(const coc_linear *op, const int16_t *weights, const uint8_t *x,          \
                                      float *y, int16_t *scratch) {                                            \
        linear_body(op, weights, x, y, scratch);                                                               \
    }                                                                                                          \
    static const coc_ops ops_##level = {add_##level, pool_##level, linear_##level};

COC_OPS(any, )
#if defined(__x86_64__) && defined(__GNUC__)
COC_OPS(avx2, __attribute__((target("avx2"))))
#endif

const coc_ops *coc_ops_of(coc_level level) {
#if defined(__x86_64__) && defined(__GNUC__)
    if (level == COC_AVX2 || level == COC_AVX512)
        return &ops_avx2;
#endif
    (void)level;
    return &ops_any;
}

void coc_decode(const uint8_t *codes, uint32_t bits, coc_encoding encoding, size_t count, int16_t *integers) {
    for (size_t i = 0; i < count; i++)
        integers[i] = (int16_t)coc_integer(coc_code(codes, bits, i), bits, encoding);
}

uint32_t coc_argmax(const float *logits, uint32_t classes) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < classes; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

float coc_confidence(const float *logits, uint32_t classes) {
    const float largest = logits[coc_argmax(logits, classes)];
    float sum = 0;
    for (uint32_t i = 0; i < classes; i++)
        sum += expf(logits[i] - largest);
    return 1.0f / sum;
}
