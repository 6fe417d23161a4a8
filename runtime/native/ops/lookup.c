/* lookup.c - a function of single codes, as a table of what every code becomes. */
#include "ops/operator.h"

/* y = table[x]; all channels have one table, or each its own */
typedef struct {
    size_t count; /* codes that have one table */
    uint32_t tables, bits;
    const uint8_t *table; /* [tables][1 << bits] */
} lookup;

COC_OWN_FITS(lookup);

static coc_status shape(const coc_row *row, const coc_tensor *const *x, coc_node *node, coc_tensor *y) {
    const uint32_t tables = row->out_channels;
    if (tables != 1 && tables != x[0]->channels)
        return COC_ERROR_MALFORMED;
    coc_set_shape(y, x[0]->rank, x[0]->channels, x[0]->height, x[0]->width);
    *COC_OWN(lookup, node) = (lookup){
        .count = (size_t)coc_elements(x[0]) / tables,
        .tables = tables,
        .bits = x[0]->bits,
    };
    return COC_OK;
}

static coc_status bind(coc_parameters *at, const coc_tensor *const *x, const coc_tensor *y, coc_node *node) {
    lookup *own = COC_OWN(lookup, node);
    const size_t entries = (size_t)own->tables << own->bits;
    const coc_status status = coc_take_codes(at, entries, 8, &own->table);
    (void)x;
    for (size_t i = 0; status == COC_OK && i < entries; i++)
        if (own->table[i] > coc_max_code(y))
            return COC_ERROR_MALFORMED;
    return status;
}

static void run(const coc_call *call) {
    const lookup *own = COC_OWN(lookup, call->node);
    const uint8_t *restrict x = call->x[0];
    uint8_t *restrict y = call->y;
    for (size_t part = 0; part < own->tables; part++, x += own->count, y += own->count) {
        const uint8_t *restrict table = own->table + (part << own->bits);
        for (size_t i = 0; i < own->count; i++)
            y[i] = table[x[i]];
    }
}

const coc_op coc_op_lookup = {
    .inputs = 1,
    .since = 2,
    .fields = COC_COUNT,
    .shape = shape,
    .bind = bind,
    .run = {run, run},
};
