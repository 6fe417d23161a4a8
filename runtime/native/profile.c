/* profile.c - where the time of a run goes. A file of its own: coc_run reads no clock, and who links
 * statically and does not profile needs none. */
#include "clock.h"
#include "ops/table.h"
#include "session.h"

uint32_t coc_model_operators(const coc_model *model) {
    return model == NULL ? 0 : model->node_count;
}

coc_status coc_model_operator(const coc_model *model, uint32_t index, coc_operator *found) {
    if (model == NULL || found == NULL || index >= model->node_count)
        return COC_ERROR_ARGUMENT;
    const coc_node *node = &model->nodes[index];
    uint32_t exit = 0;
    while (index >= model->segments[exit].end)
        exit++;
    *found = (coc_operator){coc_op_name(node->kind), exit, node->macs, node->bitops};
    return COC_OK;
}

/* Time since *last, which becomes now; 0 where the clock went back. */
static uint64_t lap(uint64_t *last) {
    const uint64_t now = coc_nanoseconds(), before = *last;
    *last = now;
    return now > before ? now - before : 0;
}

/* times: of the operators, then of everything else. */
static void profile_image(coc_session *session, const uint8_t *image, coc_layout layout, uint64_t *times) {
    const coc_model *model = coc_session_model(session);
    const float *before = NULL;
    uint64_t last = coc_nanoseconds(), *rest = &times[model->node_count];
    coc_set_image(session, image, layout);
    *rest = lap(&last);
    for (uint32_t k = 0; k < model->segment_count; k++) {
        for (uint32_t j = model->segments[k].first; j < model->segments[k].end; j++) {
            coc_run_node(session, j);
            times[j] = lap(&last);
        }
        const float *logits = coc_segment_logits(session, k);
        const volatile float score = coc_score(session, logits, before); /* computed although nobody asks */
        (void)score;
        *rest += lap(&last);
        before = logits;
    }
}

coc_status coc_profile(coc_session *session, const uint8_t *images, size_t count, coc_layout layout,
                       uint64_t *nanoseconds) {
    const coc_status status = coc_check_run(session, images, count, layout, nanoseconds);
    for (size_t i = 0; status == COC_OK && i < count; i++) {
        const coc_model *model = coc_session_model(session);
        const uint8_t *image = images + i * (size_t)coc_elements(&model->tensors[0]);
        profile_image(session, image, layout, nanoseconds + i * ((size_t)model->node_count + 1));
    }
    return status;
}
