/* check.h - what makes a graph legal beyond its fields (internal). */
#ifndef COC_CHECK_H
#define COC_CHECK_H

#include "ops/operator.h"

/* What no segment may break: reads of its node `index`; logits, classes, the sum of BitOps. */
coc_status coc_check_reads(const coc_model *model, const coc_segment *segment, uint32_t index);
coc_status coc_check_segments(const coc_model *model);

/* Shape and limits of a node whose operator and inputs are set, and whose output has its type; fills the output's
 * shape and the node's costs. */
coc_status coc_check_shape(const coc_model *model, const coc_row *row, coc_node *node, coc_tensor *output);

#endif
