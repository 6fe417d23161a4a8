/* average_pool.c - the mean of every window; padding is the value 0 and counts. */
#include "ops/windows.h"

#include <math.h>

/* y = clamp(rint((sum of window - kernel size * in_zero) * multiplier) + out_zero, 0, out_max). A window's sum is
 * below 255 * 255 * 2^8 < 2^24. */
typedef struct {
    coc_window window;
    int32_t in_zero;
    float multiplier;
    int32_t out_zero, out_max;
} average;

COC_OWN_FITS(average);

static coc_status shape(const coc_row *row, const coc_tensor *const *x, coc_node *node, coc_tensor *y) {
    return coc_window_shape(row, x[0], &COC_OWN(average, node)->window, y);
}

static coc_status bind(coc_parameters *at, const coc_tensor *const *x, const coc_tensor *y, coc_node *node) {
    average *own = COC_OWN(average, node);
    const uint32_t count = own->window.kernel_height * own->window.kernel_width;
    (void)at;
    own->in_zero = x[0]->zero;
    own->multiplier = ldexpf(1.0f / (float)count, x[0]->exponent - y->exponent);
    own->out_zero = y->zero;
    own->out_max = coc_max_code(y);
    return COC_OK;
}

/* A row of window sums, and a line of sums of at most 255 codes each. */
static coc_need need(const coc_node *node, coc_level level) {
    const coc_window *window = &COC_OWN(average, node)->window;
    (void)level;
    return (coc_need){
        .scratch = window->out_width * sizeof(int32_t) + coc_window_span(window) * sizeof(uint16_t)};
}

COC_INLINE void slide(const uint16_t *restrict line, size_t count, size_t stride, size_t kernel,
                      int32_t *restrict sums) {
    for (size_t i = 0; i < count; i++)
        sums[i] = line[i * stride];
    for (size_t k = 1; k < kernel; k++)
        for (size_t i = 0; i < count; i++)
            sums[i] += line[i * stride + k];
}

/* Sums of columns fit 16 bits: 255 rows of codes up to 255. */
COC_INLINE void pool(const average *op, const uint8_t *restrict x, uint8_t *restrict y, void *restrict scratch) {
    const average own = *op;
    const coc_window use = own.window;
    const size_t span = coc_window_span(&use), columns = coc_window_columns(&use), width = use.out_width;
    const uint32_t column_zero = use.kernel_height * (uint32_t)own.in_zero;
    const int32_t zero = (int32_t)(use.kernel_width * column_zero);
    int32_t *restrict sums = scratch;
    uint16_t *restrict line = (uint16_t *)(void *)(sums + width);
    for (size_t i = 0; i < span; i++)
        line[i] = (uint16_t)column_zero;
    for (size_t channel = 0; channel < use.channels; channel++, x += (size_t)use.in_height * use.in_width)
        for (size_t row = 0; row < use.out_height; row++, y += width) {
            size_t first, last;
            coc_window_rows(&use, row, &first, &last);
            uint16_t *to = line + use.pad_left;
            const uint32_t outside = use.kernel_height - (uint32_t)(last - first);
            for (size_t i = 0; i < columns; i++)
                to[i] = (uint16_t)(outside * (uint32_t)own.in_zero);
            for (size_t r = first; r < last; r++) {
                const uint8_t *from = x + r * use.in_width;
                for (size_t i = 0; i < columns; i++)
                    to[i] = (uint16_t)(to[i] + from[i]);
            }
            if (use.across == 1)
                slide(line, width, 1, use.kernel_width, sums);
            else if (use.across == 2)
                slide(line, width, 2, use.kernel_width, sums);
            else
                slide(line, width, use.across, use.kernel_width, sums);
            for (size_t i = 0; i < width; i++)
                y[i] = coc_requantize(sums[i] - zero, own.multiplier, own.out_zero, own.out_max);
        }
}

COC_INLINE void run(const coc_call *call) {
    pool(COC_OWN(average, call->node), call->x[0], call->y, call->scratch);
}

COC_VERSIONS(run)

const coc_op coc_op_average_pool = {
    .inputs = 1,
    .since = 1,
    .fields = COC_WINDOW,
    .shape = shape,
    .bind = bind,
    .need = need,
    .run = COC_RUN(run),
};
