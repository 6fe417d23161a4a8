/* conv_grouped.c - grouped convolutions: each group is a convolution of its own, for the best kernel of a level.
 *
 * Planar activations make the group's input and output contiguous. Depthwise layers have a kernel that does better. */
#if defined(__x86_64__) || defined(__aarch64__)
#include "conv_shared.h"

/* Prepared weights: this, then each group's own, then room for the packed codes of one group. */
typedef struct {
    const coc_conv_kernel *kernel;
    size_t group_bytes;
} grouped_head;

#define HEAD_BYTES 64u

/* The layer of one group, without its codes, which may start within a byte. */
static coc_conv grouped_part(const coc_conv *layer, uint32_t group) {
    coc_conv part = *layer;
    part.groups = 1;
    part.in_channels /= layer->groups;
    part.out_channels /= layer->groups;
    part.codes = NULL;
    part.bias += (size_t)group * part.out_channels;
    part.multiplier += (size_t)group * part.out_channels;
    return part;
}

static const coc_conv_kernel *grouped_kernel(const coc_conv *part, coc_level level) {
    for (size_t i = 0; i < coc_conv_kernel_count; i++)
        if (coc_conv_kernels[i]->level == level && coc_conv_kernels[i]->accepts(part))
            return coc_conv_kernels[i];
    return NULL;
}

/* A kernel of another group is the same one: shapes are equal, and coc_simple_numbers has seen all numbers. */
static int grouped_accepts(const coc_conv *layer, coc_level level) {
    if (layer->groups == 1 || (layer->groups == layer->in_channels && layer->groups == layer->out_channels) ||
        !coc_simple_numbers(layer))
        return 0;
    const coc_conv part = grouped_part(layer, 0);
    return grouped_kernel(&part, level) != NULL;
}

static size_t grouped_codes(const coc_conv *part) {
    return (size_t)part->out_channels * part->in_channels * part->kernel_height * part->kernel_width;
}

static size_t grouped_weight_bytes(const coc_conv *layer, coc_level level) {
    const coc_conv part = grouped_part(layer, 0);
    const size_t group_bytes = coc_round_up(grouped_kernel(&part, level)->weight_bytes(&part), 64);
    return HEAD_BYTES + layer->groups * group_bytes + (grouped_codes(&part) * layer->weight_bits + 7) / 8;
}

static void grouped_prepare(const coc_conv *layer, coc_level level, void *weights) {
    const uint32_t bits = layer->weight_bits;
    grouped_head *head = weights;
    uint8_t *target = (uint8_t *)weights + HEAD_BYTES;
    for (uint32_t group = 0; group < layer->groups; group++) {
        coc_conv part = grouped_part(layer, group);
        head->kernel = grouped_kernel(&part, level);
        head->group_bytes = coc_round_up(head->kernel->weight_bytes(&part), 64);
        uint8_t *packed = (uint8_t *)weights + HEAD_BYTES + layer->groups * head->group_bytes;
        const size_t count = grouped_codes(&part);
        memset(packed, 0, (count * bits + 7) / 8);
        for (size_t i = 0; i < count; i++)
            packed[i * bits / 8] |= (uint8_t)(coc_code(layer->codes, bits, group * count + i) << (i * bits % 8));
        part.codes = packed;
        head->kernel->prepare(&part, target);
        target += head->group_bytes;
    }
}

static size_t grouped_scratch_bytes(const coc_conv *layer, coc_level level) {
    const coc_conv part = grouped_part(layer, 0);
    return grouped_kernel(&part, level)->scratch_bytes(&part);
}

static void grouped_run(const coc_conv *layer, const void *weights, const uint8_t *x, uint8_t *y, void *scratch,
                        uint32_t first, uint32_t last) {
    const grouped_head *head = weights;
    const uint8_t *own = (const uint8_t *)weights + HEAD_BYTES;
    for (uint32_t group = 0; group < layer->groups; group++, own += head->group_bytes) {
        const coc_conv part = grouped_part(layer, group);
        head->kernel->run(&part, own, x, y, scratch, first, last);
        x += (size_t)part.in_channels * part.in_height * part.in_width;
        y += (size_t)part.out_channels * part.out_height * part.out_width;
    }
}

#define GROUPED_KERNEL(name, level)                                                                                    \
    static int name##_accepts(const coc_conv *layer) {                                                                 \
        return grouped_accepts(layer, level);                                                                          \
    }                                                                                                                  \
    static size_t name##_weight_bytes(const coc_conv *layer) {                                                         \
        return grouped_weight_bytes(layer, level);                                                                     \
    }                                                                                                                  \
    static void name##_prepare(const coc_conv *layer, void *weights) {                                                 \
        grouped_prepare(layer, level, weights);                                                                        \
    }                                                                                                                  \
    static size_t name##_scratch_bytes(const coc_conv *layer) {                                                        \
        return grouped_scratch_bytes(layer, level);                                                                    \
    }                                                                                                                  \
    const coc_conv_kernel coc_##name = {                                                                               \
        #name, level, name##_accepts, name##_weight_bytes, name##_prepare, name##_scratch_bytes, grouped_run,          \
    };

#if defined(__x86_64__)
GROUPED_KERNEL(conv_grouped_avx512, COC_AVX512)
#if defined(COC_AVX_VNNI)
GROUPED_KERNEL(conv_grouped_avxvnni, COC_AVXVNNI)
#endif
GROUPED_KERNEL(conv_grouped_avx2, COC_AVX2)
#elif defined(__aarch64__)
GROUPED_KERNEL(conv_grouped_neon, COC_NEON)
#endif
#endif
