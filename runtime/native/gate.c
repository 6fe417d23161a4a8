/* gate.c - what an exit decides by: the confidence of its logits. */
#include "gate.h"
#include "floats.h"

#include <math.h>
#include <stddef.h>

uint32_t coc_argmax(const float *logits, uint32_t classes) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < classes; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

float coc_confidence(const float *logits, uint32_t classes) {
    const float largest = logits[coc_argmax(logits, classes)];
    double sum = 0;
    for (uint32_t i = 0; i < classes; i++)
        sum += exp((double)logits[i] - (double)largest);
    return (float)(1 / sum);
}

float coc_agreement(const float *outputs, const float *before, uint32_t count) {
    if (before == NULL)
        return -INFINITY;
    float largest = 0;
    for (uint32_t i = 0; i < count; i++) {
        const float difference = fabsf(outputs[i] - before[i]);
        largest = difference > largest ? difference : largest;
    }
    return -largest;
}
