/* level_avxvnni.h - begins code for CPUs with AVX2 and AVX-VNNI, up to level_end.h (internal). */
#if defined(COC_EMULATE_AVX_VNNI)
#include "level_avx2.h"
#else
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,avxvnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,avxvnni")
#endif
#endif
