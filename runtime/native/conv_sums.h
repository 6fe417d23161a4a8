/* conv_sums.h - convolution by shared partial sums, for any vector width (internal; included by one file per level).
 *
 * Lanes are pixels, weights are w = +-1. With s the center 2^(in_bits-1) of the activation's range and x' = x - s,
 *
 *   sum w (x - zero) = sum w x'  +  (s - zero) * sum w            (the last term joins the bias)
 *
 * A group of SUMS_GROUP input channels has only 2^SUMS_GROUP possible values of sum(w x') at a pixel. A table holds
 * them all, one vector per code; an output channel then needs one vector addition from memory per group and tap.
 * Table rows are aligned; a tap that reads a neighbouring pixel adds into its own accumulator, which is moved by one
 * lane once, at the end. The lane that enters there is padding: a constant per output channel, `fill`.
 *
 * Images narrower than a vector put several rows into it: segment k of a vector holds row k * rows + i, so that
 * vertical neighbours are neighbouring vectors. Stride 2 splits the input into even and odd rows and columns.
 *
 * 16-bit sums: |x'| <= s, so cap = 32767 / s inputs (255 for 8 bits) never overflow. A pass covers as many groups as
 * keep each accumulator under the cap; a channel's accumulators, and the sums of passes, are added in 32 bits.
 */
#include "conv_shared.h"

#ifndef SUMS_TILE_1X1 /* vectors of a tile of a 1x1 kernel, which has registers left for more: 8 or SUMS_TILE */
#define SUMS_TILE_1X1 SUMS_TILE
#endif
#define SUMS_CODES (1u << SUMS_GROUP)
#define SUMS_STEP (SUMS_LANES * SUMS_ELEMENT) /* bytes of a vector; an element of the table has 2, or 1 */
#define SUMS_ROW (SUMS_CODES * SUMS_STEP)     /* bytes of the table of one vector of pixels */
#define SUMS_SCALE (SUMS_STEP / 8u)           /* a stored code times 8 is its offset in a table */

typedef struct {
    uint32_t kernel, stride, taps;
    uint32_t row_lanes;     /* lanes of one image row: a power of two, at most vectors * SUMS_LANES */
    uint32_t vectors;       /* vectors of one image row */
    uint32_t segments;      /* image rows in one vector */
    uint32_t tile_step;     /* output columns from one tile to the next; tiles overlap by the kernel's reach */
    uint32_t groups, pass_groups, passes;
    uint32_t strip;         /* output rows (of vectors) of a strip */
    uint32_t center;
} sums_plan;

typedef struct {
    int16_t left, right;
} sums_fill;

/* Vectors of the table of one group for `rows` output rows. */
static inline uint32_t sums_table_vectors(const sums_plan *p, uint32_t rows) {
    const uint32_t per_column = p->kernel == 1 ? rows : p->stride == 1 ? rows + 2 : 2 * (2 * rows + 1);
    return per_column * p->vectors;
}

static inline uint32_t sums_stage_rows(const sums_plan *p, uint32_t rows) {
    return p->kernel == 1 ? rows : (rows - 1) * p->stride + 3;
}

/* 1x1 kernels add bias_low in 16 bits and bias_high * SUMS_BIAS_STEP in 32: as |bias| < 2^25, both fit. */
#define SUMS_BIAS_BITS 10
#define SUMS_BIAS_STEP (1 << SUMS_BIAS_BITS)

/* Inputs that a 16-bit sum holds; with 8-bit tables, a group counts as SUMS_GROUP inputs of value 2 s. */
static inline uint32_t sums_most_inputs(const sums_plan *p) {
    if (SUMS_ELEMENT == 1)
        return 65535u / (2 * p->center);
    return (p->kernel == 1 ? 32767u - SUMS_BIAS_STEP / 2 : 32767u) / p->center;
}

