/* check.c - what makes a graph legal beyond its fields: reads, shapes, limits, exactness. */
#include "model.h"

#include <math.h>
#include <stdlib.h>

coc_status coc_check_reads(const coc_model *model, const coc_segment *segment, uint32_t index) {
    const coc_node *node = &model->nodes[index];
    for (uint32_t i = 0; i < coc_input_count(node); i++) {
        uint32_t tensor = node->inputs[i];
        int local = tensor > segment->first && tensor <= index;
        if (tensor != segment->input && !local)
            return COC_ERROR_MALFORMED;
        if (model->tensors[tensor].bits == COC_LOGIT_BITS)
            return COC_ERROR_MALFORMED;
    }
    return COC_OK;
}

static void set_shape(coc_tensor *tensor, uint32_t rank, uint32_t channels, uint32_t height, uint32_t width) {
    tensor->rank = rank;
    tensor->channels = channels;
    tensor->height = height;
    tensor->width = width;
}

static int same_type(const coc_tensor *a, const coc_tensor *b) {
    return a->bits == b->bits && a->zero == b->zero && a->exponent == b->exponent;
}

static coc_status conv_shape(coc_node *node, const coc_tensor *x, uint32_t pad_bottom, uint32_t pad_right,
                             coc_tensor *y) {
    coc_conv *conv = &node->op.conv;
    if (x->rank != 3 || x->channels % conv->groups || conv->out_channels % conv->groups)
        return COC_ERROR_MALFORMED;
    const uint32_t height = x->height + conv->pad_top + pad_bottom;
    const uint32_t width = x->width + conv->pad_left + pad_right;
    if (height < conv->kernel_height || width < conv->kernel_width)
        return COC_ERROR_MALFORMED;
    conv->in_channels = x->channels;
    conv->in_height = x->height;
    conv->in_width = x->width;
    conv->out_height = (height - conv->kernel_height) / conv->stride + 1;
    conv->out_width = (width - conv->kernel_width) / conv->stride + 1;
    const uint64_t taps = (uint64_t)conv->kernel_height * conv->kernel_width;
    const uint64_t weights = taps * conv->out_channels * (x->channels / conv->groups);
    if (weights > COC_MAX_ELEMENTS)
        return COC_ERROR_LIMIT;
    set_shape(y, 3, conv->out_channels, conv->out_height, conv->out_width);
    node->macs = weights * conv->out_height * conv->out_width;
    node->bitops = conv->weight_bits * x->bits;
    return COC_OK;
}

static coc_status linear_shape(coc_node *node, const coc_tensor *x, coc_tensor *y) {
    coc_linear *linear = &node->op.linear;
    if (x->rank != 1)
        return COC_ERROR_MALFORMED;
    linear->features = x->channels;
    node->macs = (uint64_t)linear->classes * linear->features;
    if (node->macs > COC_MAX_ELEMENTS)
        return COC_ERROR_LIMIT;
    set_shape(y, 1, linear->classes, 1, 1);
    node->bitops = linear->weight_bits * x->bits;
    return COC_OK;
}

static coc_status add_shape(const coc_model *model, const coc_node *node, coc_tensor *y) {
    const coc_tensor *a = &model->tensors[node->inputs[0]], *b = &model->tensors[node->inputs[1]];
    if (a->rank != b->rank || a->channels != b->channels || a->height != b->height || a->width != b->width)
        return COC_ERROR_MALFORMED;
    if (abs(a->exponent - b->exponent) > COC_MAX_SHIFT)
        return COC_ERROR_MALFORMED;
    set_shape(y, a->rank, a->channels, a->height, a->width);
    return COC_OK;
}

static coc_status concat_shape(const coc_model *model, const coc_node *node, coc_tensor *y) {
    const coc_tensor *a = &model->tensors[node->inputs[0]], *b = &model->tensors[node->inputs[1]];
    if (a->rank != 3 || b->rank != 3 || a->height != b->height || a->width != b->width)
        return COC_ERROR_MALFORMED;
    set_shape(y, 3, a->channels + b->channels, a->height, a->width);
    return COC_OK;
}

