/* model.h - a model in memory (internal). The reader fills it, planner and session only read it. */
#ifndef COC_MODEL_H
#define COC_MODEL_H

#include "coc.h"
#include "coc_limits.h"
#include "ops.h"

#define COC_ALIGNMENT 64u

typedef enum {
    COC_CONV = 1,
    COC_ADD = 2,
    COC_GLOBAL_AVERAGE_POOL = 3,
    COC_LINEAR = 4,
    COC_MAX_POOL = 5,
    COC_AVERAGE_POOL = 6,
    COC_CONCAT = 7,
    COC_FLATTEN = 8,
} coc_kind;

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

typedef struct {
    coc_kind kind;
    uint32_t inputs[2]; /* the second of additions and concatenations only */
    uint64_t macs, bitops;
    union {
        coc_conv conv;
        coc_addition add;
        coc_global_pool global;
        coc_linear linear;
        coc_window window;    /* both pools of windows */
        coc_rescaling part[2]; /* concatenation: of each input */
    } op;
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

static inline uint32_t coc_input_count(const coc_node *node) {
    return node->kind == COC_ADD || node->kind == COC_CONCAT ? 2 : 1;
}

static inline int coc_has_weights(const coc_node *node) {
    return node->kind == COC_CONV || node->kind == COC_LINEAR;
}

static inline size_t coc_pixels(const coc_tensor *tensor) {
    return (size_t)tensor->height * tensor->width;
}

static inline uint64_t coc_elements(const coc_tensor *tensor) {
    return (uint64_t)tensor->channels * tensor->height * tensor->width;
}

static inline uint64_t coc_align(uint64_t bytes) {
    return (bytes + COC_ALIGNMENT - 1) & ~(uint64_t)(COC_ALIGNMENT - 1);
}

/* The first checks, from the first bytes of a file of `size` bytes; `head` holds min(size, 48) of them. */
coc_status coc_check_head(const uint8_t *head, uint64_t size);

/* Build a model from a whole file. */
coc_status coc_read_model(const uint8_t *data, size_t size, const coc_allocator *allocator, coc_model **model);

/* Shapes and limits of a node whose kind, inputs and parameters' sizes are set, and whose output has its
 * type; fills the output's shape and the node's costs. */
coc_status coc_check_shape(const coc_model *model, coc_node *node, uint32_t pad_bottom, uint32_t pad_right,
                           coc_tensor *output);

/* Fill the scalars that operators take from their tensors. */
void coc_bind_scalars(coc_model *model);

/* What no segment may break: reads of its node `index`; logits, classes, the sum of BitOps. */
coc_status coc_check_reads(const coc_model *model, const coc_segment *segment, uint32_t index);
coc_status coc_check_segments(const coc_model *model);

/* Where the parameters of the layers lie: places in the file that move on from layer to layer, and arrays
 * of the model that they fill. */
typedef struct {
    const uint8_t *data;
    uint64_t size, biases, scales, weights;
    uint64_t weights_begin;
    uint8_t *codes; /* a copy of data from weights_begin on */
    int32_t *bias;
    float *multiplier;
} coc_parameters;

coc_status coc_read_parameters(coc_model *model, coc_parameters *at);

/* Place the activations: fills last_use, offset and activation_bytes. */
void coc_place_tensors(coc_model *model);

#endif
