/* linear.c - linear layer, whose sums are the logits. */
#include "codes.h"
#include "ops/operator.h"

#include <math.h>

/* y = (sum of weight * (x - in_zero) + bias) * scale; `bind` bounds the sums by 2^31 */
typedef struct {
    uint32_t features, classes;
    uint32_t weight_bits;
    coc_encoding encoding;
    int32_t in_zero;
    const uint8_t *codes; /* [classes][features], packed as in coc_conv */
    const int32_t *bias;
    float scale; /* a power of two */
} linear;

COC_OWN_FITS(linear);

static coc_status shape(const coc_row *row, const coc_tensor *const *x, coc_node *node, coc_tensor *y) {
    if (x[0]->rank != 1)
        return COC_ERROR_MALFORMED;
    *COC_OWN(linear, node) = (linear){
        .features = x[0]->channels,
        .classes = row->out_channels,
        .weight_bits = row->weight_bits,
        .encoding = row->encoding,
    };
    node->macs = (uint64_t)row->out_channels * x[0]->channels;
    node->bitops = row->weight_bits * x[0]->bits;
    coc_set_shape(y, 1, row->out_channels, 1, 1);
    return node->macs > COC_MAX_ELEMENTS ? COC_ERROR_LIMIT : COC_OK;
}

static coc_status bind(coc_parameters *at, const coc_tensor *const *x, const coc_tensor *y, coc_node *node) {
    linear *own = COC_OWN(linear, node);
    const coc_channels channels = {own->classes, own->features, own->weight_bits, own->encoding};
    own->in_zero = x[0]->zero;
    own->scale = ldexpf(1.0f, y->exponent);
    const coc_status status = coc_take_channels(at, &channels, &own->codes, &own->bias);
    for (size_t o = 0; status == COC_OK && o < own->classes; o++)
        if (coc_largest_sum(&channels, own->codes, o, x[0], own->bias[o]) >= COC_SUM_LIMIT)
            return COC_ERROR_MALFORMED;
    return status;
}

static coc_need need(const coc_node *node, coc_level level) {
    const linear *own = COC_OWN(linear, node);
    (void)level;
    return (coc_need){
        .weights = (size_t)own->features * own->classes * sizeof(int16_t),
        .scratch = (size_t)own->features * sizeof(int16_t),
    };
}

static void prepare(const coc_node *node, const coc_step *step) {
    const linear *own = COC_OWN(linear, node);
    const size_t count = (size_t)own->features * own->classes;
    coc_decode(own->codes, own->weight_bits, own->encoding, count, step->weights);
}

COC_INLINE void multiply(const linear *op, const int16_t *restrict weights, const uint8_t *restrict x,
                         float *restrict y, int16_t *restrict scratch) {
    const size_t features = op->features;
    for (size_t i = 0; i < features; i++)
        scratch[i] = (int16_t)(x[i] - op->in_zero);
    for (size_t out = 0; out < op->classes; out++) {
        const int16_t *row = weights + out * features;
        int32_t sum = 0;
        for (size_t i = 0; i < features; i++)
            sum += (int32_t)row[i] * (int32_t)scratch[i];
        y[out] = (float)(sum + op->bias[out]) * op->scale;
    }
}

COC_INLINE void run(const coc_call *call) {
    int16_t *scratch = (int16_t *)(void *)call->scratch;
    multiply(COC_OWN(linear, call->node), call->step->weights, call->x[0], call->y, scratch);
}

COC_VERSIONS(run)

const coc_op coc_op_linear = {
    .inputs = 1,
    .since = 1,
    .fields = COC_WEIGHTS,
    .has_biases = 1,
    .gives_logits = 1,
    .shape = shape,
    .bind = bind,
    .need = need,
    .prepare = prepare,
    .run = COC_RUN(run),
};
