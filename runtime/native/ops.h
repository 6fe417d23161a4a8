/* ops.h - the operators that are not convolutions (internal). Definitions: docs/format.md. */
#ifndef COC_OPS_H
#define COC_OPS_H

#include "kernels.h"

/* y = clamp(rint((a * a_factor + b * b_factor - zero) * multiplier) + out_zero, 0, out_max) */
typedef struct {
    int32_t a_factor, b_factor, zero; /* factors are 1 to 128; zero is both zero points, scaled */
    float multiplier;
    int32_t out_zero, out_max;
} coc_addition;

/* y = clamp(rint((sum of a plane - zero) * multiplier) + out_zero, 0, out_max) */
typedef struct {
    uint32_t channels, plane; /* plane: pixels of one */
    int32_t zero;             /* pixels * zero point, below 2^24 */
    float multiplier;
    int32_t out_zero, out_max;
} coc_pooling;

/* y = (sum of weight * (x - in_zero) + bias) * scale; the loader bounds the sums by 2^24 */
typedef struct {
    uint32_t features, classes;
    uint32_t weight_bits;
    coc_encoding encoding;
    int32_t in_zero;
    const uint8_t *codes; /* [classes][features], packed as in coc_conv */
    const int32_t *bias;
    float scale; /* a power of two */
} coc_linear;

/* The same functions compiled for a level of the CPU. */
typedef struct {
    void (*add)(const coc_addition *op, const uint8_t *a, const uint8_t *b, uint8_t *y, size_t count);
    void (*pool)(const coc_pooling *op, const uint8_t *x, uint8_t *y);
    /* scratch: int16 [features]; weights as coc_linear_prepare left them */
    void (*linear)(const coc_linear *op, const int16_t *weights, const uint8_t *x, float *y, int16_t *scratch);
} coc_ops;

const coc_ops *coc_ops_of(coc_level level);

/* Packed codes as integers: int16 [count]. */
void coc_decode(const uint8_t *codes, uint32_t bits, coc_encoding encoding, size_t count, int16_t *integers);

/* Maximum softmax probability, 1 / sum_i exp(l_i - max l), summed in index order; and the first maximum. */
float coc_confidence(const float *logits, uint32_t classes);
uint32_t coc_argmax(const float *logits, uint32_t classes);

#endif
