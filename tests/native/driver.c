/* driver.c - the C core under sanitizers, one request after the other, for benchmarks/scripts/native_driver.py.
 *
 * A request is a byte, a u32 and so many bytes; an answer a u32 and so many bytes. The machine is little
 * endian. Buffers have exactly the size that the contract asks for, so that AddressSanitizer sees a step beyond.
 */
#include "check.h"
#include "clock.h"
#include "floats.h"
#include "gate.h"
#include "plan.h"

#include <fenv.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

void share_model(const void *data, size_t size, int forks); /* races.c */

/* A clock for coc_profile that tells how often it was asked: its n-th time is n later than the one before. */
static uint64_t asked, now;

uint64_t coc_nanoseconds(void) {
    return now += ++asked;
}

typedef struct {
    const uint8_t *at, *end;
} input;

typedef struct {
    uint8_t *data;
    size_t size, capacity;
} output;

static const void *take(input *in, size_t size) {
    CHECK((size_t)(in->end - in->at) >= size);
    in->at += size;
    return in->at - size;
}

static uint32_t take32(input *in) {
    uint32_t value;
    memcpy(&value, take(in, 4), 4);
    return value;
}

/* A block of exactly `size` bytes, aligned to 64. */
static void *block(size_t size, int fill) {
    void *memory = NULL;
    CHECK(posix_memalign(&memory, 64, size ? size : 1) == 0);
    memset(memory, fill, size);
    return memory;
}

static void *take_copy(input *in, size_t size) {
    void *copy = malloc(size ? size : 1);
    CHECK(copy != NULL);
    memcpy(copy, take(in, size), size);
    return copy;
}

static void put(output *out, const void *data, size_t size) {
    if (out->size + size > out->capacity) {
        out->capacity = 2 * (out->size + size);
        out->data = realloc(out->data, out->capacity);
        CHECK(out->data != NULL);
    }
    if (size > 0)
        memcpy(out->data + out->size, data, size);
    out->size += size;
}

static void put_status(output *out, coc_status status) {
    const uint8_t byte = (uint8_t)status;
    put(out, &byte, 1);
}

static void open_memory(input *in, output *out) {
    const size_t size = (size_t)(in->end - in->at);
    void *data = take_copy(in, size);
    coc_model *model = (coc_model *)data;
    const coc_status status = coc_model_from_memory(data, size, NULL, &model);
    CHECK((status == COC_OK) == (model != NULL));
    coc_model_free(model);
    free(data);
    put_status(out, status);
}

static void open_path(input *in, output *out) {
    coc_model *model;
    put_status(out, coc_model_open((const char *)in->at, NULL, &model));
    coc_model_free(model);
}

/* Rows [first, last) in a fresh output; the other rows must stay as they were. */
static void run_rows(const coc_conv_kernel *kernel, const coc_conv *conv, const void *weights, const uint8_t *x,
                     uint8_t *y, uint32_t first, uint32_t last) {
    const size_t width = conv->out_width, plane = width * conv->out_height;
    uint8_t *fresh = block(plane * conv->out_channels, 0xA5);
    void *scratch = block(kernel->scratch_bytes(conv), 0xCD);
    kernel->run(conv, weights, x, fresh, scratch, first, last);
    for (size_t i = 0; i < plane * conv->out_channels; i++) {
        const size_t row = i % plane / width;
        if (row >= first && row < last)
            y[i] = fresh[i];
        else
            CHECK(fresh[i] == 0xA5);
    }
    free(scratch);
    free(fresh);
}

static void run_kernel(const coc_conv_kernel *kernel, const coc_conv *conv, const uint8_t *x, output *out) {
    const size_t bytes = (size_t)conv->out_channels * conv->out_height * conv->out_width;
    void *weights = block(kernel->weight_bytes(conv), 0xCD);
    kernel->prepare(conv, weights);
    uint8_t *whole = block(bytes, 0), *parts = block(bytes, 0);
    run_rows(kernel, conv, weights, x, whole, 0, conv->out_height);
    for (uint32_t count = 2; count <= 3; count++) {
        for (uint32_t part = count; part-- > 0;)
            if (conv->out_height * part / count < conv->out_height * (part + 1) / count)
                run_rows(kernel, conv, weights, x, parts, conv->out_height * part / count,
                         conv->out_height * (part + 1) / count);
        CHECK(memcmp(whole, parts, bytes) == 0);
    }
    char name[64] = {0};
    strncpy(name, kernel->name, sizeof name - 1);
    put(out, name, sizeof name);
    put(out, whole, bytes);
    free(parts);
    free(whole);
    free(weights);
}

