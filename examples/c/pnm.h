/* pnm.h - reads binary PNM images: P5 grey, P6 colour, 8 bits. */
#ifndef PNM_H
#define PNM_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    uint32_t channels, height, width;
    uint8_t *pixels; /* interleaved */
} image;

/* The next number of a PNM header, after blanks and comments; -1 if there is none up to 65535. */
static long next_number(FILE *file) {
    long value = -1;
    int c = fgetc(file);
    while (c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '#') {
        if (c == '#')
            while (c != '\n' && c != EOF)
                c = fgetc(file);
        else
            c = fgetc(file);
    }
    for (; c >= '0' && c <= '9'; c = fgetc(file)) {
        value = (value < 0 ? 0 : value) * 10 + (c - '0');
        if (value > 65535)
            return -1;
    }
    return c == ' ' || c == '\t' || c == '\r' || c == '\n' ? value : -1;
}

static const char *read_opened(FILE *file, image *found) {
    const int p = fgetc(file), kind = fgetc(file);
    if (p != 'P' || (kind != '5' && kind != '6'))
        return "not a binary PNM image (P5 or P6)";
    const long width = next_number(file), height = next_number(file), maximum = next_number(file);
    if (width < 1 || height < 1 || maximum != 255)
        return "not an 8-bit PNM image";
    found->channels = kind == '6' ? 3 : 1;
    found->height = (uint32_t)height;
    found->width = (uint32_t)width;
    const size_t bytes = (size_t)found->channels * found->height * found->width;
    found->pixels = malloc(bytes);
    if (found->pixels == NULL)
        return "out of memory";
    return fread(found->pixels, 1, bytes, file) == bytes ? NULL : "truncated";
}

/* NULL, or what is wrong. Free found->pixels in both cases. */
static const char *read_pnm(const char *path, image *found) {
    FILE *file = fopen(path, "rb");
    found->pixels = NULL;
    if (file == NULL)
        return "cannot be opened";
    const char *wrong = read_opened(file, found);
    fclose(file);
    return wrong;
}

#endif
