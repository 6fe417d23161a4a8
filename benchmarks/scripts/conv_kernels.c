/* conv_kernels.c - timing of one convolution kernel, for conv_kernels.py (built there, with runtime/native/). */
#include "kernels.h"

#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

typedef struct {
    const coc_conv_kernel *kernel;
    coc_conv layer;
    int copies;
    uint8_t *x, *y, *scratch;
    uint8_t *weights[64];
} bench;

int bench_kernel_count(void) {
    return (int)coc_conv_kernel_count;
}

const char *bench_kernel_name(int index) {
    return coc_conv_kernels[index]->name;
}

int bench_kernel_level(int index) {
    return (int)coc_conv_kernels[index]->level;
}

static void *room(size_t bytes) {
    return aligned_alloc(64, (bytes + 127) / 64 * 64);
}

/* shape: in_channels, height, width, out_channels, kernel, stride, weight_bits, in_bits, in_zero, out_max.
 * Null when the kernel does not accept the layer. Copies have their own weights, as layers of a network do. */
bench *bench_open(int index, const int32_t *shape, const uint8_t *codes, const int32_t *bias, const float *multiplier,
                  const uint8_t *x, int copies) {
    const uint32_t kernel = (uint32_t)shape[4], stride = (uint32_t)shape[5];
    bench *b = calloc(1, sizeof *b);
    b->kernel = coc_conv_kernels[index];
    b->copies = copies;
    b->layer = (coc_conv){
        .in_channels = (uint32_t)shape[0], .in_height = (uint32_t)shape[1], .in_width = (uint32_t)shape[2],
        .out_channels = (uint32_t)shape[3], .out_height = ((uint32_t)shape[1] - 1) / stride + 1,
        .out_width = ((uint32_t)shape[2] - 1) / stride + 1, .kernel_height = kernel, .kernel_width = kernel,
        .stride = stride, .across = stride, .pad_top = kernel / 2, .pad_left = kernel / 2, .groups = 1,
        .dilation_down = 1, .dilation_across = 1,
        .weight_bits = (uint32_t)shape[6],
        .encoding = shape[6] == 8 ? COC_SYMMETRIC : COC_ODD, .in_bits = (uint32_t)shape[7], .in_zero = shape[8],
        .out_zero = 0, .out_max = shape[9], .codes = codes, .bias = bias, .multiplier = multiplier,
    };
    if (!b->kernel->accepts(&b->layer)) {
        free(b);
        return NULL;
    }
    const size_t pixels = (size_t)b->layer.in_height * b->layer.in_width;
    b->x = room(b->layer.in_channels * pixels);
    memcpy(b->x, x, b->layer.in_channels * pixels);
    b->y = room(b->layer.out_channels * pixels);
    b->scratch = room(b->kernel->scratch_bytes(&b->layer));
    for (int i = 0; i < copies; i++) {
        b->weights[i] = room(b->kernel->weight_bytes(&b->layer));
        b->kernel->prepare(&b->layer, b->weights[i]);
    }
    return b;
}

/* Time stamp counter ticks of one layer: all copies once, divided by their number. */
double bench_run(bench *b) {
    const uint64_t start = __rdtsc();
    for (int i = 0; i < b->copies; i++)
        b->kernel->run(&b->layer, b->weights[i], b->x, b->y, b->scratch, 0, b->layer.out_height);
    return (double)(__rdtsc() - start) / b->copies;
}

void bench_output(const bench *b, uint8_t *y) {
    memcpy(y, b->y, (size_t)b->layer.out_channels * b->layer.out_height * b->layer.out_width);
}

size_t bench_scratch_bytes(const bench *b) {
    return b->kernel->scratch_bytes(&b->layer);
}

size_t bench_weight_bytes(const bench *b) {
    return b->kernel->weight_bytes(&b->layer);
}

void bench_close(bench *b) {
    for (int i = 0; i < b->copies; i++)
        free(b->weights[i]);
    free(b->x);
    free(b->y);
    free(b->scratch);
    free(b);
}

/* Core cycles of one time stamp tick, from a chain of 4000 multiplications of three cycles each. */
double bench_cycles_per_tick(void) {
    const uint64_t start = __rdtsc();
    uint64_t value = 1;
    for (int i = 0; i < 500; i++)
        __asm__ volatile("imul $3, %0, %0\n\timul $3, %0, %0\n\timul $3, %0, %0\n\timul $3, %0, %0\n\t"
                         "imul $3, %0, %0\n\timul $3, %0, %0\n\timul $3, %0, %0\n\timul $3, %0, %0"
                         : "+r"(value));
    return 12000.0 / (double)(__rdtsc() - start);
}

double bench_ticks(void) {
    return (double)__rdtsc();
}
