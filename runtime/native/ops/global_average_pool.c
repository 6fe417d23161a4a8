/* global_average_pool.c - the mean of every channel. */
#include "ops/operator.h"

#include <math.h>

/* y = clamp(rint((sum of a plane - zero) * multiplier) + out_zero, 0, out_max) */
typedef struct {
    uint32_t channels, plane; /* plane: pixels of one */
    int32_t zero;             /* pixels * zero point, below 2^24 */
    float multiplier;
    int32_t out_zero, out_max;
} global_pool;

COC_OWN_FITS(global_pool);

static coc_status shape(const coc_row *row, const coc_tensor *const *x, coc_node *node, coc_tensor *y) {
    (void)row;
    (void)node;
    if (x[0]->rank != 3 || ((uint64_t)coc_pixels(x[0]) << x[0]->bits) > COC_EXACT_LIMIT)
        return COC_ERROR_MALFORMED;
    coc_set_shape(y, 1, x[0]->channels, 1, 1);
    return COC_OK;
}

static coc_status bind(coc_parameters *at, const coc_tensor *const *x, const coc_tensor *y, coc_node *node) {
    const uint32_t pixels = (uint32_t)coc_pixels(x[0]);
    (void)at;
    *COC_OWN(global_pool, node) = (global_pool){
        .channels = x[0]->channels,
        .plane = pixels,
        .zero = (int32_t)pixels * x[0]->zero,
        .multiplier = ldexpf(1.0f / (float)pixels, x[0]->exponent - y->exponent),
        .out_zero = y->zero,
        .out_max = coc_max_code(y),
    };
    return COC_OK;
}

COC_INLINE void pool(const global_pool *op, const uint8_t *restrict x, uint8_t *restrict y) {
    for (size_t channel = 0; channel < op->channels; channel++) {
        const uint8_t *plane = x + channel * op->plane;
        uint32_t sum = 0;
        for (size_t i = 0; i < op->plane; i++)
            sum += plane[i];
        y[channel] = coc_requantize((int32_t)sum - op->zero, op->multiplier, op->out_zero, op->out_max);
    }
}

COC_INLINE void run(const coc_call *call) {
    pool(COC_OWN(global_pool, call->node), call->x[0], call->y);
}

COC_VERSIONS(run)

const coc_op coc_op_global_average_pool = {
    .inputs = 1,
    .since = 1,
    .shape = shape,
    .bind = bind,
    .run = COC_RUN(run),
};
