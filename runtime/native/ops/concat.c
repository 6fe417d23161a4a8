/* concat.c - the channels of two images. */
#include "ops/operator.h"

#include <math.h>
#include <string.h>

/* A part of a concatenation: y = clamp(rint((x - in_zero) * multiplier) + out_zero, 0, out_max) */
typedef struct {
    size_t count; /* codes */
    int copies;   /* y = x */
    int32_t in_zero;
    float multiplier; /* a power of two */
    int32_t out_zero, out_max;
} rescaling;

typedef struct {
    rescaling part[2];
} concatenation;

COC_OWN_FITS(concatenation);

static coc_status shape(const coc_row *row, const coc_tensor *const *x, coc_node *node, coc_tensor *y) {
    const coc_tensor *a = x[0], *b = x[1];
    (void)row;
    (void)node;
    if (a->rank != 3 || b->rank != 3 || a->height != b->height || a->width != b->width)
        return COC_ERROR_MALFORMED;
    coc_set_shape(y, 3, a->channels + b->channels, a->height, a->width);
    return COC_OK;
}

static rescaling rescaling_of(const coc_tensor *x, const coc_tensor *y) {
    return (rescaling){
        .count = (size_t)coc_elements(x),
        .copies = x->exponent == y->exponent && x->zero == y->zero && x->bits <= y->bits,
        .in_zero = x->zero,
        .multiplier = ldexpf(1.0f, x->exponent - y->exponent),
        .out_zero = y->zero,
        .out_max = coc_max_code(y),
    };
}

static coc_status bind(coc_parameters *at, const coc_tensor *const *x, const coc_tensor *y, coc_node *node) {
    concatenation *own = COC_OWN(concatenation, node);
    (void)at;
    for (int i = 0; i < 2; i++)
        own->part[i] = rescaling_of(x[i], y);
    return COC_OK;
}

COC_INLINE void rescale(const rescaling *op, const uint8_t *restrict x, uint8_t *restrict y) {
    const rescaling use = *op;
    if (use.copies) {
        memcpy(y, x, use.count);
        return;
    }
    for (size_t i = 0; i < use.count; i++)
        y[i] = coc_requantize(x[i] - use.in_zero, use.multiplier, use.out_zero, use.out_max);
}

COC_INLINE void run(const coc_call *call) {
    const concatenation *own = COC_OWN(concatenation, call->node);
    uint8_t *y = call->y;
    for (int i = 0; i < 2; i++) {
        rescale(&own->part[i], call->x[i], y);
        y += own->part[i].count;
    }
}

COC_VERSIONS(run)

const coc_op coc_op_concat = {
    .inputs = 2,
    .since = 1,
    .shape = shape,
    .bind = bind,
    .run = COC_RUN(run),
};
