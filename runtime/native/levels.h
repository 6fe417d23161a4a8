/* levels.h - levels of kernels (internal; cpu.c). */
#ifndef COC_LEVELS_H
#define COC_LEVELS_H

#include "coc.h"
#include "kernels.h"

const char *coc_level_name(coc_level level);
int coc_level_available(coc_level level);                  /* in this build and on this CPU */
int coc_level_includes(coc_level level, coc_level kernel); /* whether a session of one may run kernels of the other */

/* The level of that name; NULL: that of COC_CPU, else the best. COC_ERROR_UNSUPPORTED if there is none. */
coc_status coc_level_choose(const char *name, coc_level *level);

#endif
