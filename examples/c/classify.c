/* classify.c - label of an image: classify MODEL.coc IMAGE.ppm
 *
 * Reads a binary PNM image (P5 grey, P6 colour, 8 bits) of the model's size and prints one line: label, exit
 * taken, confidence, and the microseconds of the run (the best of ten). Build: see README.md beside this file.
 */
#include "coc.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define RUNS 10

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

/* NULL, or what is wrong. */
static const char *read_pnm(FILE *file, image *found) {
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

static double microseconds(void) {
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int complain(const char *where, const char *what) {
    fprintf(stderr, "%s: %s\n", where, what);
    return 1;
}

/* Run the image RUNS times and print the line. */
static coc_status classify(coc_session *session, const image *input) {
    int64_t label = 0, taken = 0;
    float confidence = 0;
    const coc_result result = {.label = &label, .exit = &taken, .confidence = &confidence};
    double best = 0;
    for (int i = 0; i < RUNS; i++) {
        const double begin = microseconds();
        const coc_status status = coc_run(session, input->pixels, 1, COC_INTERLEAVED, &result);
        const double spent = microseconds() - begin;
        if (status != COC_OK)
            return status;
        best = i == 0 || spent < best ? spent : best;
    }
    printf("label %lld, exit %lld, confidence %.4f, %.0f us (%s)\n", (long long)label, (long long)taken,
           (double)confidence, best, coc_session_cpu(session));
    return COC_OK;
}

static int run(const char *model_path, const char *image_path, const image *input) {
    coc_model *model;
    coc_session *session = NULL;
    coc_model_info info;
    int failed = 0;
    coc_status status = coc_model_open(model_path, NULL, &model);
    if (status == COC_OK)
        status = coc_model_inspect(model, &info);
    if (status == COC_OK)
        status = coc_session_create(model, NULL, &session);
    if (status != COC_OK) {
        failed = complain(model_path, coc_strerror(status));
    } else if (input->channels != info.channels || input->height != info.height || input->width != info.width) {
        fprintf(stderr, "%s: the model takes %ux%u pixels of %u channels\n", image_path, (unsigned)info.width,
                (unsigned)info.height, (unsigned)info.channels);
        failed = 1;
    } else if ((status = classify(session, input)) != COC_OK) {
        failed = complain(model_path, coc_strerror(status));
    }
    coc_session_free(session);
    coc_model_free(model);
    return failed;
}

int main(int argc, char **argv) {
    if (argc != 3)
        return complain("usage", "classify MODEL.coc IMAGE.ppm");
    FILE *file = fopen(argv[2], "rb");
    if (file == NULL)
        return complain(argv[2], "cannot be opened");
    image input = {0, 0, 0, NULL};
    const char *wrong = read_pnm(file, &input);
    fclose(file);
    const int failed = wrong != NULL ? complain(argv[2], wrong) : run(argv[1], argv[2], &input);
    free(input.pixels);
    return failed;
}
