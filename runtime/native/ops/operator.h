/* operator.h - what an operator is to the core (internal). ops/list.h lists them; each has a file of its own,
 * which defines `const coc_op coc_op_<name>`. docs/format.md says what they compute.
 *
 * Numbers that an operator runs with lie in its part of the node, COC_OWN; `shape` and `bind` write them once,
 * while the model is read, everything else only reads them.
 */
#ifndef COC_OPERATOR_H
#define COC_OPERATOR_H

#include "kernels.h"
#include "model.h"
#include "parameters.h"
#include "pool.h"

/* Fields of a row that not every operator has, in groups. */
enum { COC_WEIGHTS = 1, COC_WINDOW = 2, COC_GROUPS = 4, COC_COUNT = 8, COC_DILATION = 16 };

/* A row of the file, but for kind, inputs and type of the output. Fields that the operator does not have are 0;
 * the others are in the range that the format gives them. */
typedef struct {
    uint32_t weight_bits; /* COC_WEIGHTS */
    coc_encoding encoding;
    uint32_t out_channels; /* COC_WEIGHTS; COC_COUNT: of what the operator says */
    uint32_t kernel_height, kernel_width, stride, across; /* COC_WINDOW; pads are below its extent */
    uint32_t pad_top, pad_left, pad_bottom, pad_right;
    uint32_t groups; /* COC_GROUPS */
    uint32_t dilation_down, dilation_across; /* COC_DILATION; else 1 */
} coc_row;

/* What a session keeps of a node. */
typedef struct {
    const void *chosen; /* by `need` */
    void *weights;      /* prepared; aligned to 64 */
} coc_step;

/* Bytes of a node's prepared weights, and of the scratch of a thread that runs it. */
typedef struct {
    const void *chosen;
    size_t weights, scratch;
} coc_need;

/* What an operator runs on. */
typedef struct {
    const coc_node *node;
    const coc_step *step;
    const uint8_t *x[2]; /* codes; the second only where the operator has two inputs */
    void *y;             /* codes, or float logits */
    uint8_t *scratch;    /* of the calling thread; aligned to 64, undefined contents */
    size_t scratch_stride; /* bytes to the scratch of the next thread */
    coc_pool *pool;        /* NULL: the calling thread alone */
    uint32_t threads;
} coc_call;

/* Versions of `run`. */
typedef enum { COC_FOR_ANY = 0, COC_FOR_AVX2 = 1 } coc_version;

typedef struct coc_op {
    uint32_t inputs; /* 1 or 2 */
    uint32_t since;  /* the first version of files that has it */
    uint32_t fields;
    int has_biases, has_scales; /* a number of the file's section for each output channel */
    int gives_logits;           /* its output has 32 bits and is read by exits alone */
    int keeps_type;             /* its output has the first input's bits, zero point and exponent */
    /* Check the inputs, set rank, sizes of y and, of a layer, macs and bitops: BitOps of one MAC. */
    coc_status (*shape)(const coc_row *row, const coc_tensor *const *x, coc_node *node, coc_tensor *y);
    /* Take the parameters from the file, which may refuse them, and what depends on types. */
    coc_status (*bind)(coc_parameters *at, const coc_tensor *const *x, const coc_tensor *y, coc_node *node);
    coc_need (*need)(const coc_node *node, coc_level level);        /* NULL: nothing */
    void (*prepare)(const coc_node *node, const coc_step *step);    /* NULL: no weights */
    void (*run[2])(const coc_call *call);                           /* by coc_version */
} coc_op;

/* The operator's part of a node. */
#define COC_OWN(type, node) ((type *)(uintptr_t)(node)->own)
#define COC_OWN_FITS(type) _Static_assert(sizeof(type) <= COC_OWN_BYTES && _Alignof(type) <= 8, #type)

#if defined(__GNUC__)
#define COC_INLINE static inline __attribute__((always_inline))
#else
#define COC_INLINE static inline
#endif

/* COC_VERSIONS(run) compiles `COC_INLINE void run(const coc_call *)` for every version; COC_RUN(run) lists them. */
#if defined(__x86_64__) && defined(__GNUC__)
#define COC_VERSIONS(run)                                                                                      \
    static void run##_any(const coc_call *call) { run(call); }                                                 \
    __attribute__((target("avx2"))) static void run##_avx2(const coc_call *call) { run(call); }
#define COC_RUN(run) {run##_any, run##_avx2}
#else
#define COC_VERSIONS(run)                                                                                      \
    static void run##_any(const coc_call *call) { run(call); }
#define COC_RUN(run) {run##_any, run##_any}
#endif

static inline coc_need coc_node_need(const coc_node *node, coc_level level) {
    const coc_need nothing = {NULL, 0, 0};
    return node->op->need == NULL ? nothing : node->op->need(node, level);
}

static inline void coc_set_shape(coc_tensor *tensor, uint32_t rank, uint32_t channels, uint32_t height,
                                 uint32_t width) {
    tensor->rank = rank;
    tensor->channels = channels;
    tensor->height = height;
    tensor->width = width;
}

/* The tensors that a node reads. */
static inline void coc_read_by(const coc_model *model, const coc_node *node, const coc_tensor *x[2]) {
    for (uint32_t i = 0; i < 2; i++)
        x[i] = i < node->op->inputs ? &model->tensors[node->inputs[i]] : NULL;
}

/* The largest code of a tensor. */
static inline int32_t coc_max_code(const coc_tensor *tensor) {
    return (1 << tensor->bits) - 1;
}

#endif
