/* place.h - where activations lie (internal). */
#ifndef COC_PLACE_H
#define COC_PLACE_H

#include "model.h"

/* Fills last_use, offset and activation_bytes. */
void coc_place_tensors(coc_model *model);

#endif
