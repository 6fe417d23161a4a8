/* add.h - addition, for its kernels (internal). */
#ifndef COC_ADD_H
#define COC_ADD_H

#include <stddef.h>
#include <stdint.h>

/* y = clamp(rint((a * a_factor + b * b_factor - zero) * multiplier) + out_zero, 0, out_max) */
typedef struct {
    size_t count;                     /* codes of an operand */
    int32_t a_factor, b_factor, zero; /* factors are 1 to 128; zero is both zero points, scaled */
    int32_t shift;                    /* multiplier is 2^-shift */
    float multiplier;
    int32_t out_zero, out_max;
} coc_addition;

/* Adds the first codes, as many as it can do faster than add.c; their number, which may be 0. */
size_t coc_add_avx2(const coc_addition *op, const uint8_t *a, const uint8_t *b, uint8_t *y);

#endif