/* Every kernel of the table that this CPU has and that accepts the layer: its name and what it computes. */
static void run_kernels(input *in, output *out) {
    coc_conv conv;
    uint32_t field[20];
    memcpy(field, take(in, sizeof field), sizeof field);
    conv = (coc_conv){
        .in_channels = field[0], .in_height = field[1], .in_width = field[2], .out_channels = field[3],
        .out_height = field[4], .out_width = field[5], .kernel_height = field[6], .kernel_width = field[7],
        .stride = field[8], .across = field[8], .pad_top = field[9], .pad_left = field[10], .groups = field[11],
        .dilation_down = 1, .dilation_across = 1,
        .weight_bits = field[12], .encoding = (coc_encoding)field[13], .in_bits = field[14],
        .in_zero = (int32_t)field[15], .out_zero = (int32_t)field[16], .out_max = (int32_t)field[17],
        .wide = (int)field[19],
    };
    uint8_t *codes = take_copy(in, field[18]);
    int32_t *bias = take_copy(in, conv.out_channels * sizeof(int32_t));
    float *multiplier = take_copy(in, conv.out_channels * sizeof(float));
    uint8_t *x = take_copy(in, (size_t)conv.in_channels * conv.in_height * conv.in_width);
    conv.codes = codes;
    conv.bias = bias;
    conv.multiplier = multiplier;
    for (size_t i = 0; i < coc_conv_kernel_count; i++) {
        const coc_conv_kernel *kernel = coc_conv_kernels[i];
        if (coc_level_available(kernel->level) && kernel->accepts(&conv))
            run_kernel(kernel, &conv, x, out);
    }
    free(x);
    free(multiplier);
    free(bias);
    free(codes);
}

static void run_session(coc_session *session, const coc_model_info *info, input *in, output *out, uint32_t layout,
                        uint32_t all_exits) {
    const size_t count = take32(in);
    uint8_t *images = take_copy(in, count * info->channels * info->height * info->width);
    const size_t logit_count = count * info->classes * (all_exits ? info->exits : 1);
    float *logits = block(logit_count * sizeof(float), 0xFF);
    int64_t *numbers = block(3 * count * sizeof(int64_t), 0xFF);
    float *confidence = block(count * sizeof(float), 0xFF);
    const coc_result result = {logits, numbers, numbers + count, confidence, numbers + 2 * count};
    const coc_status status =
        all_exits ? coc_run_all_exits(session, images, count, (coc_layout)layout, logits)
                  : coc_run(session, images, count, (coc_layout)layout, &result);
    put_status(out, status);
    put(out, logits, logit_count * sizeof(float));
    if (!all_exits) {
        put(out, numbers, 3 * count * sizeof(int64_t));
        put(out, confidence, count * sizeof(float));
    }
    free(confidence);
    free(numbers);
    free(logits);
    free(images);
}

/* A whole model, in an arena of exactly the right size; one byte less must be refused. */
static void run_model(input *in, output *out) {
    const size_t size = take32(in);
    void *data = take_copy(in, size);
    coc_model *model;
    coc_status status = coc_model_from_memory(data, size, NULL, &model);
    free(data);
    const uint32_t threads = take32(in), layout = take32(in), all_exits = take32(in), given = take32(in);
    float *thresholds = take_copy(in, given * sizeof(float));
    const char *cpu = take(in, 16);
    coc_session_options options = {.thresholds = given ? thresholds : NULL, .threads = threads};
    options.cpu = cpu[0] != 0 ? cpu : NULL;
    coc_session *session = NULL;
    coc_model_info info = {0};
    if (status == COC_OK) {
        CHECK(coc_model_inspect(model, &info) == COC_OK);
        options.arena_bytes = coc_session_bytes(model, &options);
        options.arena = block(options.arena_bytes, 0xCD);
        if (options.arena_bytes > 0) {
            options.arena_bytes--;
            CHECK(coc_session_create(model, &options, &session) == COC_ERROR_MEMORY && session == NULL);
            options.arena_bytes++;
        }
        status = coc_session_create(model, &options, &session);
        CHECK((status == COC_OK) == (session != NULL) && (status == COC_OK) == (options.arena_bytes > 0));
    }
    if (status == COC_OK)
        run_session(session, &info, in, out, layout, all_exits);
    else
        put_status(out, status);
    coc_session_free(session);
    coc_model_free(model);
    free(options.arena);
    free(thresholds);
}

