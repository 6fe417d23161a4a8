/* conv.c - convolution: its kernels are those of kernel_list.h, its rows are shared among threads. */
#include "levels.h"
#include "ops/windows.h"

#include <math.h>

COC_OWN_FITS(coc_conv);

static coc_status shape(const coc_row *row, const coc_tensor *const *inputs, coc_node *node, coc_tensor *y) {
    const coc_tensor *x = inputs[0];
    uint32_t height, width;
    const coc_status status = coc_window_counts(row, x, &height, &width);
    if (status != COC_OK)
        return status;
    if (x->channels % row->groups || row->out_channels % row->groups)
        return COC_ERROR_MALFORMED;
    coc_conv *conv = COC_OWN(coc_conv, node);
    *conv = (coc_conv){
        .in_channels = x->channels,
        .in_height = x->height,
        .in_width = x->width,
        .out_channels = row->out_channels,
        .out_height = height,
        .out_width = width,
        .kernel_height = row->kernel_height,
        .kernel_width = row->kernel_width,
        .stride = row->stride,
        .across = row->across,
        .pad_top = row->pad_top,
        .pad_left = row->pad_left,
        .groups = row->groups,
        .dilation_down = row->dilation_down,
        .dilation_across = row->dilation_across,
        .weight_bits = row->weight_bits,
        .encoding = row->encoding,
    };
    const uint64_t taps = (uint64_t)conv->kernel_height * conv->kernel_width;
    const uint64_t weights = taps * conv->out_channels * (x->channels / conv->groups);
    if (weights > COC_MAX_ELEMENTS)
        return COC_ERROR_LIMIT;
    coc_set_shape(y, 3, conv->out_channels, conv->out_height, conv->out_width);
    node->macs = weights * conv->out_height * conv->out_width;
    node->bitops = conv->weight_bits * x->bits;
    return COC_OK;
}

static coc_status bind(coc_parameters *at, const coc_tensor *const *inputs, const coc_tensor *y, coc_node *node) {
    const coc_tensor *x = inputs[0];
    coc_conv *conv = COC_OWN(coc_conv, node);
    const size_t filter =
        (size_t)(conv->in_channels / conv->groups) * conv->kernel_height * conv->kernel_width;
    const coc_channels channels = {conv->out_channels, filter, conv->weight_bits, conv->encoding};
    conv->in_bits = x->bits;
    conv->in_zero = x->zero;
    conv->out_zero = y->zero;
    conv->out_max = coc_max_code(y);
    const coc_status status = coc_take_channels(at, &channels, &conv->codes, &conv->bias);
    if (status != COC_OK)
        return status;
    conv->multiplier = at->multiplier;
    for (size_t o = 0; o < conv->out_channels; o++) {
        int32_t exponent;
        const uint32_t odd = coc_take_scale(at, &exponent);
        const uint64_t largest = coc_largest_sum(&channels, conv->codes, o, x, conv->bias[o]);
        if (odd == 0 || largest >= COC_SUM_LIMIT)
            return COC_ERROR_MALFORMED;
        conv->wide |= largest >= COC_EXACT_LIMIT;
        *at->multiplier++ = ldexpf((float)odd, exponent + x->exponent - y->exponent);
    }
    return COC_OK;
}

/* Of one stride, with no pixels between those that weights meet: what vector kernels take. */
static int is_plain(const coc_conv *conv) {
    return conv->across == conv->stride && conv->dilation_down == 1 && conv->dilation_across == 1;
}

/* The first kernel of the table that the level includes and that accepts the layer; the last takes all, and alone
 * those that are not plain. */
static const coc_conv_kernel *choose(const coc_conv *conv, coc_level level) {
    size_t i = is_plain(conv) ? 0 : coc_conv_kernel_count - 1;
    while (i + 1 < coc_conv_kernel_count &&
           !(coc_level_includes(level, coc_conv_kernels[i]->level) && coc_conv_kernels[i]->accepts(conv)))
        i++;
    return coc_conv_kernels[i];
}

static coc_need need(const coc_node *node, coc_level level) {
    const coc_conv *conv = COC_OWN(coc_conv, node);
    const coc_conv_kernel *kernel = choose(conv, level);
    return (coc_need){kernel, kernel->weight_bytes(conv), kernel->scratch_bytes(conv)};
}

static void prepare(const coc_node *node, const coc_step *step) {
    const coc_conv_kernel *kernel = step->chosen;
    kernel->prepare(COC_OWN(coc_conv, node), step->weights);
}

static void run_rows(const coc_call *call, uint32_t part, uint32_t first, uint32_t last) {
    const coc_conv_kernel *kernel = call->step->chosen;
    kernel->run(COC_OWN(coc_conv, call->node), call->step->weights, call->x[0], call->y,
                call->scratch + part * call->scratch_stride, first, last);
}

/* A job of threads has a context that is not const. */
typedef struct {
    const coc_call *call;
} shared;

static void run_part(void *context, uint32_t part) {
    const coc_call *call = ((const shared *)context)->call;
    const uint64_t rows = COC_OWN(coc_conv, call->node)->out_height;
    const uint32_t first = (uint32_t)(rows * part / call->threads);
    const uint32_t last = (uint32_t)(rows * (part + 1) / call->threads);
    if (first < last)
        run_rows(call, part, first, last);
}

static void run(const coc_call *call) {
    const uint32_t rows = COC_OWN(coc_conv, call->node)->out_height;
    shared job = {call};
    if (call->pool != NULL && rows > 1)
        coc_pool_run(call->pool, run_part, &job);
    else
        run_rows(call, 0, 0, rows);
}

const coc_op coc_op_conv = {
    .inputs = 1,
    .since = 1,
    .fields = COC_WEIGHTS | COC_WINDOW | COC_GROUPS | COC_DILATION,
    .has_biases = 1,
    .has_scales = 1,
    .shape = shape,
    .bind = bind,
    .need = need,
    .prepare = prepare,
    .run = {run, run},
};
