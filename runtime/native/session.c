/* session.c - a model ready to run: prepared weights, activations, threads; and the run. */
#include "session.h"
#include "gate.h"
#include "ops/operator.h"
#include "plan.h"

#include <string.h>

struct coc_session {
    const coc_model *model;
    void *owned; /* the arena, if it is not the caller's */
    coc_level level;
    uint32_t threads;
    coc_pool *pool; /* NULL: the calling thread alone */
    coc_version version; /* of operators */
    coc_step *steps;
    uint8_t *scratch;
    size_t scratch_stride;
    uint8_t *activations;
    const uint8_t *image; /* of this run, planar */
    coc_model_info info;
    float thresholds[COC_MAX_EXITS];
};

static coc_status plan(const coc_model *model, const coc_session_options *options, coc_choices *choices,
                       coc_arena_layout *layout) {
    if (model == NULL)
        return COC_ERROR_ARGUMENT;
    const coc_status status = coc_check_options(model, options, choices);
    return status != COC_OK ? status : coc_plan_arena(model, choices, sizeof(coc_session), layout);
}

size_t coc_session_bytes(const coc_model *model, const coc_session_options *options) {
    coc_choices choices;
    coc_arena_layout layout;
    return plan(model, options, &choices, &layout) == COC_OK ? (size_t)layout.total : 0;
}

static void prepare_weights(coc_session *session, uint8_t *weights) {
    for (uint32_t j = 0; j < session->model->node_count; j++) {
        const coc_node *node = &session->model->nodes[j];
        const coc_need need = coc_node_need(node, session->level);
        session->steps[j] = (coc_step){need.chosen, weights};
        if (node->op->prepare != NULL)
            node->op->prepare(node, &session->steps[j]);
        weights += coc_align(need.weights);
    }
}

coc_status coc_session_create(const coc_model *model, const coc_session_options *options,
                              coc_session **session) {
    coc_choices choices;
    coc_arena_layout layout;
    if (session == NULL)
        return COC_ERROR_ARGUMENT;
    *session = NULL;
    if (!coc_rounds_to_nearest())
        return COC_ERROR_ROUNDING;
    coc_status status = plan(model, options, &choices, &layout);
    if (status != COC_OK)
        return status;
    uint8_t *arena = options != NULL ? options->arena : NULL, *owned = NULL;
    if (arena != NULL && options->arena_bytes < layout.total)
        return COC_ERROR_MEMORY;
    if (arena == NULL)
        arena = owned = model->allocator.allocate(model->allocator.user, (size_t)layout.total);
    if (arena == NULL)
        return COC_ERROR_MEMORY;
    coc_session *made = (coc_session *)(void *)arena;
    *made = (coc_session){
        .model = model,
        .owned = owned,
        .level = choices.level,
        .threads = choices.threads,
        .version = coc_level_includes(choices.level, COC_AVX2) ? COC_FOR_AVX2 : COC_FOR_ANY,
        .steps = (coc_step *)(void *)(arena + layout.steps),
        .scratch = arena + layout.scratch,
        .scratch_stride = (size_t)layout.scratch_stride,
        .activations = arena + layout.activations,
    };
    memcpy(made->thresholds, choices.thresholds, sizeof made->thresholds);
    coc_model_inspect(model, &made->info);
    prepare_weights(made, arena + layout.weights);
    status = coc_pool_start(arena + layout.workers, choices.threads, &made->pool);
    if (status != COC_OK && owned != NULL)
        model->allocator.release(model->allocator.user, owned);
    if (status == COC_OK)
        *session = made;
    return status;
}

void coc_session_free(coc_session *session) {
    if (session == NULL)
        return;
    coc_pool_stop(session->pool);
    if (session->owned != NULL)
        session->model->allocator.release(session->model->allocator.user, session->owned);
}

const coc_model *coc_session_model(const coc_session *session) {
    return session->model;
}

const char *coc_session_cpu(const coc_session *session) {
    return session == NULL ? "" : coc_level_name(session->level);
}

static uint8_t *written(const coc_session *session, uint32_t tensor) {
    return session->activations + session->model->tensors[tensor].offset;
}

static const uint8_t *codes(const coc_session *session, uint32_t tensor) {
    return tensor == 0 ? session->image : written(session, tensor);
}

static float *logits_of(const coc_session *session, uint32_t tensor) {
    return (float *)(void *)written(session, tensor);
}

