/* model.h - a model in memory (internal). The reader fills it, planner and session only read it. */
#ifndef COC_MODEL_H
#define COC_MODEL_H

#include "coc.h"
#include "coc_limits.h"

#define COC_ALIGNMENT 64u

/* Tensor 0 is the image, tensor j + 1 what node j writes. uint8 codes, or float logits (32 bits). */
typedef struct {
    uint32_t rank, channels, height, width; /* rank 1: height and width are 1 */
    uint32_t bits;
    int32_t zero, exponent;
    uint32_t last_use; /* index of the last node that reads it; for logits the last node of their segment,
                        * of a regression of the segment behind, which compares */
    uint32_t next;     /* planner's list of live tensors, by offset */
    uint64_t offset;   /* bytes into the activations */
} coc_tensor;

#define COC_OWN_BYTES 128u

typedef struct {
    const struct coc_op *op; /* what it is: ops/operator.h */
    uint32_t kind;           /* its number, as in the file */
    uint32_t inputs[2];      /* tensors; the second only where the operator has two */
    uint64_t macs, bitops;
    _Alignas(8) unsigned char own[COC_OWN_BYTES]; /* the operator's: numbers that it runs with */
} coc_node;

typedef struct {
    uint32_t input;      /* tensor */
    uint32_t first, end; /* nodes */
    uint32_t logits, carry;
} coc_segment;

struct coc_model {
    coc_allocator allocator;
    coc_task task;
    uint32_t node_count, segment_count;
    coc_tensor *tensors; /* node_count + 1 */
    coc_node *nodes;
    coc_segment segments[COC_MAX_EXITS + 1];
    float thresholds[COC_MAX_EXITS];
    uint64_t activation_bytes;
};

static inline size_t coc_pixels(const coc_tensor *tensor) {
    return (size_t)tensor->height * tensor->width;
}

static inline uint64_t coc_elements(const coc_tensor *tensor) {
    return (uint64_t)tensor->channels * tensor->height * tensor->width;
}

static inline uint64_t coc_align(uint64_t bytes) {
    return (bytes + COC_ALIGNMENT - 1) & ~(uint64_t)(COC_ALIGNMENT - 1);
}

#endif