typedef struct {
    uint32_t allocations, failing, live;
} counter;

static void *count_allocation(void *user, size_t bytes) {
    counter *count = user;
    if (++count->allocations == count->failing)
        return NULL;
    count->live++;
    return block(bytes, 0xCD);
}

static void count_release(void *user, void *memory) {
    counter *count = user;
    CHECK(memory != NULL && count->live > 0);
    count->live--;
    free(memory);
}

/* Open and run a file, its first allocation failing, then its second and so on; says how many there are. */
static void fail_allocations(input *in, output *out) {
    const char *path = (const char *)in->at;
    for (uint32_t failing = 1;; failing++) {
        counter count = {0, failing, 0};
        const coc_allocator allocator = {count_allocation, count_release, &count};
        coc_model *model = NULL;
        coc_session *session = NULL;
        coc_status status = coc_model_open(path, &allocator, &model);
        if (status == COC_OK)
            status = coc_session_create(model, NULL, &session);
        if (status == COC_OK) {
            coc_model_info info;
            CHECK(coc_model_inspect(model, &info) == COC_OK);
            const size_t bytes = (size_t)info.channels * info.height * info.width;
            uint8_t *image = block(bytes, 7);
            const coc_result nothing = {0};
            const uint32_t before = count.allocations;
            CHECK(coc_run(session, image, 1, COC_PLANAR, &nothing) == COC_OK);
            CHECK(count.allocations == before);
            free(image);
        }
        CHECK(status == (count.allocations >= failing ? COC_ERROR_MEMORY : COC_OK));
        coc_session_free(session);
        coc_model_free(model);
        CHECK(count.live == 0);
        if (status == COC_OK) {
            put(out, &count.allocations, 4);
            return;
        }
    }
}

/* Every status has a line of its own; numbers that are none have one too. */
static void all_statuses(output *out) {
    for (int status = -1; status <= COC_STATUS_COUNT; status++) {
        const char *line = coc_strerror((coc_status)status);
        CHECK(line != NULL);
        put(out, line, strlen(line) + 1);
    }
}

static void refuse_arguments(input *in, output *out) {
    const size_t size = (size_t)(in->end - in->at);
    coc_model *model = NULL;
    coc_session *session = NULL;
    const float bad[COC_MAX_EXITS] = {-1};
    float nan[COC_MAX_EXITS];
    memset(nan, 0xFF, sizeof nan);
    CHECK(coc_model_from_memory(NULL, 5, NULL, &model) == COC_ERROR_ARGUMENT);
    CHECK(coc_model_from_memory(in->at, size, NULL, NULL) == COC_ERROR_ARGUMENT);
    CHECK(coc_model_open(NULL, NULL, &model) == COC_ERROR_ARGUMENT);
    CHECK(coc_model_from_memory(in->at, size, NULL, &model) == COC_OK);
    coc_session_options options = {.threads = COC_MAX_THREADS + 1};
    CHECK(coc_session_create(model, &options, &session) == COC_ERROR_ARGUMENT);
    CHECK(coc_session_bytes(model, &options) == 0 && coc_session_bytes(NULL, NULL) == 0);
    options = (coc_session_options){.thresholds = bad};
    CHECK(coc_session_create(model, &options, &session) == COC_ERROR_ARGUMENT);
    options.thresholds = nan;
    CHECK(coc_session_create(model, &options, &session) == COC_ERROR_ARGUMENT);
    options = (coc_session_options){.cpu = "mmx"};
    CHECK(coc_session_create(model, &options, &session) == COC_ERROR_UNSUPPORTED);
    options = (coc_session_options){.arena = (char *)nan + 1, .arena_bytes = SIZE_MAX};
    CHECK(coc_session_create(model, &options, &session) == COC_ERROR_ARGUMENT);
    CHECK(coc_session_create(NULL, NULL, &session) == COC_ERROR_ARGUMENT);
    CHECK(coc_session_create(model, NULL, NULL) == COC_ERROR_ARGUMENT);
    CHECK(coc_model_inspect(model, NULL) == COC_ERROR_ARGUMENT);
    CHECK(coc_session_create(model, NULL, &session) == COC_OK);
    const coc_result nothing = {0};
    const uint8_t pixel = 0;
    CHECK(coc_run(session, NULL, 0, COC_PLANAR, &nothing) == COC_OK);
    CHECK(coc_run(session, NULL, 1, COC_PLANAR, &nothing) == COC_ERROR_ARGUMENT);
    CHECK(coc_run(session, &pixel, 1, COC_PLANAR, NULL) == COC_ERROR_ARGUMENT);
    CHECK(coc_run(session, &pixel, 0, (coc_layout)2, &nothing) == COC_ERROR_ARGUMENT);
    CHECK(coc_run(NULL, &pixel, 1, COC_PLANAR, &nothing) == COC_ERROR_ARGUMENT);
    CHECK(coc_run_all_exits(session, &pixel, 1, COC_PLANAR, NULL) == COC_ERROR_ARGUMENT);
    uint64_t times[1];
    coc_operator found;
    CHECK(coc_profile(session, NULL, 0, COC_PLANAR, NULL) == COC_OK);
    CHECK(coc_profile(session, NULL, 1, COC_PLANAR, times) == COC_ERROR_ARGUMENT);
    CHECK(coc_profile(session, &pixel, 1, COC_PLANAR, NULL) == COC_ERROR_ARGUMENT);
    CHECK(coc_profile(session, &pixel, 0, (coc_layout)2, times) == COC_ERROR_ARGUMENT);
    CHECK(coc_profile(NULL, &pixel, 1, COC_PLANAR, times) == COC_ERROR_ARGUMENT);
    CHECK(coc_model_operators(NULL) == 0 && coc_model_operators(model) > 0);
    CHECK(coc_model_operator(model, coc_model_operators(model), &found) == COC_ERROR_ARGUMENT);
    CHECK(coc_model_operator(model, 0, NULL) == COC_ERROR_ARGUMENT);
    CHECK(coc_model_operator(NULL, 0, &found) == COC_ERROR_ARGUMENT);
    coc_session_free(session);
    coc_session_free(NULL);
    coc_model_free(model);
    coc_model_free(NULL);
    put_status(out, COC_OK);
}

