/* level_end.h - ends what a file level_*.h has begun (internal). */
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
