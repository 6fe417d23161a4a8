/* coc_limits.h - limits of graphs and files (internal; not limits.h, which is the C library's).
 *
 * Written by runtime/generate.py from runtime/coc_runtime/limits.py: change them there. */
#ifndef COC_LIMITS_H
#define COC_LIMITS_H

#include <stdint.h>

/* Bits of logits, signed integers with zero point 0. */
#define COC_LOGIT_BITS 32
/* Bits of an activation's codes, at least 2. */
#define COC_MAX_BITS 8
/* Bits of a weight's code. */
#define COC_WEIGHT_BITS(bits) ((bits) == 1 || (bits) == 2 || (bits) == 4 || (bits) == 8)
/* Integers below this are exact in float32, and so are their sums in any order. */
#define COC_EXACT_LIMIT 16777216
/* Sums of a layer, its bias included, stay below this: they fit 32 bits. */
#define COC_SUM_LIMIT INT64_C(2147483648)
/* Significant bits of a channel's scale (HAWQ-V3 calls such numbers dyadic). */
#define COC_MULTIPLIER_BITS 8
/* Magnitude of the exponent of a tensor's step. */
#define COC_MAX_EXPONENT 32
/* Magnitude of the exponent of a channel's scale. With both, every multiplier is a normal float32 number. */
#define COC_MAX_SCALE_EXPONENT 60
/* How many powers of two the steps of an addition's operands lie apart. */
#define COC_MAX_SHIFT 7
/* Height and width of a pool's window; larger ones are global. */
#define COC_MAX_WINDOW 255
/* Pixels from weight to weight of a convolution. */
#define COC_MAX_DILATION 256
/* Channels of a tensor, features, classes. */
#define COC_MAX_CHANNELS 65536
/* Height and width of a tensor. */
#define COC_MAX_SIZE 65535
/* Elements of a tensor per image, and weights of a layer. */
#define COC_MAX_ELEMENTS 268435456
/* Segments: one for each early exit and the final one. */
#define COC_MAX_SEGMENTS 17
/* Operators of a .coc file. */
#define COC_MAX_OPERATORS 4096
/* Bytes of the description in a .coc file. */
#define COC_MAX_DESCRIPTION 1048576
/* Characters of a name. */
#define COC_MAX_NAME 1000
/* BitOps of a whole graph. */
#define COC_MAX_BITOPS INT64_C(9223372036854775807)
/* Bytes of an artifact: Protobuf's own limit for a message, and that of .coc files. */
#define COC_MAX_FILE_BYTES 2147483647
/* A threshold of a classification; above 1 an image never leaves. */
#define COC_MAX_CONFIDENCE_AS_BITS UINT32_C(0x40000000)
/* A threshold of a regression: the largest float32 number. */
#define COC_MAX_TOLERANCE_AS_BITS UINT32_C(0x7f7fffff)
/* Bytes of a .coc file's header. */
#define COC_HEADER_BYTES 48
/* Bytes of an operator in a .coc file. */
#define COC_OPERATOR_BYTES 24
/* Bytes of a segment in a .coc file. */
#define COC_SEGMENT_BYTES 8
/* A layer's weights begin at a multiple of so many bytes in a .coc file. */
#define COC_WEIGHT_ALIGNMENT 16

#endif
