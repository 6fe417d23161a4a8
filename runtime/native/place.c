/* place.c - where activations lie: tensors whose lives overlap do not share bytes. */
#include "place.h"
#include "ops/operator.h"

#define NONE UINT32_MAX

static uint64_t tensor_bytes(const coc_tensor *tensor) {
    return coc_align(coc_elements(tensor) * (tensor->bits == COC_LOGIT_BITS ? sizeof(float) : 1));
}

/* The last node that needs a tensor: its last reader; of logits, the end of their segment, and where they are
 * compared with those of the next exit, the end of the next segment. */
static void find_last_uses(coc_model *model) {
    for (uint32_t j = 0; j < model->node_count; j++) {
        const coc_node *node = &model->nodes[j];
        model->tensors[j + 1].last_use = j;
        for (uint32_t i = 0; i < node->op->inputs; i++)
            model->tensors[node->inputs[i]].last_use = j;
    }
    const uint32_t compared = model->task == COC_REGRESSION;
    for (uint32_t k = 0; k < model->segment_count; k++) {
        const uint32_t end = k + compared < model->segment_count ? k + compared : k;
        model->tensors[model->segments[k].logits].last_use = model->segments[end].end - 1;
    }
}

/* Tensor `index`, written by node `index - 1`, takes the lowest gap among those alive. `*head` is the list
 * of tensors alive by offset; dead ones are taken out on the way. */
static void place(coc_model *model, uint32_t index, uint32_t *head) {
    coc_tensor *tensors = model->tensors, *tensor = &tensors[index];
    const uint64_t bytes = tensor_bytes(tensor);
    uint32_t *link = head, *gap = NULL;
    uint64_t end = 0, offset = 0;
    while (*link != NONE) {
        const coc_tensor *other = &tensors[*link];
        if (index > 0 && other->last_use < index - 1) {
            *link = other->next;
            continue;
        }
        if (gap == NULL && other->offset - end >= bytes) {
            gap = link;
            offset = end;
        }
        end = other->offset + tensor_bytes(other);
        link = &tensors[*link].next;
    }
    if (gap == NULL) {
        gap = link;
        offset = end;
    }
    tensor->offset = offset;
    tensor->next = *gap;
    *gap = index;
    if (offset + bytes > model->activation_bytes)
        model->activation_bytes = offset + bytes;
}

void coc_place_tensors(coc_model *model) {
    uint32_t head = NONE;
    find_last_uses(model);
    model->activation_bytes = 0;
    for (uint32_t index = 0; index <= model->node_count; index++)
        place(model, index, &head);
}
