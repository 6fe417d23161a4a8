/* flatten.c - an image as a vector: the same codes. */
#include "ops/operator.h"

#include <string.h>

COC_OWN_FITS(size_t); /* codes */

static coc_status shape(const coc_row *row, const coc_tensor *const *x, coc_node *node, coc_tensor *y) {
    (void)row;
    if (x[0]->rank != 3)
        return COC_ERROR_MALFORMED;
    coc_set_shape(y, 1, (uint32_t)coc_elements(x[0]), 1, 1);
    *COC_OWN(size_t, node) = (size_t)coc_elements(x[0]);
    return COC_OK;
}

static void run(const coc_call *call) {
    memcpy(call->y, call->x[0], *COC_OWN(size_t, call->node));
}

const coc_op coc_op_flatten = {
    .inputs = 1,
    .since = 1,
    .keeps_type = 1,
    .shape = shape,
    .run = {run, run},
};
