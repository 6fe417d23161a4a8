/* plan.c - kernels, options and the arena of a session. Allocates nothing. */
#include "plan.h"

#include <string.h>

const coc_conv_kernel *coc_choose_kernel(const coc_conv *conv, coc_level level) {
    size_t i = 0;
    while (i + 1 < coc_conv_kernel_count &&
           !(coc_level_includes(level, coc_conv_kernels[i]->level) && coc_conv_kernels[i]->accepts(conv)))
        i++;
    return coc_conv_kernels[i];
}

coc_need coc_node_need(const coc_node *node, coc_level level) {
    coc_need need = {NULL, 0, 0};
    if (node->kind == COC_CONV) {
        need.kernel = coc_choose_kernel(&node->op.conv, level);
        need.weights = need.kernel->weight_bytes(&node->op.conv);
        need.scratch = need.kernel->scratch_bytes(&node->op.conv);
    } else if (node->kind == COC_LINEAR) {
        const size_t features = node->op.linear.features;
        need.weights = features * node->op.linear.classes * sizeof(int16_t);
        need.scratch = features * sizeof(int16_t);
    } else if (node->kind == COC_MAX_POOL || node->kind == COC_AVERAGE_POOL) {
        need.scratch = coc_window_scratch(&node->op.window);
    }
    return need;
}

coc_status coc_check_options(const coc_model *model, const coc_session_options *options, coc_choices *choices) {
    static const coc_session_options defaults;
    if (options == NULL)
        options = &defaults;
    choices->threads = options->threads < 1 ? 1 : options->threads;
    if (choices->threads > COC_MAX_THREADS || (uintptr_t)options->arena % COC_ALIGNMENT != 0)
        return COC_ERROR_ARGUMENT;
    memcpy(choices->thresholds, model->thresholds, sizeof choices->thresholds);
    if (options->thresholds != NULL)
        for (uint32_t k = 0; k + 1 < model->segment_count; k++) {
            if (!(options->thresholds[k] >= 0)) /* NaN too */
                return COC_ERROR_ARGUMENT;
            choices->thresholds[k] = options->thresholds[k];
        }
    return coc_level_choose(options->cpu, &choices->level);
}

coc_status coc_plan_arena(const coc_model *model, const coc_choices *choices, size_t session_bytes,
                          size_t step_bytes, coc_arena_layout *layout) {
    uint64_t weights = 0, scratch = 0;
    for (uint32_t j = 0; j < model->node_count; j++) {
        const coc_need need = coc_node_need(&model->nodes[j], choices->level);
        weights += coc_align(need.weights);
        scratch = need.scratch > scratch ? need.scratch : scratch;
    }
    layout->steps = coc_align(session_bytes);
    layout->workers = coc_align(layout->steps + (uint64_t)step_bytes * model->node_count);
    layout->weights = coc_align(layout->workers + coc_pool_bytes(choices->threads));
    layout->scratch = layout->weights + weights;
    layout->scratch_stride = coc_align(scratch);
    layout->activations = layout->scratch + layout->scratch_stride * choices->threads;
    layout->total = layout->activations + model->activation_bytes;
    return layout->total > SIZE_MAX / 2 ? COC_ERROR_LIMIT : COC_OK;
}