static coc_status global_shape(const coc_tensor *x, coc_tensor *y) {
    if (x->rank != 3 || ((uint64_t)coc_pixels(x) << x->bits) > COC_EXACT_LIMIT)
        return COC_ERROR_MALFORMED;
    set_shape(y, 1, x->channels, 1, 1);
    return COC_OK;
}

/* Pads are below the kernel's size, so every window holds a pixel; its sum is below 255 * 255 * 2^8 < 2^24. */
static coc_status window_shape(coc_node *node, const coc_tensor *x, uint32_t pad_bottom, uint32_t pad_right,
                               coc_tensor *y) {
    coc_window *window = &node->op.window;
    if (x->rank != 3 || (node->kind == COC_MAX_POOL && !same_type(x, y)))
        return COC_ERROR_MALFORMED;
    const uint32_t height = x->height + window->pad_top + pad_bottom;
    const uint32_t width = x->width + window->pad_left + pad_right;
    if (height < window->kernel_height || width < window->kernel_width)
        return COC_ERROR_MALFORMED;
    window->channels = x->channels;
    window->in_height = x->height;
    window->in_width = x->width;
    window->out_height = (height - window->kernel_height) / window->stride + 1;
    window->out_width = (width - window->kernel_width) / window->stride + 1;
    set_shape(y, 3, x->channels, window->out_height, window->out_width);
    return COC_OK;
}

static coc_status flatten_shape(const coc_tensor *x, coc_tensor *y) {
    if (x->rank != 3 || !same_type(x, y))
        return COC_ERROR_MALFORMED;
    set_shape(y, 1, (uint32_t)coc_elements(x), 1, 1);
    return COC_OK;
}

coc_status coc_check_shape(const coc_model *model, coc_node *node, uint32_t pad_bottom, uint32_t pad_right,
                           coc_tensor *output) {
    const coc_tensor *x = &model->tensors[node->inputs[0]];
    coc_status status = COC_ERROR_MALFORMED;
    switch (node->kind) {
    case COC_CONV:
        status = conv_shape(node, x, pad_bottom, pad_right, output);
        break;
    case COC_ADD:
        status = add_shape(model, node, output);
        break;
    case COC_GLOBAL_AVERAGE_POOL:
        status = global_shape(x, output);
        break;
    case COC_LINEAR:
        status = linear_shape(node, x, output);
        break;
    case COC_MAX_POOL:
    case COC_AVERAGE_POOL:
        status = window_shape(node, x, pad_bottom, pad_right, output);
        break;
    case COC_CONCAT:
        status = concat_shape(model, node, output);
        break;
    case COC_FLATTEN:
        status = flatten_shape(x, output);
        break;
    }
    if (status != COC_OK)
        return status;
    if (output->height > COC_MAX_SIZE || output->width > COC_MAX_SIZE)
        return COC_ERROR_LIMIT;
    if (output->channels > COC_MAX_CHANNELS || coc_elements(output) > COC_MAX_ELEMENTS)
        return COC_ERROR_LIMIT;
    node->bitops *= node->macs; /* below 2^62: 2^28 weights, 2^28 pixels, 2^6 bits */
    return COC_OK;
}

coc_status coc_check_segments(const coc_model *model) {
    const coc_segment *last = &model->segments[model->segment_count - 1];
    uint64_t bitops = 0;
    for (uint32_t j = 0; j < model->node_count; j++) {
        bitops += model->nodes[j].bitops;
        if (bitops > COC_MAX_BITOPS)
            return COC_ERROR_LIMIT;
    }
    for (const coc_segment *segment = model->segments; segment <= last; segment++) {
        if (segment->logits <= segment->first || segment->logits > segment->end)
            return COC_ERROR_MALFORMED;
        if (model->nodes[segment->logits - 1].kind != COC_LINEAR)
            return COC_ERROR_MALFORMED;
        if (segment->carry != 0 && model->nodes[segment->carry - 1].kind == COC_LINEAR)
            return COC_ERROR_MALFORMED;
    }
    for (const coc_segment *segment = model->segments; segment <= last; segment++)
        if (model->tensors[segment->logits].channels != model->tensors[last->logits].channels)
            return COC_ERROR_MALFORMED;
    return COC_OK;
}

