/* table.h - operators by their number in .coc files (internal). */
#ifndef COC_TABLE_H
#define COC_TABLE_H

#include <stdint.h>

/* NULL if there is none. */
const struct coc_op *coc_op_of(uint32_t kind);

/* Of an operator that there is; static storage. */
const char *coc_op_name(uint32_t kind);

#endif
