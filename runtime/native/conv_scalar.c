/* conv_scalar.c - the contract: a convolution of any legal layer, in portable C. */
#include "codes.h"

/* Indices of the output row or column that read input `0 <= position * stride + tap - pad < size`; a tap counts
 * pixels. */
typedef struct {
    uint32_t first, end;
} span;

static span inside(uint32_t size, uint32_t out_size, uint32_t tap, uint32_t pad, uint32_t stride) {
    uint32_t first = tap >= pad ? 0 : (pad - tap + stride - 1) / stride;
    uint32_t end = size + pad > tap ? (size + pad - tap - 1) / stride + 1 : 0;
    end = end < out_size ? end : out_size;
    return (span){first, end > first ? end : first};
}

static int accepts(const coc_conv *layer) {
    (void)layer;
    return 1;
}

static size_t weight_count(const coc_conv *layer) {
    return (size_t)layer->out_channels * (layer->in_channels / layer->groups) * layer->kernel_height *
           layer->kernel_width;
}

static size_t weight_bytes(const coc_conv *layer) {
    return weight_count(layer) * sizeof(int16_t);
}

static void prepare(const coc_conv *layer, void *weights) {
    coc_decode(layer->codes, layer->weight_bits, layer->encoding, weight_count(layer), weights);
}

/* Sums of one output row. */
static size_t scratch_bytes(const coc_conv *layer) {
    return (size_t)layer->out_width * sizeof(int32_t);
}

/* sums[i] += weight * (x[i * stride] - zero). Factors of 16 bits: any CPU has vector instructions for them. */
static void add_products(int32_t *restrict sums, const uint8_t *restrict x, size_t count, size_t stride,
                         int16_t weight, int16_t zero) {
    if (stride == 1)
        for (size_t i = 0; i < count; i++)
            sums[i] += weight * (int16_t)(x[i] - zero);
    else
        for (size_t i = 0; i < count; i++)
            sums[i] += weight * (int16_t)(x[i * stride] - zero);
}

/* Adds what one column of the kernel contributes to an output row: planes of a group's inputs, its weights. */
static void add_column(const coc_conv *layer, const int16_t *filter, const uint8_t *planes, uint32_t row,
                       uint32_t column, int32_t *sums) {
    const uint32_t pixel = column * layer->dilation_across;
    const span at = inside(layer->in_width, layer->out_width, pixel, layer->pad_left, layer->across);
    const size_t per_group = layer->in_channels / layer->groups, plane = (size_t)layer->in_height * layer->in_width;
    const size_t width = layer->kernel_width, taps = width * layer->kernel_height;
    if (at.first == at.end)
        return;
    const size_t x = (size_t)at.first * layer->across + pixel - layer->pad_left;
    for (uint32_t tap = 0; tap < layer->kernel_height; tap++) {
        const size_t y = (size_t)row * layer->stride + (size_t)tap * layer->dilation_down;
        if (y < layer->pad_top || y - layer->pad_top >= layer->in_height)
            continue;
        const uint8_t *source = planes + (y - layer->pad_top) * layer->in_width + x;
        for (size_t in = 0; in < per_group; in++)
            add_products(sums + at.first, source + in * plane, at.end - at.first, layer->across,
                         filter[in * taps + tap * width + column], (int16_t)layer->in_zero);
    }
}

static void sum_row(const coc_conv *layer, const int16_t *weights, const uint8_t *x, uint32_t channel,
                    uint32_t row, int32_t *sums) {
    const size_t per_group = layer->in_channels / layer->groups;
    const size_t taps = (size_t)layer->kernel_height * layer->kernel_width;
    const size_t group = channel / (layer->out_channels / layer->groups);
    const uint8_t *planes = x + group * per_group * layer->in_height * layer->in_width;
    for (uint32_t i = 0; i < layer->out_width; i++)
        sums[i] = layer->bias[channel];
    for (uint32_t column = 0; column < layer->kernel_width; column++)
        add_column(layer, weights + channel * per_group * taps, planes, row, column, sums);
}

static void run(const coc_conv *layer, const void *weights, const uint8_t *x, uint8_t *y, void *scratch,
                uint32_t first, uint32_t last) {
    int32_t *sums = scratch;
    for (uint32_t channel = 0; channel < layer->out_channels; channel++)
        for (uint32_t row = first; row < last; row++) {
            sum_row(layer, weights, x, channel, row, sums);
            uint8_t *target = y + ((size_t)channel * layer->out_height + row) * layer->out_width;
            for (uint32_t i = 0; i < layer->out_width; i++)
                target[i] = coc_requantize(sums[i], layer->multiplier[channel], layer->out_zero, layer->out_max);
        }
}

const coc_conv_kernel coc_conv_scalar = {
    "conv_scalar", COC_SCALAR, accepts, weight_bytes, prepare, scratch_bytes, run,
};
