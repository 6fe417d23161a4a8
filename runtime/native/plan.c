/* plan.c - options and the arena of a session. Allocates nothing. */
#include "plan.h"
#include "ops/operator.h"

#include <string.h>

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
                          coc_arena_layout *layout) {
    uint64_t weights = 0, scratch = 0;
    for (uint32_t j = 0; j < model->node_count; j++) {
        const coc_need need = coc_node_need(&model->nodes[j], choices->level);
        weights += coc_align(need.weights);
        scratch = need.scratch > scratch ? need.scratch : scratch;
    }
    layout->steps = coc_align(session_bytes);
    layout->workers = coc_align(layout->steps + sizeof(coc_step) * (uint64_t)model->node_count);
    layout->weights = coc_align(layout->workers + coc_pool_bytes(choices->threads));
    layout->scratch = layout->weights + weights;
    layout->scratch_stride = coc_align(scratch);
    layout->activations = layout->scratch + layout->scratch_stride * choices->threads;
    layout->total = layout->activations + model->activation_bytes;
    return layout->total > SIZE_MAX / 2 ? COC_ERROR_LIMIT : COC_OK;
}