static sums_plan sums_make_plan(const coc_conv *layer) {
    sums_plan p = {.kernel = layer->kernel_width, .stride = layer->stride};
    p.taps = p.kernel * p.kernel;
    p.center = 1u << (layer->in_bits - 1);
    const int reach = p.kernel == 3 && p.stride == 1;
    const uint32_t needed = reach && layer->in_width > layer->out_width ? layer->out_width + 1 : layer->out_width;
    p.vectors = 1;
    while (p.vectors < SUMS_MAX_VECTORS && p.vectors * SUMS_LANES < needed)
        p.vectors *= 2;
    p.row_lanes = p.vectors * SUMS_LANES;
    while (p.vectors == 1 && p.row_lanes > SUMS_LEAST_LANES && p.row_lanes / 2 >= needed)
        p.row_lanes /= 2;
    p.segments = p.vectors == 1 ? SUMS_LANES / p.row_lanes : 1;
    p.tile_step = p.kernel == 1 ? p.row_lanes : p.row_lanes - (p.stride == 1 ? 2 : 1);
    if (needed <= p.row_lanes)
        p.tile_step = p.row_lanes;

    const uint32_t rows = coc_divide_up(layer->out_height, p.segments);
    p.groups = coc_divide_up(layer->in_channels, SUMS_GROUP);
    /* A high strip builds fewer tables twice; it pays as long as one pass takes all groups. */
    p.strip = 8 / p.vectors;
    if (p.groups * sums_table_vectors(&p, coc_min(p.strip, rows)) * SUMS_ROW > SUMS_TABLE)
        p.strip = 4 / p.vectors;
    const uint32_t fit = SUMS_TABLE / (sums_table_vectors(&p, coc_min(p.strip, rows)) * SUMS_ROW);
    const uint32_t cap = sums_most_inputs(&p);
    const uint32_t taps = SUMS_ELEMENT == 1 ? 9 : p.kernel == 1 ? 1 : 6; /* of one accumulator */
    p.pass_groups = coc_min(cap / taps / SUMS_GROUP, fit ? fit : 1);
    p.passes = coc_divide_up(p.groups, p.pass_groups);
    p.pass_groups = coc_divide_up(p.groups, p.passes);
    p.passes = coc_divide_up(p.groups, p.pass_groups);
    return p;
}

static int sums_accepts(const coc_conv *layer) {
    const uint32_t kernel = layer->kernel_width;
    if (SUMS_ELEMENT == 1 && (layer->in_bits > 4 || kernel != 3 || layer->stride != 1))
        return 0;
    return layer->groups == 1 && !layer->wide && layer->encoding == COC_ODD && layer->weight_bits == 1 &&
           layer->kernel_height == kernel && (kernel == 1 || kernel == 3) &&
           (layer->stride == 1 || layer->stride == 2) && layer->pad_left == (kernel == 3) &&
           (kernel == 3 || layer->pad_top == 0) && coc_simple_numbers(layer);
}

/* Whether the image fills the lanes; narrower vectors do better where it does not. */
static inline int sums_fills_vectors(const coc_conv *layer) {
    const sums_plan p = sums_make_plan(layer);
    return layer->out_height >= p.segments && 2 * layer->out_width > p.row_lanes;
}

/* Scratch: staged input, table, 32-bit sums of a strip (when there are several passes). */
typedef struct {
    size_t stage_row, stage_plane, table, sums, total;
} sums_scratch;

static sums_scratch sums_layout(const coc_conv *layer, const sums_plan *p) {
    sums_scratch s;
    const uint32_t rows = coc_divide_up(layer->out_height, p->segments);
    const uint32_t strip = coc_min(p->strip, rows);
    s.stage_row = (size_t)p->vectors * p->stride * SUMS_LANES;
    s.stage_plane = s.stage_row * sums_stage_rows(p, rows);
    s.table = coc_round_up(s.stage_plane * layer->in_channels, 64);
    s.sums = s.table + (size_t)p->pass_groups * sums_table_vectors(p, strip) * SUMS_ROW;
    s.total = s.sums;
    if (p->passes > 1)
        s.total += (size_t)layer->out_channels * strip * p->vectors * SUMS_LANES * sizeof(int32_t);
    return s;
}

/* Prepared weights: plan and layout, bias [out], fill [pass][out], then codes [pass][out][group of the pass][tap]. */
typedef struct {
    sums_plan plan;
    sums_scratch at;
    int32_t bias[];
} sums_head;

static size_t sums_codes_offset(const coc_conv *layer, const sums_plan *p) {
    const size_t per_channel = sizeof(int32_t) + p->passes * sizeof(sums_fill);
    return coc_round_up(sizeof(sums_head) + layer->out_channels * per_channel, 64);
}

static size_t sums_weight_bytes(const coc_conv *layer) {
    const sums_plan p = sums_make_plan(layer);
    return sums_codes_offset(layer, &p) + (size_t)p.passes * layer->out_channels * p.pass_groups * p.taps;
}

/* What every table entry carries in addition, to be unsigned in 8 bits. */
static inline uint32_t sums_offset(const sums_plan *p) {
    return SUMS_ELEMENT == 1 ? SUMS_GROUP * p->center : 0;
}

/* Codes of all taps for a group of `channels` input channels: bit i of a code is the weight of channel i. The bits of
 * a group are consecutive, at most 45 of them: they come in one word, from no byte behind the last weight. */