/* Profile a file on a level: of each operator kind, exit and costs, then each image's times. */
static void profile(input *in, output *out) {
    const size_t size = take32(in);
    coc_model *model;
    coc_session *session;
    coc_model_info info;
    CHECK(coc_model_from_memory(take(in, size), size, NULL, &model) == COC_OK);
    const coc_session_options options = {.cpu = take(in, 16)};
    CHECK(coc_model_inspect(model, &info) == COC_OK && coc_session_create(model, &options, &session) == COC_OK);
    const uint32_t operators = coc_model_operators(model), layout = take32(in), count = take32(in);
    put(out, &operators, 4);
    for (uint32_t j = 0; j < operators; j++) {
        coc_operator found;
        char kind[24] = {0};
        CHECK(coc_model_operator(model, j, &found) == COC_OK && strlen(found.kind) < sizeof kind);
        const uint64_t numbers[3] = {found.exit, found.macs, found.bitops};
        memcpy(kind, found.kind, strlen(found.kind));
        put(out, kind, sizeof kind);
        put(out, numbers, sizeof numbers);
    }
    uint8_t *images = take_copy(in, count * info.channels * info.height * info.width);
    const size_t bytes = count * (operators + (size_t)1) * sizeof(uint64_t);
    uint64_t *times = block(bytes, 0xFF);
    asked = 0;
    CHECK(coc_profile(session, images, count, (coc_layout)layout, times) == COC_OK);
    put(out, times, bytes);
    free(times);
    free(images);
    coc_session_free(session);
    coc_model_free(model);
}

/* Confidences of rows of logits. */
static void confidences(input *in, output *out) {
    const uint32_t classes = take32(in);
    while (in->at < in->end) {
        float *logits = take_copy(in, classes * sizeof(float));
        const float found = coc_confidence(logits, classes);
        put(out, &found, sizeof found);
        free(logits);
    }
}

/* Every function that computes, in a thread that does not round to nearest; a session that was made before runs again
 * once it does. */
static void refuse_rounding(const coc_model *model, coc_session *session, const uint8_t *image, const void *data,
                            size_t size) {
    const coc_result nothing = {0};
    coc_model *other;
    coc_session *second;
    float logits[1] = {0};
    uint64_t times[1] = {0};
    CHECK(coc_model_from_memory(data, size, NULL, &other) == COC_ERROR_ROUNDING && other == NULL);
    CHECK(coc_model_open("any", NULL, &other) == COC_ERROR_ROUNDING && other == NULL);
    CHECK(coc_session_bytes(model, NULL) > 0);
    CHECK(coc_session_create(model, NULL, &second) == COC_ERROR_ROUNDING && second == NULL);
    CHECK(coc_run(session, image, 1, COC_PLANAR, &nothing) == COC_ERROR_ROUNDING);
    CHECK(coc_run_all_exits(session, image, 1, COC_PLANAR, logits) == COC_ERROR_ROUNDING && logits[0] == 0);
    CHECK(coc_profile(session, image, 1, COC_PLANAR, times) == COC_ERROR_ROUNDING && times[0] == 0);
}