void coc_run_node(const coc_session *session, uint32_t index) {
    const coc_node *node = &session->model->nodes[index];
    const coc_call call = {
        .node = node,
        .step = &session->steps[index],
        .x = {codes(session, node->inputs[0]), codes(session, node->inputs[1])},
        .y = written(session, index + 1),
        .scratch = session->scratch,
        .scratch_stride = session->scratch_stride,
        .pool = session->pool,
        .threads = session->threads,
    };
    node->op->run[session->version](&call);
}

const float *coc_segment_logits(const coc_session *session, uint32_t k) {
    return logits_of(session, session->model->segments[k].logits);
}

static const float *run_segment(const coc_session *session, uint32_t index) {
    const coc_segment *segment = &session->model->segments[index];
    for (uint32_t j = segment->first; j < segment->end; j++)
        coc_run_node(session, j);
    return coc_segment_logits(session, index);
}

void coc_set_image(coc_session *session, const uint8_t *image, coc_layout layout) {
    const size_t channels = session->info.channels, pixels = (size_t)session->info.height * session->info.width;
    session->image = image;
    if (layout == COC_INTERLEAVED && channels > 1) {
        uint8_t *planes = written(session, 0);
        for (size_t c = 0; c < channels; c++)
            for (size_t i = 0; i < pixels; i++)
                planes[c * pixels + i] = image[i * channels + c];
        session->image = planes;
    }
}

static void store(const coc_session *session, const coc_result *result, size_t image, uint32_t taken,
                  const float *logits, float confidence) {
    const uint32_t classes = session->info.classes;
    if (result->logits != NULL)
        memcpy(result->logits + image * classes, logits, classes * sizeof(float));
    if (result->label != NULL)
        result->label[image] = session->info.task == COC_REGRESSION ? 0 : coc_argmax(logits, classes);
    if (result->exit != NULL)
        result->exit[image] = taken;
    if (result->confidence != NULL)
        result->confidence[image] = confidence;
    if (result->bitops != NULL)
        result->bitops[image] = (int64_t)session->info.bitops[taken];
}

/* Whether an early exit lets an image go; exit 0 of a regression has nothing to agree with. */
static int leaves(const coc_session *session, uint32_t k, float confidence) {
    if (session->info.task == COC_REGRESSION)
        return k > 0 && confidence >= -session->thresholds[k];
    return confidence >= session->thresholds[k];
}

float coc_score(const coc_session *session, const float *logits, const float *before) {
    const uint32_t classes = session->info.classes;
    return session->info.task == COC_REGRESSION ? coc_agreement(logits, before, classes)
                                                : coc_confidence(logits, classes);
}

static void run_image(const coc_session *session, const coc_result *result, size_t image) {
    const uint32_t last = session->info.exits - 1;
    const float *before = NULL;
    for (uint32_t k = 0;; k++) {
        const float *logits = run_segment(session, k);
        const float confidence = coc_score(session, logits, before);
        if (k == last || leaves(session, k, confidence)) {
            store(session, result, image, k, logits, confidence);
            return;
        }
        before = logits;
    }
}

coc_status coc_check_run(const coc_session *session, const uint8_t *images, size_t count, coc_layout layout,
                         const void *output) {
    if (session == NULL || (count > 0 && (images == NULL || output == NULL)))
        return COC_ERROR_ARGUMENT;
    if (layout != COC_PLANAR && layout != COC_INTERLEAVED)
        return COC_ERROR_ARGUMENT;
    return coc_rounds_to_nearest() ? coc_pool_ready(session->pool) : COC_ERROR_ROUNDING;
}

static size_t image_bytes(const coc_session *session) {
    return (size_t)coc_elements(&session->model->tensors[0]);
}

coc_status coc_run(coc_session *session, const uint8_t *images, size_t count, coc_layout layout,
                   const coc_result *result) {
    const coc_status status = coc_check_run(session, images, count, layout, result);
    for (size_t i = 0; status == COC_OK && i < count; i++) {
        coc_set_image(session, images + i * image_bytes(session), layout);
        run_image(session, result, i);
    }
    return status;
}

coc_status coc_run_all_exits(coc_session *session, const uint8_t *images, size_t count, coc_layout layout,
                             float *logits) {
    const coc_status status = coc_check_run(session, images, count, layout, logits);
    for (size_t i = 0; status == COC_OK && i < count; i++) {
        coc_set_image(session, images + i * image_bytes(session), layout);
        for (uint32_t k = 0; k < session->info.exits; k++) {
            const size_t classes = session->info.classes;
            memcpy(logits + (k * count + i) * classes, run_segment(session, k), classes * sizeof(float));
        }
    }
    return status;
}