static void sums_group_codes(const coc_conv *layer, const sums_plan *p, uint32_t out, uint32_t group, uint32_t channels,
                             uint8_t *codes) {
    const size_t first = ((size_t)out * layer->in_channels + (size_t)group * SUMS_GROUP) * p->taps;
    const size_t bytes = (first % 8 + channels * p->taps + 7) / 8;
    uint64_t bits = 0;
    for (size_t i = 0; i < bytes; i++)
        bits |= (uint64_t)layer->codes[first / 8 + i] << (8 * i);
    bits >>= first % 8;
    for (uint32_t tap = 0; tap < p->taps; tap++, bits >>= 1) {
        codes[tap] = 0;
        for (uint32_t i = 0; i < channels; i++)
            codes[tap] |= (uint8_t)((bits >> (i * p->taps) & 1) << i);
    }
}

static void sums_prepare(const coc_conv *layer, void *weights) {
    const sums_plan p = sums_make_plan(layer);
    const int32_t padding = layer->in_zero - (int32_t)p.center;
    sums_head *head = weights;
    head->plan = p;
    head->at = sums_layout(layer, &p);
    sums_fill *fill = (sums_fill *)(head->bias + layer->out_channels);
    uint8_t *codes = (uint8_t *)weights + sums_codes_offset(layer, &p);
    for (uint32_t out = 0; out < layer->out_channels; out++)
        head->bias[out] = layer->bias[out] - (int32_t)(sums_offset(&p) * p.taps * p.groups);
    for (uint32_t pass = 0; pass < p.passes; pass++) {
        const uint32_t groups = coc_min(p.pass_groups, p.groups - pass * p.pass_groups);
        const int32_t offset = (int32_t)(sums_offset(&p) * p.kernel * groups);
        for (uint32_t out = 0; out < layer->out_channels; out++, fill++, codes += p.pass_groups * p.taps) {
            int32_t column[3] = {0, 0, 0}; /* sums of the weights of this pass in the columns of the kernel */
            memset(codes, 0, p.pass_groups * p.taps);
            for (uint32_t i = 0; i < groups; i++) {
                const uint32_t group = pass * p.pass_groups + i;
                const uint32_t channels = coc_min(SUMS_GROUP, layer->in_channels - group * SUMS_GROUP);
                uint8_t *own = codes + i * p.taps;
                sums_group_codes(layer, &p, out, group, channels, own);
                for (uint32_t tap = 0; tap < p.taps; tap++) {
                    column[tap % p.kernel] += 2 * __builtin_popcount(own[tap]) - (int32_t)channels;
                    own[tap] = (uint8_t)(own[tap] * SUMS_SCALE);
                }
            }
            head->bias[out] -= padding * (column[0] + column[1] + column[2]);
            fill->left = (int16_t)(padding * column[0] + offset);
            fill->right = (int16_t)(padding * column[p.kernel - 1] + offset);
        }
    }
}

static size_t sums_scratch_bytes(const coc_conv *layer) {
    const sums_plan p = sums_make_plan(layer);
    return sums_layout(layer, &p).total;
}

/* One run: rows [first, last) of one tile of columns. */
typedef struct {
    const coc_conv *layer;
    sums_plan plan;
    sums_scratch at;
    const uint8_t *x;
    uint8_t *y, *scratch;
    const uint8_t *stage;   /* the input's rows as vectors: scratch, or the input itself where that will do */
    uint32_t first, last;   /* output rows */
    uint32_t rows;          /* rows of vectors: segment k holds output rows first + k * rows + i */
    uint32_t column;        /* first output column in lane 0 */
    uint32_t valid_from, valid_to; /* lanes that hold results to be stored */
    int full;               /* every lane of every row is such a lane */
} sums_job;

/* Without padding and with rows of whole vectors, the input needs no staging. */
static int sums_reads_input(const sums_job *job) {
    return job->plan.kernel == 1 && job->plan.stride == 1 && job->plan.segments == 1 &&
           job->plan.row_lanes == job->layer->in_width && job->plan.row_lanes == job->layer->out_width &&
           job->layer->out_height <= job->layer->in_height;
}

/* Copies the input rows of the tile, padding included, to stage[channel][row][byte of a row of vectors]. */
static void sums_stage(const sums_job *job) {
    const coc_conv *layer = job->layer;
    const sums_plan *p = &job->plan;
    const uint32_t stage_rows = sums_stage_rows(p, job->rows);
    const uint32_t width = p->row_lanes * p->stride;
    const uint32_t column = job->column * p->stride;
    const uint32_t count = layer->in_width > column ? coc_min(width, layer->in_width - column) : 0;
    const size_t plane = (size_t)layer->in_height * layer->in_width;
    const uint32_t row_step = p->kernel == 1 ? p->stride : 1;
    for (uint32_t k = 0; k < p->segments; k++)
        for (uint32_t i = 0; i < stage_rows; i++) {
            const int64_t row = (int64_t)(job->first + k * job->rows) * p->stride - layer->pad_top + i * row_step;
            uint8_t *target = job->scratch + i * job->at.stage_row + k * width;
            if (row < 0 || row >= layer->in_height || count == 0) {
                for (uint32_t c = 0; c < layer->in_channels; c++, target += job->at.stage_plane)
                    memset(target, layer->in_zero, width);
                continue;
            }
            const uint8_t *source = job->x + (size_t)row * layer->in_width + column;
            coc_copy_rows(target, job->at.stage_plane, source, plane, layer->in_channels, count);
            for (uint32_t c = 0; count < width && c < layer->in_channels; c++, target += job->at.stage_plane)
                memset(target + count, layer->in_zero, width - count);
        }
}

