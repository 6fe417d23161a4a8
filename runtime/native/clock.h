/* clock.h - a clock for profiles (internal). */
#ifndef COC_CLOCK_H
#define COC_CLOCK_H

#include <stdint.h>

/* Nanoseconds since some moment. Never goes back where the system has such a clock. */
uint64_t coc_nanoseconds(void);

#endif
