/* open.c - opening, inspecting and releasing models; statuses; memory of the C library. */
#include "floats.h"
#include "reader.h"

#include <stdio.h>
#include <stdlib.h>
#if defined(_WIN32)
#include <malloc.h>
#else
#include <sys/stat.h>
#endif

const char *coc_strerror(coc_status status) {
    switch (status) {
    case COC_OK:
        return "no error";
    case COC_ERROR_ARGUMENT:
        return "an argument is NULL or out of range";
    case COC_ERROR_OPEN:
        return "the file cannot be opened or read";
    case COC_ERROR_MAGIC:
        return "not a .coc file";
    case COC_ERROR_VERSION:
        return "the file's format is newer than this library";
    case COC_ERROR_TRUNCATED:
        return "the file is truncated";
    case COC_ERROR_CHECKSUM:
        return "the file is damaged: its checksum does not hold";
    case COC_ERROR_MALFORMED:
        return "the file is malformed";
    case COC_ERROR_LIMIT:
        return "the model is larger than the limits of this version";
    case COC_ERROR_MEMORY:
        return "out of memory, or the arena is too small";
    case COC_ERROR_UNSUPPORTED:
        return "this CPU or this build does not have the level of kernels that was asked for";
    case COC_ERROR_ROUNDING:
        return "the thread's floating point does not round to nearest: call fesetround(FE_TONEAREST) first";
    case COC_STATUS_COUNT:
        break;
    }
    return "unknown status";
}

static void *library_allocate(void *user, size_t bytes) {
    (void)user;
    if (bytes > SIZE_MAX - COC_ALIGNMENT)
        return NULL;
    const size_t rounded = (size_t)coc_align(bytes);
#if defined(_WIN32)
    return _aligned_malloc(rounded, COC_ALIGNMENT);
#else
    return aligned_alloc(COC_ALIGNMENT, rounded);
#endif
}

static void library_release(void *user, void *memory) {
    (void)user;
#if defined(_WIN32)
    _aligned_free(memory);
#else
    free(memory);
#endif
}

static const coc_allocator library = {library_allocate, library_release, NULL};

static int usable(const coc_allocator *allocator) {
    return allocator->allocate != NULL && allocator->release != NULL;
}

coc_status coc_model_from_memory(const void *data, size_t size, const coc_allocator *allocator,
                                 coc_model **model) {
    if (model == NULL)
        return COC_ERROR_ARGUMENT;
    *model = NULL;
    if (allocator == NULL)
        allocator = &library;
    if (data == NULL || !usable(allocator))
        return COC_ERROR_ARGUMENT;
    if (!coc_rounds_to_nearest())
        return COC_ERROR_ROUNDING;
    return coc_read_model(data, size, allocator, model);
}

/* Size of a file that can be positioned, which is then at its beginning; -1 for any other. */
static long file_size(FILE *file) {
    long size = -1;
    if (fseek(file, 0, SEEK_END) == 0)
        size = ftell(file);
    return size >= 0 && fseek(file, 0, SEEK_SET) == 0 ? size : -1;
}

static coc_status read_file(FILE *file, const coc_allocator *allocator, coc_model **model) {
    uint8_t head[COC_HEADER_BYTES];
    const long size = file_size(file);
    if (size < 0)
        return COC_ERROR_OPEN;
    const size_t first = (size_t)size < sizeof head ? (size_t)size : sizeof head;
    if (fread(head, 1, first, file) != first)
        return COC_ERROR_OPEN;
    coc_status status = coc_check_head(head, (uint64_t)size);
    if (status != COC_OK)
        return status;
    uint8_t *data = allocator->allocate(allocator->user, (size_t)size);
    if (data == NULL)
        return COC_ERROR_MEMORY;
    if (fseek(file, 0, SEEK_SET) != 0 || fread(data, 1, (size_t)size, file) != (size_t)size)
        status = COC_ERROR_OPEN;
    else
        status = coc_read_model(data, (size_t)size, allocator, model);
    allocator->release(allocator->user, data);
    return status;
}

#if !defined(_WIN32)
/* Opening a FIFO waits until somebody writes to it, and a device may never end. */
static int is_regular(const char *path) {
    struct stat found;
    return stat(path, &found) == 0 && S_ISREG(found.st_mode);
}
#else
static int is_regular(const char *path) {
    (void)path;
    return 1;
}
#endif

coc_status coc_model_open(const char *path, const coc_allocator *allocator, coc_model **model) {
    if (model == NULL)
        return COC_ERROR_ARGUMENT;
    *model = NULL;
    if (allocator == NULL)
        allocator = &library;
    if (path == NULL || !usable(allocator))
        return COC_ERROR_ARGUMENT;
    if (!coc_rounds_to_nearest())
        return COC_ERROR_ROUNDING;
    FILE *file = is_regular(path) ? fopen(path, "rb") : NULL;
    if (file == NULL)
        return COC_ERROR_OPEN;
    const coc_status status = read_file(file, allocator, model);
    fclose(file);
    return status;
}

void coc_model_free(coc_model *model) {
    if (model != NULL) {
        const coc_allocator allocator = model->allocator;
        allocator.release(allocator.user, model);
    }
}

coc_status coc_model_inspect(const coc_model *model, coc_model_info *info) {
    if (model == NULL || info == NULL)
        return COC_ERROR_ARGUMENT;
    const coc_tensor *image = &model->tensors[0];
    const coc_segment *last = &model->segments[model->segment_count - 1];
    *info = (coc_model_info){
        .channels = image->channels,
        .height = image->height,
        .width = image->width,
        .classes = model->tensors[last->logits].channels,
        .task = model->task,
        .exits = model->segment_count,
    };
    uint64_t macs = 0, bitops = 0;
    for (uint32_t k = 0; k < model->segment_count; k++) {
        for (uint32_t j = model->segments[k].first; j < model->segments[k].end; j++) {
            macs += model->nodes[j].macs;
            bitops += model->nodes[j].bitops;
        }
        info->macs[k] = macs;
        info->bitops[k] = bitops;
        if (k + 1 < model->segment_count)
            info->thresholds[k] = model->thresholds[k];
    }
    return COC_OK;
}
