/* plan.h - what a session on a model needs, decided before it exists (internal). */
#ifndef COC_PLAN_H
#define COC_PLAN_H

#include "levels.h"
#include "model.h"

/* Options, checked and with the defaults filled in. */
typedef struct {
    coc_level level;
    uint32_t threads;
    float thresholds[COC_MAX_EXITS];
} coc_choices;

coc_status coc_check_options(const coc_model *model, const coc_session_options *options, coc_choices *choices);

/* Where things lie in a session's arena. All places are multiples of 64. */
typedef struct {
    uint64_t steps, workers, weights, scratch, activations, total;
    uint64_t scratch_stride; /* bytes of one thread's scratch */
} coc_arena_layout;

/* session_bytes: size of what the session puts first. COC_ERROR_LIMIT: does not fit size_t. */
coc_status coc_plan_arena(const coc_model *model, const coc_choices *choices, size_t session_bytes,
                          coc_arena_layout *layout);

#endif
