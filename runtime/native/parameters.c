/* parameters.c - biases, scales and weights of a file (docs/format.md, checks 18 to 23). */
#include "parameters.h"
#include "bytes.h"

#include <stdlib.h>

uint32_t coc_take_scale(coc_parameters *at, int32_t *exponent) {
    const uint8_t *p = at->data + at->scales;
    const uint32_t odd = p[0];
    int32_t top = get_i8(p + 1);
    at->scales += 2;
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

uint64_t coc_largest_sum(const coc_channels *channels, const uint8_t *codes, size_t channel, const coc_tensor *x,
                         int32_t bias) {
    uint64_t positive, negative;
    sum_signs(codes, channels->bits, channels->encoding, channel * channels->weights, channels->weights, &positive,
              &negative);
    const uint64_t low = (uint64_t)x->zero;
    const uint64_t high = (UINT64_C(1) << x->bits) - 1 - low;
    const uint64_t one = positive * high + negative * low, other = positive * low + negative * high;
    const uint64_t magnitude = (uint64_t)llabs((long long)bias);
    return (one > other ? one : other) + magnitude;
}

coc_status coc_take_codes(coc_parameters *at, uint64_t count, uint32_t bits, const uint8_t **codes) {
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

coc_status coc_take_channels(coc_parameters *at, const coc_channels *channels, const uint8_t **codes,
                             const int32_t **bias) {
    const uint64_t count = (uint64_t)channels->count * channels->weights;
    const coc_status status = coc_take_codes(at, count, channels->bits, codes);
    if (status != COC_OK)
        return status;
    *bias = at->bias;
    for (size_t o = 0; o < channels->count; o++, at->biases += 4)
        *at->bias++ = (int32_t)get32(at->data + at->biases);
    return COC_OK;
}
