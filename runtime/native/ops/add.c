/* add.c - addition of two tensors of one shape. */
#include "ops/add.h"
#include "ops/operator.h"

#include <math.h>
#include <stdlib.h>

COC_OWN_FITS(coc_addition);

static coc_status shape(const coc_row *row, const coc_tensor *const *x, coc_node *node, coc_tensor *y) {
    const coc_tensor *a = x[0], *b = x[1];
    (void)row;
    if (a->rank != b->rank || a->channels != b->channels || a->height != b->height || a->width != b->width)
        return COC_ERROR_MALFORMED;
    if (abs(a->exponent - b->exponent) > COC_MAX_SHIFT)
        return COC_ERROR_MALFORMED;
    coc_set_shape(y, a->rank, a->channels, a->height, a->width);
    COC_OWN(coc_addition, node)->count = (size_t)coc_elements(a);
    return COC_OK;
}

static coc_status bind(coc_parameters *at, const coc_tensor *const *x, const coc_tensor *y, coc_node *node) {
    const coc_tensor *a = x[0], *b = x[1];
    coc_addition *own = COC_OWN(coc_addition, node);
    const int32_t fine = a->exponent < b->exponent ? a->exponent : b->exponent;
    (void)at;
    own->a_factor = 1 << (a->exponent - fine);
    own->b_factor = 1 << (b->exponent - fine);
    own->zero = a->zero * own->a_factor + b->zero * own->b_factor;
    own->shift = y->exponent - fine;
    own->multiplier = ldexpf(1.0f, fine - y->exponent);
    own->out_zero = y->zero;
    own->out_max = coc_max_code(y);
    return COC_OK;
}

/* Codes from `first` on. */
COC_INLINE void add(const coc_addition *op, const uint8_t *restrict a, const uint8_t *restrict b,
                    uint8_t *restrict y, size_t first) {
    const coc_addition use = *op;
    for (size_t i = first; i < use.count; i++) {
        int32_t sum = a[i] * use.a_factor + b[i] * use.b_factor - use.zero;
        y[i] = coc_requantize(sum, use.multiplier, use.out_zero, use.out_max);
    }
}

static void run_any(const coc_call *call) {
    add(COC_OWN(coc_addition, call->node), call->x[0], call->x[1], call->y, 0);
}

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("avx2"))) static void run_avx2(const coc_call *call) {
    const coc_addition *op = COC_OWN(coc_addition, call->node);
    add(op, call->x[0], call->x[1], call->y, coc_add_avx2(op, call->x[0], call->x[1], call->y));
}
#else
#define run_avx2 run_any
#endif

const coc_op coc_op_add = {
    .inputs = 2,
    .since = 1,
    .shape = shape,
    .bind = bind,
    .run = {run_any, run_avx2},
};
