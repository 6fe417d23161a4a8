/* gate.h - what an exit decides by: the confidence of its logits (internal). */
#ifndef COC_GATE_H
#define COC_GATE_H

#include <stdint.h>

/* Maximum softmax probability, 1 / sum_i exp(l_i - max l), in double precision and index order, rounded once; and the
 * first maximum. */
float coc_confidence(const float *logits, uint32_t classes);
uint32_t coc_argmax(const float *logits, uint32_t classes);

/* Minus the largest difference between outputs and those of the exit before; -INFINITY where `before` is NULL. */
float coc_agreement(const float *outputs, const float *before, uint32_t count);

#endif
