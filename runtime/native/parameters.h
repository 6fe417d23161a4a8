/* parameters.h - biases, scales and weights of a file, taken layer by layer (internal). */
#ifndef COC_PARAMETERS_H
#define COC_PARAMETERS_H

#include "kernels.h"
#include "model.h"

/* Where the parameters of the next layer lie: places in the file that move on, and arrays of the model that they
 * fill. */
typedef struct {
    const uint8_t *data;
    uint64_t size, biases, scales, weights;
    uint64_t weights_begin;
    uint8_t *codes; /* a copy of data from weights_begin on */
    int32_t *bias;
    float *multiplier;
} coc_parameters;

/* The output channels of a layer, and the weights of each. */
typedef struct {
    size_t count, weights;
    uint32_t bits;
    coc_encoding encoding;
} coc_channels;

/* The next layer's packed codes and its biases, in the model's memory. */
coc_status coc_take_channels(coc_parameters *at, const coc_channels *channels, const uint8_t **codes,
                             const int32_t **bias);

/* The next layer's `count` codes of `bits` bits, in the model's memory. */
coc_status coc_take_codes(coc_parameters *at, uint64_t count, uint32_t bits, const uint8_t **codes);

/* The next scale m * 2^exponent: its odd part m, or 0 if it is not legal. */
uint32_t coc_take_scale(coc_parameters *at, int32_t *exponent);

/* What a sum of a channel with its bias can reach: worst + |bias|. */
uint64_t coc_largest_sum(const coc_channels *channels, const uint8_t *codes, size_t channel, const coc_tensor *x,
                         int32_t bias);

#endif
