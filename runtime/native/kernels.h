/* kernels.h - the contract between planner and kernels (internal).
 *
 * Activations are planar: uint8 codes [channels][height][width], no border. A kernel reads nothing
 * outside its input and writes nothing outside its output rows. Every kernel computes
 *
 *   y = clamp(rint((float)(sum + bias[o]) * multiplier[o]) + out_zero, 0, out_max)      ties to even
 *   sum = sum over the window of integer_weight * (x - in_zero), exact; outside the image x = in_zero
 *
 * integer_weight of code q: COC_ODD 2q - (2^bits - 1), COC_SYMMETRIC q - 2^(bits-1). The loader has
 * checked that |sum| + |bias| < 2^31 for every input; (float) rounds to nearest, ties to even.
 */
#ifndef COC_KERNELS_H
#define COC_KERNELS_H

#include "floats.h"

#include <stddef.h>
#include <stdint.h>

typedef enum { COC_ODD = 0, COC_SYMMETRIC = 1 } coc_encoding;

typedef enum { COC_SCALAR, COC_AVX2, COC_AVXVNNI, COC_AVX512, COC_NEON, COC_LEVEL_COUNT } coc_level;

/* Whether the compiler knows AVX-VNNI (gcc 11, clang 12). */
#if defined(__x86_64__) && defined(__has_include)
#if __has_include(<avxvnniintrin.h>)
#define COC_AVX_VNNI
#endif
#endif

/* A convolution layer, everything that a kernel may depend on. */
typedef struct {
    uint32_t in_channels, in_height, in_width;
    uint32_t out_channels, out_height, out_width;
    uint32_t kernel_height, kernel_width, stride, across, pad_top, pad_left, groups;
    uint32_t dilation_down, dilation_across; /* pixels from weight to weight */
    uint32_t weight_bits;      /* 1, 2, 4, 8 */
    coc_encoding encoding;
    uint32_t in_bits;          /* codes of the input are below 2^in_bits */
    int32_t in_zero, out_zero, out_max;
    const uint8_t *codes;      /* packed, low bits first, in the order [out][in / groups][kernel_h][kernel_w] */
    const int32_t *bias;       /* [out] */
    const float *multiplier;   /* [out] */
    int wide;                  /* |sum| + |bias| may reach 2^24, and stays below 2^31; else below 2^24 */
} coc_conv;

/* One way to compute a convolution. `prepare` runs once per session; `run` computes output rows [first, last)
 * of all output channels and may be called by several threads at once, each with its own scratch.
 * weights and scratch are aligned to 64; scratch has undefined contents. */
typedef struct {
    const char *name;          /* what it is: conv3x3s1_w1_avx2 */
    coc_level level;
    int (*accepts)(const coc_conv *layer);
    size_t (*weight_bytes)(const coc_conv *layer);
    void (*prepare)(const coc_conv *layer, void *weights);
    size_t (*scratch_bytes)(const coc_conv *layer);
    void (*run)(const coc_conv *layer, const void *weights, const uint8_t *x, uint8_t *y, void *scratch,
                uint32_t first, uint32_t last);
} coc_conv_kernel;

/* All kernels of this build, best first within a level; the last is the scalar one, which accepts every
 * layer. The planner takes the first whose level is allowed and that accepts the layer. */
extern const coc_conv_kernel *const coc_conv_kernels[];
extern const size_t coc_conv_kernel_count;

/* The code of weight number `index` in a packed array. */
static inline uint32_t coc_code(const uint8_t *codes, uint32_t bits, size_t index) {
    size_t bit = index * bits;
    return (uint32_t)(codes[bit >> 3] >> (bit & 7)) & ((1u << bits) - 1u);
}

static inline int32_t coc_integer(uint32_t code, uint32_t bits, coc_encoding encoding) {
    return encoding == COC_ODD ? 2 * (int32_t)code - (int32_t)((1u << bits) - 1u)
                               : (int32_t)code - (int32_t)(1u << (bits - 1u));
}

/* clamp(rint((float)sum * multiplier) + zero, 0, max). Clamping first keeps the value below 2^22, where
 * adding and subtracting 1.5 * 2^23 rounds to the nearest integer, ties to even; a clamp to integers and
 * rint commute. */
static inline uint8_t coc_requantize(int32_t sum, float multiplier, int32_t zero, int32_t max) {
    float value = (float)sum * multiplier;
    float low = (float)-zero, high = (float)(max - zero);
    value = value < low ? low : value;
    value = value > high ? high : value;
    return (uint8_t)((int32_t)((value + 12582912.0f) - 12582912.0f) + zero);
}

#endif
