/* pixel_average_pool.c - the mean of every window's pixels; padding does not count. */
#include "ops/uneven.h"

static coc_status shape(const coc_row *row, const coc_tensor *const *x, coc_node *node, coc_tensor *y) {
    return coc_window_shape(row, x[0], &COC_OWN(coc_uneven, node)->window, y);
}

/* A window's pixels, without its padding. */
COC_INLINE coc_span inside(uint32_t i, uint32_t stride, uint32_t kernel, uint32_t before, uint32_t size) {
    const uint32_t begin = i * stride, end = begin + kernel - before;
    return (coc_span){begin > before ? begin - before : 0, end < size ? end : size};
}

COC_INLINE coc_span rows_of(const coc_window *w, uint32_t i) {
    return inside(i, w->stride, w->kernel_height, w->pad_top, w->in_height);
}

COC_INLINE coc_span columns_of(const coc_window *w, uint32_t i) {
    return inside(i, w->across, w->kernel_width, w->pad_left, w->in_width);
}

COC_INLINE void run(const coc_call *call) {
    coc_uneven_run(call, rows_of, columns_of);
}

COC_VERSIONS(run)

const coc_op coc_op_pixel_average_pool = {
    .inputs = 1,
    .since = 2,
    .fields = COC_WINDOW,
    .shape = shape,
    .bind = coc_uneven_bind,
    .need = coc_uneven_need,
    .run = COC_RUN(run),
};
