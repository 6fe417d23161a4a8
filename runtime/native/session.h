/* session.h - a run, step by step, for what watches it (internal; profile.c). */
#ifndef COC_SESSION_H
#define COC_SESSION_H

#include "model.h"

const coc_model *coc_session_model(const coc_session *session);

/* Whether a run may begin: the status with which coc_run refuses. */
coc_status coc_check_run(const coc_session *session, const uint8_t *images, size_t count, coc_layout layout,
                         const void *output);

/* Make an image the input; interleaved pixels are brought into planes. */
void coc_set_image(coc_session *session, const uint8_t *image, coc_layout layout);

/* Run operator `index`; those that it reads from have run. */
void coc_run_node(const coc_session *session, uint32_t index);

/* The logits of segment k, whose operators have run. They stay valid until the next one runs, those of a
 * regression until it has run. */
const float *coc_segment_logits(const coc_session *session, uint32_t k);

/* The confidence of logits; before: those of the exit before, NULL at exit 0. */
float coc_score(const coc_session *session, const float *logits, const float *before);

#endif
