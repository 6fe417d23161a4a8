/* ops.h - the operators that are not convolutions (internal). Definitions: docs/format.md. */
#ifndef COC_OPS_H
#define COC_OPS_H

#include "kernels.h"

/* y = clamp(rint((a * a_factor + b * b_factor - zero) * multiplier) + out_zero, 0, out_max) */
typedef struct {
    int32_t a_factor, b_factor, zero; /* factors are 1 to 128; zero is both zero points, scaled */
    int32_t shift;                    /* multiplier is 2^-shift */
    float multiplier;
    int32_t out_zero, out_max;
} coc_addition;

/* Global average pool: y = clamp(rint((sum of a plane - zero) * multiplier) + out_zero, 0, out_max) */
typedef struct {
    uint32_t channels, plane; /* plane: pixels of one */
    int32_t zero;             /* pixels * zero point, below 2^24 */
    float multiplier;
    int32_t out_zero, out_max;
} coc_global_pool;

/* Maximum or average of the windows of every plane. Maximum: of the codes, padding is 0, the smallest.
 * Average: y = clamp(rint((sum of window - kernel size * in_zero) * multiplier) + out_zero, 0, out_max),
 * padding is in_zero. Kernel height and width are at most 255. */
typedef struct {
    uint32_t channels, in_height, in_width, out_height, out_width;
    uint32_t kernel_height, kernel_width, stride, pad_top, pad_left;
    int32_t in_zero;
    float multiplier;
    int32_t out_zero, out_max;
} coc_window;

/* A part of a concatenation: y = clamp(rint((x - in_zero) * multiplier) + out_zero, 0, out_max) */
typedef struct {
    int copies; /* y = x */
    int32_t in_zero;
    float multiplier; /* a power of two */
    int32_t out_zero, out_max;
} coc_rescaling;

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
    void (*global_pool)(const coc_global_pool *op, const uint8_t *x, uint8_t *y);
    /* scratch: int16 [features]; weights as coc_linear_prepare left them */
    void (*linear)(const coc_linear *op, const int16_t *weights, const uint8_t *x, float *y, int16_t *scratch);
    /* scratch: coc_window_scratch bytes */
    void (*max_pool)(const coc_window *op, const uint8_t *x, uint8_t *y, void *scratch);
    void (*average_pool)(const coc_window *op, const uint8_t *x, uint8_t *y, void *scratch);
    void (*rescale)(const coc_rescaling *op, const uint8_t *x, uint8_t *y, size_t count);
} coc_ops;

size_t coc_window_scratch(const coc_window *op);

const coc_ops *coc_ops_of(coc_level level);

/* Adds the first codes, as many as it can do faster than ops.c; their number, which may be 0. */
size_t coc_add_avx2(const coc_addition *op, const uint8_t *a, const uint8_t *b, uint8_t *y, size_t count);

/* Packed codes as integers: int16 [count]. */
void coc_decode(const uint8_t *codes, uint32_t bits, coc_encoding encoding, size_t count, int16_t *integers);

/* Maximum softmax probability, 1 / sum_i exp(l_i - max l), summed in index order; and the first maximum. */
float coc_confidence(const float *logits, uint32_t classes);
uint32_t coc_argmax(const float *logits, uint32_t classes);

/* Minus the largest difference between outputs and those of the exit before; -INFINITY where `before` is NULL. */
float coc_agreement(const float *outputs, const float *before, uint32_t count);

#endif
