/* floats.c - the rounding direction of a thread. */
#include "floats.h"

/* Computed instead of asked for: fegetround of glibc looks at the x87 unit only, which nothing here uses. Upwards the
 * first sum would be larger, downwards and towards zero the second one smaller. */
int coc_rounds_to_nearest(void) {
    const volatile float one = 1.0f, above = 1.0f + FLT_EPSILON, half = FLT_EPSILON / 2;
    return one + half == 1.0f && above + half == 1.0f + 2 * FLT_EPSILON;
}
