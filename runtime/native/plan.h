/* plan.h - what a session on a model needs, decided before it exists (internal). */
#ifndef COC_PLAN_H
#define COC_PLAN_H

#include "model.h"
#include "pool.h"

const char *coc_level_name(coc_level level);
int coc_level_available(coc_level level);                  /* in this build and on this CPU */
int coc_level_includes(coc_level level, coc_level kernel); /* whether a session of one may run kernels of the other */

/* The level of that name; NULL: that of COC_CPU, else the best. COC_ERROR_UNSUPPORTED if there is none. */
coc_status coc_level_choose(const char *name, coc_level *level);

/* The kernel for a convolution: the first of the table that the level includes and that accepts it. */
const coc_conv_kernel *coc_choose_kernel(const coc_conv *conv, coc_level level);

/* Bytes of a node's prepared weights, and of the scratch of a thread that runs it. kernel: of a convolution. */
typedef struct {
    const coc_conv_kernel *kernel;
    size_t weights, scratch;
} coc_need;

coc_need coc_node_need(const coc_node *node, coc_level level);

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

/* session_bytes, step_bytes: sizes of what the session puts first. COC_ERROR_LIMIT: does not fit size_t. */
coc_status coc_plan_arena(const coc_model *model, const coc_choices *choices, size_t session_bytes,
                          size_t step_bytes, coc_arena_layout *layout);

#endif
