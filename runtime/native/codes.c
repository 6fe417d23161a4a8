/* codes.c - packed weights as integers. */
#include "codes.h"

void coc_decode(const uint8_t *codes, uint32_t bits, coc_encoding encoding, size_t count, int16_t *integers) {
    for (size_t i = 0; i < count; i++)
        integers[i] = (int16_t)coc_integer(coc_code(codes, bits, i), bits, encoding);
}
