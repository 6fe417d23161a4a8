/* cpu.c - levels of kernels: names, what this CPU and this build have, which a session gets. */
#include "levels.h"

#include <stdlib.h>
#include <string.h>
#if defined(COC_AVX_VNNI)
#include <cpuid.h>
#endif

static const char *const names[COC_LEVEL_COUNT] = {
    [COC_SCALAR] = "scalar", [COC_AVX2] = "avx2", [COC_AVXVNNI] = "avxvnni", [COC_AVX512] = "avx512", [COC_NEON] = "neon",
};
static const coc_level best_first[COC_LEVEL_COUNT] = {COC_AVX512, COC_AVXVNNI, COC_AVX2, COC_NEON, COC_SCALAR};

const char *coc_level_name(coc_level level) {
    return names[level];
}

#if defined(COC_AVX_VNNI)
/* Bit 4 of EAX of leaf 7, subleaf 1: not all compilers that know the instruction know the CPU's feature by name. */
static int cpu_has_avx_vnni(void) {
#if defined(COC_EMULATE_AVX_VNNI) || defined(COC_ASSUME_AVX_VNNI)
    return 1; /* tests; a hypervisor may hide the bit */
#else
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
#endif
}
#endif

static int cpu_has(coc_level level) {
    switch (level) {
    case COC_SCALAR:
        return 1;
#if defined(__x86_64__) && defined(__GNUC__)
    case COC_AVX2:
        return __builtin_cpu_supports("avx2") != 0;
#if defined(COC_AVX_VNNI)
    case COC_AVXVNNI:
        return __builtin_cpu_supports("avx2") && cpu_has_avx_vnni();
#endif
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
    const int has_avx2 = level == COC_AVXVNNI || level == COC_AVX512;
    return other == level || other == COC_SCALAR || (has_avx2 && other == COC_AVX2);
}

coc_status coc_level_choose(const char *name, coc_level *level) {
    if (name == NULL)
        name = getenv("COC_CPU");
    for (size_t i = 0; i < COC_LEVEL_COUNT; i++) {
        *level = best_first[i];
        const int wanted = name == NULL || name[0] == '\0' || strcmp(name, names[*level]) == 0;
        if (wanted && coc_level_available(*level))
            return COC_OK;
    }
    return COC_ERROR_UNSUPPORTED;
}

const char *coc_cpu_level(size_t index) {
    for (size_t i = 0; i < COC_LEVEL_COUNT; i++)
        if (coc_level_available(best_first[i]) && index-- == 0)
            return coc_level_name(best_first[i]);
    return NULL;
}
