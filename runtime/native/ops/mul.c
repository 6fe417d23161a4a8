/* mul.c - products of two tensors, or of an image's channels with a number each. */
#include "ops/operator.h"

#include <math.h>

/* y = clamp(rint((a - a_zero) * (b - b_zero) * multiplier) + out_zero, 0, out_max) */
typedef struct {
    int gates;              /* b has one code for each channel of a */
    size_t channels, count; /* codes of a channel; without gates there is one channel of all codes */
    int32_t a_zero, b_zero;
    float multiplier; /* a power of two */
    int32_t out_zero, out_max;
} product;

COC_OWN_FITS(product);

static coc_status shape(const coc_row *row, const coc_tensor *const *x, coc_node *node, coc_tensor *y) {
    const coc_tensor *a = x[0], *b = x[1];
    (void)row;
    if (a->rank != b->rank || a->channels != b->channels)
        return COC_ERROR_MALFORMED;
    const int same = a->height == b->height && a->width == b->width;
    if (!same && (b->height != 1 || b->width != 1))
        return COC_ERROR_MALFORMED;
    coc_set_shape(y, a->rank, a->channels, a->height, a->width);
    *COC_OWN(product, node) = (product){
        .channels = same ? 1 : a->channels,
        .count = same ? (size_t)coc_elements(a) : coc_pixels(a),
        .gates = !same,
    };
    return COC_OK;
}

static coc_status bind(coc_parameters *at, const coc_tensor *const *x, const coc_tensor *y, coc_node *node) {
    product *own = COC_OWN(product, node);
    (void)at;
    own->a_zero = x[0]->zero;
    own->b_zero = x[1]->zero;
    own->multiplier = ldexpf(1.0f, x[0]->exponent + x[1]->exponent - y->exponent);
    own->out_zero = y->zero;
    own->out_max = coc_max_code(y);
    return COC_OK;
}

COC_INLINE void multiply(const product *op, const uint8_t *restrict a, const uint8_t *restrict b,
                         uint8_t *restrict y) {
    const product use = *op;
    for (size_t i = 0; i < use.count; i++)
        y[i] = coc_requantize((a[i] - use.a_zero) * (b[i] - use.b_zero), use.multiplier, use.out_zero, use.out_max);
}

COC_INLINE void scale(const product *op, const uint8_t *restrict a, uint8_t gate, uint8_t *restrict y) {
    const product use = *op;
    const int32_t factor = gate - use.b_zero;
    for (size_t i = 0; i < use.count; i++)
        y[i] = coc_requantize((a[i] - use.a_zero) * factor, use.multiplier, use.out_zero, use.out_max);
}

COC_INLINE void run(const coc_call *call) {
    const product *own = COC_OWN(product, call->node);
    const uint8_t *a = call->x[0], *b = call->x[1];
    uint8_t *y = call->y;
    if (!own->gates)
        multiply(own, a, b, y);
    else
        for (size_t channel = 0; channel < own->channels; channel++)
            scale(own, a + channel * own->count, b[channel], y + channel * own->count);
}

COC_VERSIONS(run)

const coc_op coc_op_mul = {
    .inputs = 2,
    .since = 2,
    .shape = shape,
    .bind = bind,
    .run = COC_RUN(run),
};
