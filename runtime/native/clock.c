/* clock.c - the monotonic clock of POSIX or Windows; elsewhere the one of C11. */
#include "clock.h"

#if defined(_WIN32)

#include <windows.h>

uint64_t coc_nanoseconds(void) {
    LARGE_INTEGER ticks, frequency;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&frequency);
    const uint64_t count = (uint64_t)ticks.QuadPart, rate = (uint64_t)frequency.QuadPart;
    return count / rate * UINT64_C(1000000000) + count % rate * UINT64_C(1000000000) / rate;
}

#else

#include <time.h>

uint64_t coc_nanoseconds(void) {
    struct timespec now;
#if defined(CLOCK_MONOTONIC)
    const int failed = clock_gettime(CLOCK_MONOTONIC, &now);
#else
    const int failed = timespec_get(&now, TIME_UTC) != TIME_UTC;
#endif
    return failed ? 0 : (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

#endif
