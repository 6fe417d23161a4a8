/* select.c - channels of an image, or values of a vector, in any order. */
#include "bytes.h"
#include "ops/operator.h"

#include <string.h>

/* channel i of y = channel indices[i] of x */
typedef struct {
    size_t count, plane;
    const uint8_t *indices; /* 4 bytes each, little-endian */
} selection;

COC_OWN_FITS(selection);

static coc_status shape(const coc_row *row, const coc_tensor *const *x, coc_node *node, coc_tensor *y) {
    coc_set_shape(y, x[0]->rank, row->out_channels, x[0]->height, x[0]->width);
    *COC_OWN(selection, node) = (selection){.count = row->out_channels, .plane = coc_pixels(x[0])};
    return COC_OK;
}

static coc_status bind(coc_parameters *at, const coc_tensor *const *x, const coc_tensor *y, coc_node *node) {
    selection *own = COC_OWN(selection, node);
    const coc_status status = coc_take_codes(at, 4 * (uint64_t)own->count, 8, &own->indices);
    (void)y;
    for (size_t i = 0; status == COC_OK && i < own->count; i++)
        if (get32(own->indices + 4 * i) >= x[0]->channels)
            return COC_ERROR_MALFORMED;
    return status;
}

static void run(const coc_call *call) {
    const selection *own = COC_OWN(selection, call->node);
    uint8_t *y = call->y;
    for (size_t i = 0; i < own->count; i++, y += own->plane)
        memcpy(y, call->x[0] + get32(own->indices + 4 * i) * own->plane, own->plane);
}

const coc_op coc_op_select = {
    .inputs = 1,
    .since = 2,
    .fields = COC_COUNT,
    .keeps_type = 1,
    .shape = shape,
    .bind = bind,
    .run = {run, run},
};
