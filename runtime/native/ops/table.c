/* table.c - operators by their number in .coc files, from list.h. */
#include "ops/table.h"
#include "ops/operator.h"

#define COC_OPERATOR(kind, symbol, name) extern const coc_op coc_op_##symbol;
#include "ops/list.h"

static const struct {
    const char *name;
    const coc_op *op;
} operators[] = {
#define COC_OPERATOR(kind, symbol, name) [kind] = {name, &coc_op_##symbol},
#include "ops/list.h"
};

const coc_op *coc_op_of(uint32_t kind) {
    return kind < sizeof operators / sizeof operators[0] ? operators[kind].op : NULL;
}

const char *coc_op_name(uint32_t kind) {
    return operators[kind].name;
}
