/* list.h - every operator: its number in .coc files, its name here, its name in profiles.
 *
 * Define COC_OPERATOR(kind, symbol, name), include this file. A line gives an operator its declaration
 * `extern const coc_op coc_op_<symbol>;` and its place in the table (ops/table.c). The Python runtime has the same
 * numbers and names: coc_runtime/ops.
 */
COC_OPERATOR(1, conv, "Conv")
COC_OPERATOR(2, add, "Add")
COC_OPERATOR(3, global_average_pool, "GlobalAveragePool")
COC_OPERATOR(4, linear, "Linear")
COC_OPERATOR(5, max_pool, "MaxPool")
COC_OPERATOR(6, average_pool, "AveragePool")
COC_OPERATOR(7, concat, "Concat")
COC_OPERATOR(8, flatten, "Flatten")
COC_OPERATOR(9, lookup, "Lookup")
COC_OPERATOR(10, mul, "Mul")
COC_OPERATOR(11, select, "Select")
COC_OPERATOR(12, logits, "Logits")
COC_OPERATOR(13, pixel_average_pool, "PixelAveragePool")
COC_OPERATOR(14, adaptive_average_pool, "AdaptiveAveragePool")
#undef COC_OPERATOR
