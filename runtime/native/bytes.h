/* bytes.h - little-endian numbers at any address (internal). */
#ifndef COC_BYTES_H
#define COC_BYTES_H

#include <stddef.h>
#include <stdint.h>

static inline uint32_t get16(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static inline uint32_t get32(const uint8_t *p) {
    return get16(p) | get16(p + 2) << 16;
}

static inline int32_t get_i8(const uint8_t *p) {
    return p[0] < 128 ? p[0] : (int32_t)p[0] - 256;
}

static inline int all_zero(const uint8_t *p, size_t count) {
    while (count > 0)
        if (p[--count] != 0)
            return 0;
    return 1;
}

#endif
