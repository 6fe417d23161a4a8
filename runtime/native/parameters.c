/* parameters.c - biases, scales and weights of a file (docs/format.md, checks 18 to 22). */
#include "bytes.h"
#include "model.h"

#include <math.h>
#include <stdlib.h>

/* A scale m * 2^e: its odd part m, or 0 if it is not legal. */
static uint32_t read_scale(const uint8_t *p, int32_t *exponent) {
    const uint32_t odd = p[0];
    int32_t top = get_i8(p + 1);
    *exponent = top;
    for (uint32_t rest = odd; rest > 1; rest >>= 1)
        top++;
    const int legal = (odd & 1) && top >= -COC_MAX_SCALE_EXPONENT &&
                      (top < COC_MAX_SCALE_EXPONENT || (odd == 1 && top == COC_MAX_SCALE_EXPONENT));
    return legal ? odd : 0;
}

/* How many of the bits [first, end) are 1. */
static uint64_t count_ones(const uint8_t *bits, size_t first, size_t end) {
    static const uint8_t ones[16] = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};
    uint64_t sum = 0;
    for (; first < end && first % 8 != 0; first++)
        sum += coc_code(bits, 1, first);
    for (; first + 8 <= end; first += 8)
        sum += (uint64_t)ones[bits[first / 8] & 15] + ones[bits[first / 8] >> 4];
    for (; first < end; first++)
        sum += coc_code(bits, 1, first);
    return sum;
}

/* Sum of the positive integer weights among `count` from `first`, and minus that of the negative ones. */
static void sum_signs(const uint8_t *codes, uint32_t bits, coc_encoding encoding, size_t first, size_t count,
                      uint64_t *positive, uint64_t *negative) {
    *positive = *negative = 0;
    if (bits == 1) {
        const uint64_t ones = count_ones(codes, first, first + count);
        *positive = encoding == COC_ODD ? ones : 0;
        *negative = count - ones;
        return;
    }
    for (size_t i = first; i < first + count; i++) {
        const int32_t weight = coc_integer(coc_code(codes, bits, i), bits, encoding);
        *positive += (uint64_t)(weight > 0 ? weight : 0);
        *negative += (uint64_t)(weight < 0 ? -weight : 0);
    }
}

/* Whether no sum of a channel (`count` codes from `first`) can reach 2^24: m * (worst + |bias|), m the odd
 * part of its scale. */
static int sums_exact(const uint8_t *codes, uint32_t bits, coc_encoding encoding, size_t first, size_t count,
                      const coc_tensor *input, int32_t bias, uint32_t odd_part) {
    uint64_t positive, negative;
    sum_signs(codes, bits, encoding, first, count, &positive, &negative);
    const uint64_t low = (uint64_t)input->zero;
    const uint64_t high = (UINT64_C(1) << input->bits) - 1 - low;
    const uint64_t one = positive * high + negative * low, other = positive * low + negative * high;
    const uint64_t magnitude = (uint64_t)llabs((long long)bias);
    return odd_part * ((one > other ? one : other) + magnitude) < COC_EXACT_LIMIT;
}

/* The next layer's packed codes, in the model's copy. */
static coc_status take_codes(coc_parameters *at, uint64_t count, uint32_t bits, const uint8_t **codes) {
    const uint64_t begin = (at->weights + COC_WEIGHT_ALIGNMENT - 1) & ~(uint64_t)(COC_WEIGHT_ALIGNMENT - 1);
    const uint64_t end = begin + (count * bits + 7) / 8;
    if (end > at->size)
        return COC_ERROR_TRUNCATED;
    if (!all_zero(at->data + at->weights, (size_t)(begin - at->weights)))
        return COC_ERROR_MALFORMED;
    const uint32_t used = (uint32_t)(count * bits % 8);
    if (used != 0 && at->data[end - 1] >> used != 0)
        return COC_ERROR_MALFORMED;
    *codes = at->codes + (begin - at->weights_begin);
    at->weights = end;
    return COC_OK;
}

static coc_status take_conv(coc_parameters *at, const coc_tensor *x, const coc_tensor *y, coc_conv *conv) {
    const size_t filter =
        (size_t)(conv->in_channels / conv->groups) * conv->kernel_height * conv->kernel_width;
    const coc_status status = take_codes(at, (uint64_t)conv->out_channels * filter, conv->weight_bits, &conv->codes);
    if (status != COC_OK)
        return status;
    conv->bias = at->bias;
    conv->multiplier = at->multiplier;
    for (size_t o = 0; o < conv->out_channels; o++, at->biases += 4, at->scales += 2) {
        int32_t exponent;
        const uint32_t odd = read_scale(at->data + at->scales, &exponent);
        *at->bias = (int32_t)get32(at->data + at->biases);
        if (odd == 0 || !sums_exact(conv->codes, conv->weight_bits, conv->encoding, o * filter, filter, x,
                                        *at->bias++, odd))
            return COC_ERROR_MALFORMED;
        *at->multiplier++ = ldexpf((float)odd, exponent + x->exponent - y->exponent);
    }
    return COC_OK;
}

static coc_status take_linear(coc_parameters *at, const coc_tensor *x, coc_linear *linear) {
    const size_t features = linear->features;
    const coc_status status =
        take_codes(at, (uint64_t)linear->classes * features, linear->weight_bits, &linear->codes);
    if (status != COC_OK)
        return status;
    linear->bias = at->bias;
    for (size_t o = 0; o < linear->classes; o++, at->biases += 4) {
        *at->bias = (int32_t)get32(at->data + at->biases);
        if (!sums_exact(linear->codes, linear->weight_bits, linear->encoding, o * features, features, x,
                            *at->bias++, 1))
            return COC_ERROR_MALFORMED;
    }
    return COC_OK;
}

coc_status coc_read_parameters(coc_model *model, coc_parameters *at) {
    for (uint32_t j = 0; j < model->node_count; j++) {
        coc_node *node = &model->nodes[j];
        const coc_tensor *x = &model->tensors[node->inputs[0]], *y = &model->tensors[j + 1];
        coc_status status = COC_OK;
        if (node->kind == COC_CONV)
            status = take_conv(at, x, y, &node->op.conv);
        else if (node->kind == COC_LINEAR)
            status = take_linear(at, x, &node->op.linear);
        if (status != COC_OK)
            return status;
    }
    return at->weights == at->size ? COC_OK : COC_ERROR_MALFORMED;
}