#if SUMS_ELEMENT == 1
#define sums_table_add(a, b) sums_add8(a, b)
#define sums_table_sub(a, b) sums_sub8(a, b)
#define sums_table_set(value) sums_set8((int8_t)(value))
#else
#define sums_table_add(a, b) sums_add(a, b)
#define sums_table_sub(a, b) sums_sub(a, b)
#define sums_table_set(value) sums_set((int16_t)(value))
#endif

/* All sums of SUMS_GROUP channels, of which x[] are the doubled values and `lowest` is the sum of the negative ones. */
COC_INLINE void sums_write_table(uint8_t *row, const sums_vec *x, sums_vec lowest) {
    sums_vec value[SUMS_CODES];
    value[0] = lowest;
    sums_store(row, value[0]);
#pragma GCC unroll 6
    for (uint32_t bit = 0; bit < SUMS_GROUP; bit++)
#pragma GCC unroll 64
        for (uint32_t code = 0; code < (1u << bit); code++) {
            value[code | (1u << bit)] = sums_table_add(value[code], x[bit]);
            sums_store(row + (code | (1u << bit)) * SUMS_STEP, value[code | (1u << bit)]);
        }
}

/* Tables of one vector of stage bytes for one group; `bytes` of a stride-2 layer hold even and odd columns. */
COC_INLINE void sums_tables_of(const uint8_t *bytes, size_t channel_step, uint32_t channels, uint32_t center,
                               int stride, int parity, uint8_t *row) {
    const sums_vec middle = sums_table_set(center);
    sums_vec x[SUMS_GROUP], lowest = sums_table_set(SUMS_ELEMENT == 1 ? SUMS_GROUP * center : 0);
#pragma GCC unroll 6
    for (uint32_t c = 0; c < SUMS_GROUP; c++) {
        if (c >= channels) {
            x[c] = sums_table_set(0);
            continue;
        }
        const uint8_t *source = bytes + c * channel_step;
        x[c] = stride == 1 ? sums_bytes(source) : parity ? sums_odd_bytes(source) : sums_even_bytes(source);
        x[c] = sums_table_sub(x[c], middle);
        lowest = sums_table_sub(lowest, x[c]);
        x[c] = sums_table_add(x[c], x[c]);
    }
    sums_write_table(row, x, lowest);
}

/* Tables of the groups of a pass for output rows [strip, strip + rows) (of vectors), in the order
 * [group][row][column parity][vector][code]; only a 3x3 kernel with stride 2 has column parities. */
static void sums_build(const sums_job *job, uint32_t pass, uint32_t strip, uint32_t rows) {
    const sums_plan *p = &job->plan;
    const uint32_t first = pass * p->pass_groups, last = coc_min(first + p->pass_groups, p->groups);
    const uint32_t stage_rows = sums_stage_rows(p, rows), split = p->kernel == 3 && p->stride == 2;
    const size_t start = (size_t)strip * (p->kernel == 1 ? 1 : p->stride) * job->at.stage_row;
    const size_t step = job->at.stage_plane;
    uint8_t *table = job->scratch + job->at.table;
    for (uint32_t group = first; group < last; group++) {
        const uint32_t left = job->layer->in_channels - group * SUMS_GROUP;
        const uint8_t *bytes = job->stage + group * SUMS_GROUP * step + start;
        for (uint32_t i = 0; i < stage_rows; i++, bytes += job->at.stage_row)
            for (uint32_t parity = 0; parity <= split; parity++)
                for (uint32_t v = 0; v < p->vectors; v++, table += SUMS_ROW) {
                    const uint8_t *at = bytes + v * p->stride * SUMS_LANES;
                    if (left < SUMS_GROUP)
                        sums_tables_of(at, step, left, p->center, (int)p->stride, (int)parity, table);
                    else if (p->stride == 1)
                        sums_tables_of(at, step, SUMS_GROUP, p->center, 1, 0, table);
                    else if (parity == 0)
                        sums_tables_of(at, step, SUMS_GROUP, p->center, 2, 0, table);
                    else
                        sums_tables_of(at, step, SUMS_GROUP, p->center, 2, 1, table);
                }
    }
}
#include "conv_sums_run.h"
