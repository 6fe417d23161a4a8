/* max_pool.c - the largest code of every window; padding is 0, the smallest. */
#include "ops/windows.h"

#include <string.h>

COC_OWN_FITS(coc_window);

static coc_status shape(const coc_row *row, const coc_tensor *const *x, coc_node *node, coc_tensor *y) {
    return coc_window_shape(row, x[0], COC_OWN(coc_window, node), y);
}

/* A line. */
static coc_need need(const coc_node *node, coc_level level) {
    (void)level;
    return (coc_need){.scratch = coc_window_span(COC_OWN(coc_window, node))};
}

COC_INLINE uint8_t larger(uint8_t a, uint8_t b) {
    return a > b ? a : b;
}

/* y[i] = the largest of line[i * stride] and the kernel_width - 1 that follow it */
COC_INLINE void slide(const uint8_t *restrict line, size_t count, size_t stride, size_t kernel,
                      uint8_t *restrict y) {
    for (size_t i = 0; i < count; i++)
        y[i] = line[i * stride];
    for (size_t k = 1; k < kernel; k++)
        for (size_t i = 0; i < count; i++)
            y[i] = larger(line[i * stride + k], y[i]);
}

COC_INLINE void pool(const coc_window *op, const uint8_t *restrict x, uint8_t *restrict y,
                     void *restrict scratch) {
    const size_t span = coc_window_span(op), columns = coc_window_columns(op), width = op->out_width;
    uint8_t *restrict line = scratch;
    memset(line, 0, span);
    for (size_t channel = 0; channel < op->channels; channel++, x += (size_t)op->in_height * op->in_width)
        for (size_t row = 0; row < op->out_height; row++, y += width) {
            size_t first, last;
            coc_window_rows(op, row, &first, &last);
            memcpy(line + op->pad_left, x + first * op->in_width, columns);
            for (size_t r = first + 1; r < last; r++) {
                const uint8_t *from = x + r * op->in_width;
                uint8_t *to = line + op->pad_left;
                for (size_t i = 0; i < columns; i++)
                    to[i] = larger(from[i], to[i]);
            }
            if (op->across == 1)
                slide(line, width, 1, op->kernel_width, y);
            else if (op->across == 2)
                slide(line, width, 2, op->kernel_width, y);
            else
                slide(line, width, op->across, op->kernel_width, y);
        }
}

COC_INLINE void run(const coc_call *call) {
    pool(COC_OWN(coc_window, call->node), call->x[0], call->y, call->scratch);
}

COC_VERSIONS(run)

const coc_op coc_op_max_pool = {
    .inputs = 1,
    .since = 1,
    .fields = COC_WINDOW,
    .keeps_type = 1,
    .shape = shape,
    .need = need,
    .run = COC_RUN(run),
};
