/* cpu.c - levels of kernels: names, what this CPU and this build have, which a session gets. */
#include "levels.h"

#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"scalar", "avx2", "avx512", "neon"};
static const coc_level best_first[] = {COC_AVX512, COC_AVX2, COC_NEON, COC_SCALAR};
#define LEVEL_COUNT (sizeof best_first / sizeof best_first[0])

const char *coc_level_name(coc_level level) {
    return names[level];
}

static int cpu_has(coc_level level) {
    switch (level) {
    case COC_SCALAR:
        return 1;
#if defined(__x86_64__) && defined(__GNUC__)
    case COC_AVX2:
        return __builtin_cpu_supports("avx2") != 0;
    case COC_AVX512:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
#elif defined(__aarch64__)
    case COC_NEON:
        return 1;
#endif
    default:
        return 0;
    }
}

int coc_level_available(coc_level level) {
    int built = 0;
    for (size_t i = 0; i < coc_conv_kernel_count; i++)
        built |= coc_conv_kernels[i]->level == level;
    return built && cpu_has(level);
}

int coc_level_includes(coc_level level, coc_level other) {
    return other == level || other == COC_SCALAR || (level == COC_AVX512 && other == COC_AVX2);
}

coc_status coc_level_choose(const char *name, coc_level *level) {
    if (name == NULL)
        name = getenv("COC_CPU");
    for (size_t i = 0; i < LEVEL_COUNT; i++) {
        *level = best_first[i];
        const int wanted = name == NULL || name[0] == '\0' || strcmp(name, names[*level]) == 0;
        if (wanted && coc_level_available(*level))
            return COC_OK;
    }
    return COC_ERROR_UNSUPPORTED;
}

const char *coc_cpu_level(size_t index) {
    for (size_t i = 0; i < LEVEL_COUNT; i++)
        if (coc_level_available(best_first[i]) && index-- == 0)
            return coc_level_name(best_first[i]);
    return NULL;
}
