/* fuzz.c - libFuzzer target: open any bytes and run what opens.
 *
 *   make fuzz FUZZ_SECONDS=600
 *
 * Size and checksum are refitted, so that mutants reach the parser behind them.
 */
#include "coc.h"
#include "coc_limits.h"

#include <stdlib.h>
#include <string.h>

#define MAX_MACS UINT64_C(2000000) /* of a model that is run */
#define MAX_BYTES ((size_t)16 << 20)

static void put32(uint8_t *p, uint32_t value) {
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(value >> 8 * i);
}

static void refit(uint8_t *data, size_t size) {
    uint32_t crc = UINT32_C(0xFFFFFFFF);
    if (size < COC_HEADER_BYTES)
        return;
    put32(data + 16, (uint32_t)size);
    for (size_t i = 16; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0xEDB88320) : 0);
    }
    put32(data + 12, ~crc);
}

static void *sized(size_t bytes) {
    void *memory = malloc(bytes ? bytes : 1);
    if (memory == NULL)
        abort();
    return memory;
}

/* Two images in a layout, on `threads` threads; results in arrays of exactly their size. */
static void run(coc_model *model, const coc_model_info *info, const coc_session_options *options, coc_layout layout) {
    const size_t image = (size_t)info->channels * info->height * info->width, bytes = coc_session_bytes(model, options);
    coc_session *session;
    if (bytes == 0 || bytes > MAX_BYTES || coc_session_create(model, options, &session) != COC_OK)
        return;
    uint8_t *images = sized(2 * image);
    for (size_t i = 0; i < 2 * image; i++)
        images[i] = (uint8_t)(i * 37 + (i >> 8));
    memset(images, 255, image);
    float *logits = sized(2 * info->classes * sizeof(float)), confidence[2];
    float *all = sized(2 * (size_t)info->exits * info->classes * sizeof(float));
    uint64_t *times = sized(2 * ((size_t)coc_model_operators(model) + 1) * sizeof(uint64_t));
    int64_t label[2], taken[2], bitops[2];
    const coc_result result = {logits, label, taken, confidence, bitops};
    if (coc_run(session, images, 2, layout, &result) != COC_OK ||
        coc_run_all_exits(session, images, 2, layout, all) != COC_OK ||
        coc_profile(session, images, 2, layout, times) != COC_OK)
        abort();
    for (int i = 0; i < 2; i++)
        if (label[i] < 0 || label[i] >= info->classes || taken[i] < 0 || taken[i] >= info->exits)
            abort();
    for (int i = 0; info->task == COC_REGRESSION && i < 2; i++)
        if (label[i] != 0 || (taken[i] == 0) != (info->exits == 1))
            abort();
    free(times);
    free(all);
    free(logits);
    free(images);
    coc_session_free(session);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
    static const char *const levels[] = {"scalar", "avx2", "avxvnni", "avx512", "neon"};
    uint8_t *data = sized(size);
    coc_model *model;
    coc_model_info info;
    if (size > 0)
        memcpy(data, input, size);
    refit(data, size);
    const coc_status status = coc_model_from_memory(data, size, NULL, &model);
    if ((status == COC_OK) != (model != NULL))
        abort();
    if (status == COC_OK && coc_model_inspect(model, &info) == COC_OK && info.macs[info.exits - 1] <= MAX_MACS)
        for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
            const coc_session_options options = {.cpu = levels[i], .threads = i == 0 ? 2 : 1};
            run(model, &info, &options, i % 2 ? COC_INTERLEAVED : COC_PLANAR);
        }
    coc_model_free(model);
    free(data);
    return 0;
}
