/* logits.c - a vector of codes as logits. */
#include "ops/operator.h"

#include <math.h>

/* y = (x - zero) * scale */
typedef struct {
    size_t count;
    int32_t zero;
    float scale; /* a power of two */
} values;

COC_OWN_FITS(values);

static coc_status shape(const coc_row *row, const coc_tensor *const *x, coc_node *node, coc_tensor *y) {
    (void)row;
    if (x[0]->rank != 1 || y->exponent != x[0]->exponent)
        return COC_ERROR_MALFORMED;
    coc_set_shape(y, 1, x[0]->channels, 1, 1);
    *COC_OWN(values, node) = (values){
        .count = x[0]->channels,
        .zero = x[0]->zero,
        .scale = ldexpf(1.0f, x[0]->exponent),
    };
    return COC_OK;
}

static void run(const coc_call *call) {
    const values *own = COC_OWN(values, call->node);
    float *y = call->y;
    for (size_t i = 0; i < own->count; i++)
        y[i] = (float)(call->x[0][i] - own->zero) * own->scale;
}

const coc_op coc_op_logits = {
    .inputs = 1,
    .since = 2,
    .gives_logits = 1,
    .shape = shape,
    .run = {run, run},
};
