/* ops.c - addition, pools, concatenation, linear layers, the gate. */
#include "ops.h"

#include <float.h>
#include <math.h>
#include <string.h>

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

COC_INLINE void global_pool_body(const coc_global_pool *op, const uint8_t *restrict x, uint8_t *restrict y) {
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

/* Columns that the windows of a row span, padding included. */
static size_t window_span(const coc_window *op) {
    return (size_t)(op->out_width - 1) * op->stride + op->kernel_width;
}

/* A line of the span's columns, at most 255 rows of codes each, and a row of window sums. */
size_t coc_window_scratch(const coc_window *op) {
    return op->out_width * sizeof(int32_t) + window_span(op) * sizeof(uint16_t);
}

/* Rows [first, last) of the image that the windows of output row `row` hold, at least one. */
static void window_rows(const coc_window *op, size_t row, size_t *first, size_t *last) {
    const size_t begin = row * op->stride, end = begin + op->kernel_height - op->pad_top;
    *first = begin > op->pad_top ? begin - op->pad_top : 0;
    *last = end < op->in_height ? end : op->in_height;
}

/* How many columns of the image the windows span. */
static size_t window_columns(const coc_window *op) {
    const size_t columns = window_span(op) - op->pad_left;
    return columns < op->in_width ? columns : op->in_width;
}

COC_INLINE uint8_t larger(uint8_t a, uint8_t b) {
    return a > b ? a : b;
}

/* y[i] = the largest of line[i * stride] and the kernel_width - 1 that follow it */
COC_INLINE void slide_max(const uint8_t *restrict line, size_t count, size_t stride, size_t kernel,
                          uint8_t *restrict y) {
    for (size_t i = 0; i < count; i++)
        y[i] = line[i * stride];
    for (size_t k = 1; k < kernel; k++)
        for (size_t i = 0; i < count; i++)
            y[i] = larger(line[i * stride + k], y[i]);
}

COC_INLINE void slide_sum(const uint16_t *restrict line, size_t count, size_t stride, size_t kernel,
                          int32_t *restrict sums) {
    for (size_t i = 0; i < count; i++)
        sums[i] = line[i * stride];
    for (size_t k = 1; k < kernel; k++)
        for (size_t i = 0; i < count; i++)
            sums[i] += line[i * stride + k];
}

COC_INLINE void max_pool_body(const coc_window *op, const uint8_t *restrict x, uint8_t *restrict y,
                              void *restrict scratch) {
    const size_t span = window_span(op), columns = window_columns(op), width = op->out_width;
    uint8_t *restrict line = scratch;
    memset(line, 0, span);
    for (size_t channel = 0; channel < op->channels; channel++, x += (size_t)op->in_height * op->in_width)
        for (size_t row = 0; row < op->out_height; row++, y += width) {
            size_t first, last;
            window_rows(op, row, &first, &last);
            memcpy(line + op->pad_left, x + first * op->in_width, columns);
            for (size_t r = first + 1; r < last; r++) {
                const uint8_t *from = x + r * op->in_width;
                uint8_t *to = line + op->pad_left;
                for (size_t i = 0; i < columns; i++)
                    to[i] = larger(from[i], to[i]);
            }
            if (op->stride == 1)
                slide_max(line, width, 1, op->kernel_width, y);
            else if (op->stride == 2)
                slide_max(line, width, 2, op->kernel_width, y);
            else
                slide_max(line, width, op->stride, op->kernel_width, y);
        }
}

/* Sums of columns fit 16 bits: 255 rows of codes up to 255. */
COC_INLINE void average_pool_body(const coc_window *op, const uint8_t *restrict x, uint8_t *restrict y,
                                  void *restrict scratch) {
    const coc_window use = *op;
    const size_t span = window_span(op), columns = window_columns(op), width = use.out_width;
    const uint32_t column_zero = use.kernel_height * (uint32_t)use.in_zero;
    const int32_t zero = (int32_t)(use.kernel_width * column_zero);
    int32_t *restrict sums = scratch;
    uint16_t *restrict line = (uint16_t *)(void *)(sums + width);
    for (size_t i = 0; i < span; i++)
        line[i] = (uint16_t)column_zero;
    for (size_t channel = 0; channel < use.channels; channel++, x += (size_t)use.in_height * use.in_width)
        for (size_t row = 0; row < use.out_height; row++, y += width) {
            size_t first, last;
            window_rows(op, row, &first, &last);
            uint16_t *to = line + use.pad_left;
            const uint32_t outside = use.kernel_height - (uint32_t)(last - first);
            for (size_t i = 0; i < columns; i++)
                to[i] = (uint16_t)(outside * (uint32_t)use.in_zero);
            for (size_t r = first; r < last; r++) {
                const uint8_t *from = x + r * use.in_width;
                for (size_t i = 0; i < columns; i++)
                    to[i] = (uint16_t)(to[i] + from[i]);
            }
            if (use.stride == 1)
                slide_sum(line, width, 1, use.kernel_width, sums);
            else if (use.stride == 2)
                slide_sum(line, width, 2, use.kernel_width, sums);
            else
                slide_sum(line, width, use.stride, use.kernel_width, sums);
            for (size_t i = 0; i < width; i++)
                y[i] = coc_requantize(sums[i] - zero, use.multiplier, use.out_zero, use.out_max);
        }
}

COC_INLINE void rescale_body(const coc_rescaling *op, const uint8_t *restrict x, uint8_t *restrict y,
                             size_t count) {
    const coc_rescaling use = *op;
    if (use.copies) {
        memcpy(y, x, count);
        return;
    }
    for (size_t i = 0; i < count; i++)
        y[i] = coc_requantize(x[i] - use.in_zero, use.multiplier, use.out_zero, use.out_max);
}

/* add_first: adds some codes from the beginning; returns their number. */
#define COC_OPS(level, target, add_first)                                                                      \
    target static void add_##level(const coc_addition *op, const uint8_t *a, const uint8_t *b, uint8_t *y,    \
                                   size_t count) {                                                             \
        const size_t done = add_first(op, a, b, y, count);                                                     \
        add_body(op, a + done, b + done, y + done, count - done);                                              \
    }                                                                                                          \
    target static void global_pool_##level(const coc_global_pool *op, const uint8_t *x, uint8_t *y) {          \
        global_pool_body(op, x, y);                                                                            \
    }                                                                                                          \
    target static void linear_##level(const coc_linear *op, const int16_t *weights, const uint8_t *x,          \
                                      float *y, int16_t *scratch) {                                            \
        linear_body(op, weights, x, y, scratch);                                                               \
    }                                                                                                          \
    target static void max_pool_##level(const coc_window *op, const uint8_t *x, uint8_t *y, void *scratch) {   \
        max_pool_body(op, x, y, scratch);                                                                      \
    }                                                                                                          \
    target static void average_pool_##level(const coc_window *op, const uint8_t *x, uint8_t *y,                \
                                            void *scratch) {                                                   \
        average_pool_body(op, x, y, scratch);                                                                  \
    }                                                                                                          \
    target static void rescale_##level(const coc_rescaling *op, const uint8_t *x, uint8_t *y, size_t count) {  \
        rescale_body(op, x, y, count);                                                                         \
    }                                                                                                          \
    static const coc_ops ops_##level = {add_##level,      global_pool_##level,  linear_##level,                \
                                        max_pool_##level, average_pool_##level, rescale_##level};

#define NONE(op, a, b, y, count) 0
COC_OPS(any, , NONE)
#if defined(__x86_64__) && defined(__GNUC__)
COC_OPS(avx2, __attribute__((target("avx2"))), coc_add_avx2)
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

float coc_agreement(const float *outputs, const float *before, uint32_t count) {
    if (before == NULL)
        return -INFINITY;
    float largest = 0;
    for (uint32_t i = 0; i < count; i++) {
        const float difference = fabsf(outputs[i] - before[i]);
        largest = difference > largest ? difference : largest;
    }
    return -largest;
}
