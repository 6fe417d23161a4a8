/* reader.h - a .coc file into a model (internal). */
#ifndef COC_READER_H
#define COC_READER_H

#include "model.h"

/* The first checks, from the first bytes of a file of `size` bytes; `head` holds min(size, COC_HEADER_BYTES). */
coc_status coc_check_head(const uint8_t *head, uint64_t size);

/* Build a model from a whole file. */
coc_status coc_read_model(const uint8_t *data, size_t size, const coc_allocator *allocator, coc_model **model);

#endif
