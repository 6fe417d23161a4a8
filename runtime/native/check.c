/* check.c - what makes a graph legal beyond its fields, whatever the operators: reads, limits, segments. */
#include "check.h"
#include "ops/operator.h"

coc_status coc_check_reads(const coc_model *model, const coc_segment *segment, uint32_t index) {
    const coc_node *node = &model->nodes[index];
    for (uint32_t i = 0; i < node->op->inputs; i++) {
        uint32_t tensor = node->inputs[i];
        int local = tensor > segment->first && tensor <= index;
        if (tensor != segment->input && !local)
            return COC_ERROR_MALFORMED;
        if (model->tensors[tensor].bits == COC_LOGIT_BITS)
            return COC_ERROR_MALFORMED;
    }
    return COC_OK;
}

static int same_type(const coc_tensor *a, const coc_tensor *b) {
    return a->bits == b->bits && a->zero == b->zero && a->exponent == b->exponent;
}

coc_status coc_check_shape(const coc_model *model, const coc_row *row, coc_node *node, coc_tensor *output) {
    const coc_tensor *x[2];
    coc_read_by(model, node, x);
    if (node->op->keeps_type && !same_type(x[0], output))
        return COC_ERROR_MALFORMED;
    const coc_status status = node->op->shape(row, x, node, output);
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
        if (!model->nodes[segment->logits - 1].op->gives_logits)
            return COC_ERROR_MALFORMED;
        if (segment->carry != 0 && model->nodes[segment->carry - 1].op->gives_logits)
            return COC_ERROR_MALFORMED;
    }
    for (const coc_segment *segment = model->segments; segment <= last; segment++)
        if (model->tensors[segment->logits].channels != model->tensors[last->logits].channels)
            return COC_ERROR_MALFORMED;
    return COC_OK;
}