static void rounding(input *in, output *out) {
    static const int modes[] = {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    const size_t size = (size_t)(in->end - in->at);
    const coc_session_options options = {.threads = 2};
    const coc_result nothing = {0};
    coc_model *model;
    coc_session *session;
    coc_model_info info;
    CHECK(coc_model_from_memory(in->at, size, NULL, &model) == COC_OK);
    CHECK(coc_model_inspect(model, &info) == COC_OK && coc_session_create(model, &options, &session) == COC_OK);
    uint8_t *image = block((size_t)info.channels * info.height * info.width, 7);
    for (int i = 0; i < 3; i++) {
        CHECK(fesetround(modes[i]) == 0);
        refuse_rounding(model, session, image, in->at, size);
        CHECK(fesetround(FE_TONEAREST) == 0);
        CHECK(coc_run(session, image, 1, COC_PLANAR, &nothing) == COC_OK);
    }
#if defined(__x86_64__)
    for (unsigned mode = _MM_ROUND_DOWN; mode <= _MM_ROUND_TOWARD_ZERO; mode += _MM_ROUND_DOWN) {
        _MM_SET_ROUNDING_MODE(mode); /* which fegetround does not see */
        refuse_rounding(model, session, image, in->at, size);
        _MM_SET_ROUNDING_MODE(_MM_ROUND_NEAREST);
    }
#endif
    free(image);
    coc_session_free(session);
    coc_model_free(model);
    put_status(out, COC_OK);
}

/* From now on this thread, and those it starts, treat denormal numbers as zero, or no longer. */
static void flush_denormals(input *in, output *out) {
    const uint32_t on = take32(in);
    const volatile float denormal = 1e-40f;
#if defined(__x86_64__)
    _mm_setcsr((_mm_getcsr() & ~0x8040u) | (on ? 0x8040u : 0));
#elif defined(__aarch64__)
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    control = (control & ~(UINT64_C(1) << 24)) | (uint64_t)on << 24;
    __asm__ volatile("msr fpcr, %0" : : "r"(control));
#endif
    CHECK((denormal * 2 == 0) == (on != 0));
    put_status(out, COC_OK);
}

static void share(input *in, output *out) {
    const uint32_t forks = take32(in);
    share_model(in->at, (size_t)(in->end - in->at), forks != 0);
    put_status(out, COC_OK);
}

static void levels(output *out) {
    for (coc_level level = COC_SCALAR; level < COC_LEVEL_COUNT; level++)
        if (coc_level_available(level))
            put(out, coc_level_name(level), strlen(coc_level_name(level)) + 1);
}

static void answer(uint8_t command, input *in, output *out) {
    switch (command) {
    case 'o': open_memory(in, out); break;
    case 'p': open_path(in, out); break;
    case 'k': run_kernels(in, out); break;
    case 'r': run_model(in, out); break;
    case 'm': fail_allocations(in, out); break;
    case 's': all_statuses(out); break;
    case 'a': refuse_arguments(in, out); break;
    case 'l': levels(out); break;
    case 't': profile(in, out); break;
    case 'c': confidences(in, out); break;
    case 'e': rounding(in, out); break;
    case 'z': flush_denormals(in, out); break;
    case 'h': share(in, out); break;
    default: CHECK(0);
    }
}

int main(void) {
    uint8_t command;
    uint32_t size;
    while (fread(&command, 1, 1, stdin) == 1 && fread(&size, 4, 1, stdin) == 1) {
        uint8_t *data = malloc(size + 1u);
        CHECK(data != NULL && fread(data, 1, size, stdin) == size);
        data[size] = 0;
        input in = {data, data + size};
        output out = {NULL, 0, 0};
        answer(command, &in, &out);
        const uint32_t length = (uint32_t)out.size;
        fwrite(&length, 4, 1, stdout);
        fwrite(out.data, 1, out.size, stdout);
        fflush(stdout);
        free(out.data);
        free(data);
    }
    return 0;
}
