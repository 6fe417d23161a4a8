/* windows.h - windows that move over every plane: what both pools of windows share (internal).
 *
 * A pool combines the rows that a window holds into one line, which spans the columns of all windows of an output
 * row, padding included; then it moves along the line.
 */
#ifndef COC_WINDOWS_H
#define COC_WINDOWS_H

#include "ops/operator.h"

/* Kernel height and width are at most 255; pads are smaller, so every window holds a pixel. */
typedef struct {
    uint32_t channels, in_height, in_width, out_height, out_width;
    uint32_t kernel_height, kernel_width, stride, across, pad_top, pad_left;
} coc_window;

/* Pixels that a kernel spans. */
static inline uint32_t coc_extent(uint32_t kernel, uint32_t dilation) {
    return (kernel - 1) * dilation + 1;
}

/* How many windows of the row an image has; COC_ERROR_MALFORMED where none fits. */
static inline coc_status coc_window_counts(const coc_row *row, const coc_tensor *x, uint32_t *high, uint32_t *wide) {
    const uint32_t height = x->height + row->pad_top + row->pad_bottom;
    const uint32_t width = x->width + row->pad_left + row->pad_right;
    const uint32_t down = coc_extent(row->kernel_height, row->dilation_down);
    const uint32_t across = coc_extent(row->kernel_width, row->dilation_across);
    if (x->rank != 3 || height < down || width < across)
        return COC_ERROR_MALFORMED;
    *high = (height - down) / row->stride + 1;
    *wide = (width - across) / row->across + 1;
    return COC_OK;
}

/* Sizes of the output, of a window with the input's number of channels. */
static inline coc_status coc_window_shape(const coc_row *row, const coc_tensor *x, coc_window *window,
                                          coc_tensor *y) {
    *window = (coc_window){
        .channels = x->channels,
        .in_height = x->height,
        .in_width = x->width,
        .kernel_height = row->kernel_height,
        .kernel_width = row->kernel_width,
        .stride = row->stride,
        .across = row->across,
        .pad_top = row->pad_top,
        .pad_left = row->pad_left,
    };
    const coc_status status = coc_window_counts(row, x, &window->out_height, &window->out_width);
    if (status == COC_OK)
        coc_set_shape(y, 3, x->channels, window->out_height, window->out_width);
    return status;
}

/* Columns that the windows of a row span, padding included. */
static inline size_t coc_window_span(const coc_window *op) {
    return (size_t)(op->out_width - 1) * op->across + op->kernel_width;
}

/* Rows [first, last) of the image that the windows of output row `row` hold, at least one. */
static inline void coc_window_rows(const coc_window *op, size_t row, size_t *first, size_t *last) {
    const size_t begin = row * op->stride, end = begin + op->kernel_height - op->pad_top;
    *first = begin > op->pad_top ? begin - op->pad_top : 0;
    *last = end < op->in_height ? end : op->in_height;
}

/* How many columns of the image the windows span. */
static inline size_t coc_window_columns(const coc_window *op) {
    const size_t columns = coc_window_span(op) - op->pad_left;
    return columns < op->in_width ? columns : op->in_width;
}

#endif