static void bind_add(const coc_model *model, coc_node *node, const coc_tensor *y) {
    const coc_tensor *a = &model->tensors[node->inputs[0]], *b = &model->tensors[node->inputs[1]];
    const int32_t fine = a->exponent < b->exponent ? a->exponent : b->exponent;
    const int32_t a_factor = 1 << (a->exponent - fine), b_factor = 1 << (b->exponent - fine);
    node->op.add = (coc_addition){
        .a_factor = a_factor,
        .b_factor = b_factor,
        .zero = a->zero * a_factor + b->zero * b_factor,
        .shift = y->exponent - fine,
        .multiplier = ldexpf(1.0f, fine - y->exponent),
        .out_zero = y->zero,
        .out_max = (1 << y->bits) - 1,
    };
}

static void bind_global(const coc_tensor *x, coc_node *node, const coc_tensor *y) {
    const uint32_t pixels = (uint32_t)coc_pixels(x);
    node->op.global = (coc_global_pool){
        .channels = x->channels,
        .plane = pixels,
        .zero = (int32_t)pixels * x->zero,
        .multiplier = ldexpf(1.0f / (float)pixels, x->exponent - y->exponent),
        .out_zero = y->zero,
        .out_max = (1 << y->bits) - 1,
    };
}

static void bind_window(const coc_tensor *x, coc_node *node, const coc_tensor *y) {
    coc_window *window = &node->op.window;
    const uint32_t count = window->kernel_height * window->kernel_width;
    window->in_zero = x->zero;
    window->multiplier = ldexpf(1.0f / (float)count, x->exponent - y->exponent);
    window->out_zero = y->zero;
    window->out_max = (1 << y->bits) - 1;
}

static coc_rescaling rescaling(const coc_tensor *x, const coc_tensor *y) {
    return (coc_rescaling){
        .copies = x->exponent == y->exponent && x->zero == y->zero && x->bits <= y->bits,
        .in_zero = x->zero,
        .multiplier = ldexpf(1.0f, x->exponent - y->exponent),
        .out_zero = y->zero,
        .out_max = (1 << y->bits) - 1,
    };
}

static void bind(const coc_model *model, coc_node *node, const coc_tensor *y) {
    const coc_tensor *x = &model->tensors[node->inputs[0]];
    switch (node->kind) {
    case COC_CONV:
        node->op.conv.in_bits = x->bits;
        node->op.conv.in_zero = x->zero;
        node->op.conv.out_zero = y->zero;
        node->op.conv.out_max = (1 << y->bits) - 1;
        break;
    case COC_ADD:
        bind_add(model, node, y);
        break;
    case COC_GLOBAL_AVERAGE_POOL:
        bind_global(x, node, y);
        break;
    case COC_LINEAR:
        node->op.linear.in_zero = x->zero;
        node->op.linear.scale = ldexpf(1.0f, y->exponent);
        break;
    case COC_MAX_POOL:
    case COC_AVERAGE_POOL:
        bind_window(x, node, y);
        break;
    case COC_CONCAT:
        for (int i = 0; i < 2; i++)
            node->op.part[i] = rescaling(&model->tensors[node->inputs[i]], y);
        break;
    case COC_FLATTEN:
        break;
    }
}

void coc_bind_scalars(coc_model *model) {
    for (uint32_t j = 0; j < model->node_count; j++)
        bind(model, &model->nodes[j], &model->tensors[j + 1]);
}
