/* adaptive_average_pool.c - means of a grid of windows that cover the image. */
#include "ops/uneven.h"

/* Window i of `count`. */
COC_INLINE coc_span of_grid(uint32_t i, uint32_t count, uint32_t size) {
    const uint64_t begin = (uint64_t)i * size, end = (uint64_t)(i + 1) * size;
    return (coc_span){(uint32_t)(begin / count), (uint32_t)((end + count - 1) / count)};
}

COC_INLINE coc_span rows_of(const coc_window *w, uint32_t i) {
    return of_grid(i, w->out_height, w->in_height);
}

COC_INLINE coc_span columns_of(const coc_window *w, uint32_t i) {
    return of_grid(i, w->out_width, w->in_width);
}

/* The most pixels that a window of `count` spans. */
static uint64_t longest(uint32_t count, uint32_t size) {
    uint64_t most = 0;
    for (uint32_t i = 0; i < count; i++) {
        const coc_span found = of_grid(i, count, size);
        most = found.last - found.first > most ? found.last - found.first : most;
    }
    return most;
}

/* The row's kernel is the grid. */
static coc_status shape(const coc_row *row, const coc_tensor *const *x, coc_node *node, coc_tensor *y) {
    const uint32_t height = row->kernel_height, width = row->kernel_width;
    if (x[0]->rank != 3 || row->stride != 1 || row->across != 1 || row->pad_top || row->pad_left ||
        row->pad_bottom || row->pad_right)
        return COC_ERROR_MALFORMED;
    if (longest(height, x[0]->height) * longest(width, x[0]->width) << x[0]->bits > COC_EXACT_LIMIT)
        return COC_ERROR_MALFORMED;
    COC_OWN(coc_uneven, node)->window = (coc_window){
        .channels = x[0]->channels,
        .in_height = x[0]->height,
        .in_width = x[0]->width,
        .out_height = height,
        .out_width = width,
    };
    coc_set_shape(y, 3, x[0]->channels, height, width);
    return COC_OK;
}

COC_INLINE void run(const coc_call *call) {
    coc_uneven_run(call, rows_of, columns_of);
}

COC_VERSIONS(run)

const coc_op coc_op_adaptive_average_pool = {
    .inputs = 1,
    .since = 2,
    .fields = COC_WINDOW,
    .shape = shape,
    .bind = coc_uneven_bind,
    .need = coc_uneven_need,
    .run = COC_RUN(run),
};
