/* codes.h - packed weights as integers (internal). */
#ifndef COC_CODES_H
#define COC_CODES_H

#include "kernels.h"

/* Packed codes as integers: int16 [count]. */
void coc_decode(const uint8_t *codes, uint32_t bits, coc_encoding encoding, size_t count, int16_t *integers);

#endif
