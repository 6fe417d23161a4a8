/* uneven.h - means of windows that hold different numbers of pixels (internal). */
#ifndef COC_UNEVEN_H
#define COC_UNEVEN_H

#include "ops/windows.h"

#include <math.h>

/* y = clamp(rint((sum of window - pixels * in_zero) * (1 / pixels * step)) + out_zero, 0, out_max) */
typedef struct {
    coc_window window; /* of a grid, its sizes alone */
    int32_t in_zero;
    float step;
    int32_t out_zero, out_max;
} coc_uneven;

COC_OWN_FITS(coc_uneven);

typedef struct {
    uint32_t first, last; /* pixels [first, last) */
} coc_span;

/* The rows or the columns of window i. */
typedef coc_span coc_spans(const coc_window *window, uint32_t i);

static inline coc_status coc_uneven_bind(coc_parameters *at, const coc_tensor *const *x, const coc_tensor *y,
                                         coc_node *node) {
    coc_uneven *own = COC_OWN(coc_uneven, node);
    (void)at;
    own->in_zero = x[0]->zero;
    own->step = ldexpf(1.0f, x[0]->exponent - y->exponent);
    own->out_zero = y->zero;
    own->out_max = coc_max_code(y);
    return COC_OK;
}

/* A line of sums of columns. */
static inline coc_need coc_uneven_need(const coc_node *node, coc_level level) {
    (void)level;
    return (coc_need){.scratch = COC_OWN(coc_uneven, node)->window.in_width * sizeof(uint32_t)};
}

COC_INLINE void coc_uneven_run(const coc_call *call, coc_spans rows_of, coc_spans columns_of) {
    const coc_uneven *op = COC_OWN(coc_uneven, call->node);
    const coc_window *w = &op->window;
    const size_t width = w->in_width;
    const uint8_t *restrict x = call->x[0];
    uint8_t *restrict y = call->y;
    uint32_t *restrict line = (uint32_t *)(void *)call->scratch;
    for (uint32_t channel = 0; channel < w->channels; channel++, x += (size_t)w->in_height * width)
        for (uint32_t row = 0; row < w->out_height; row++, y += w->out_width) {
            const coc_span rows = rows_of(w, row);
            for (size_t i = 0; i < width; i++)
                line[i] = 0;
            for (size_t r = rows.first; r < rows.last; r++)
                for (size_t i = 0; i < width; i++)
                    line[i] += x[r * width + i];
            for (uint32_t column = 0; column < w->out_width; column++) {
                const coc_span columns = columns_of(w, column);
                const uint32_t count = (rows.last - rows.first) * (columns.last - columns.first);
                uint32_t sum = 0;
                for (uint32_t i = columns.first; i < columns.last; i++)
                    sum += line[i];
                y[column] = coc_requantize((int32_t)sum - (int32_t)count * op->in_zero,
                                           1.0f / (float)count * op->step, op->out_zero, op->out_max);
            }
        }
}

#endif
