/* conv_sums_run.h - the loops of conv_sums.h: accumulate, combine, requantize (internal; continues that file). */

typedef enum { SUMS_1X1, SUMS_3X3S1, SUMS_3X3S2 } sums_kind;

/* What an output channel adds to its sums (also in parts, see SUMS_BIAS_STEP; nothing before the last pass), and the
 * rules of requantization. accepts() has made sure that products stay below 2^31, so that saturating packs do all the
 * clipping but that to out_max. */
typedef struct {
    int32_t bias;
    int16_t bias_low, bias_high;
    float multiplier;
    int32_t zero, max;
} sums_rules;

/* Stores the lanes of vector v of row i, which holds rows of L lanes, to the output plane of a channel. */
COC_INLINE void sums_put(const sums_job *job, uint32_t L, uint8_t *plane, uint32_t i, uint32_t v,
                         const uint8_t *lanes) {
    const sums_plan *p = &job->plan;
    const uint32_t base = v * SUMS_LANES;
    if (job->full && L != 0) {
        const uint32_t length = L < SUMS_LANES ? L : SUMS_LANES;
#pragma GCC unroll 8
        for (uint32_t k = 0; k < SUMS_LANES / length; k++)
            memcpy(plane + (size_t)(job->first + k * job->rows + i) * L + base, lanes + k * length, length);
        return;
    }
    const uint32_t from = job->valid_from > base ? job->valid_from - base : 0;
    const uint32_t to = coc_min(job->valid_to > base ? job->valid_to - base : 0, coc_min(p->row_lanes, SUMS_LANES));
    if (from >= to)
        return;
    for (uint32_t k = 0; k < p->segments; k++) {
        const uint32_t row = job->first + k * job->rows + i;
        if (row >= job->last)
            return;
        coc_copy_row(plane + (size_t)row * job->layer->out_width + job->column + base + from,
                     lanes + k * p->row_lanes + from, to - from, SUMS_LANES);
    }
}

typedef struct {
    const sums_job *job;
    uint32_t groups;
    size_t group_bytes;     /* of the tables of one group */
    uint32_t strip, rows;   /* rows of vectors of this strip */
    int first, last;        /* among the passes that are added up */
} sums_pass;

#if SUMS_ELEMENT == 1
#include "conv_sums_channel8.h"
#else
#include "conv_sums_channel16.h"
#endif

/* All output channels of a strip for one pass; L lanes for an image row (a 1x1 kernel does not care). */
COC_INLINE void sums_channels(const sums_pass *pass, sums_kind kind, uint32_t L, const int32_t *bias,
                              const sums_fill *fill, const uint8_t *codes) {
    const coc_conv *layer = pass->job->layer;
    const sums_plan *p = &pass->job->plan;
    const uint32_t vectors = pass->rows * p->vectors;
    sums_rules r = {.zero = layer->out_zero, .max = layer->out_max};
    const size_t plane_bytes = (size_t)layer->out_height * layer->out_width;
    const size_t code_bytes = (size_t)p->pass_groups * p->taps;
    uint8_t *plane = pass->job->y;
    for (uint32_t out = 0; out < layer->out_channels; out++, codes += code_bytes, plane += plane_bytes) {
        uint32_t at = 0;
        r.bias = pass->last ? bias[out] : 0;
        r.bias_high = (int16_t)((r.bias + SUMS_BIAS_STEP / 2) >> SUMS_BIAS_BITS);
        r.bias_low = (int16_t)(r.bias - r.bias_high * SUMS_BIAS_STEP);
        r.multiplier = layer->multiplier[out];
        for (; SUMS_TILE_1X1 >= 8 && kind == SUMS_1X1 && at + 8 <= vectors; at += 8)
            sums_channel(pass, kind, 8, L, at, out, codes, fill + out, &r, plane);
        for (; SUMS_TILE >= 4 && at + 4 <= vectors; at += 4)
            sums_channel(pass, kind, 4, L, at, out, codes, fill + out, &r, plane);
        for (; L <= 2 * SUMS_LANES && at + 2 <= vectors; at += 2)
            sums_channel(pass, kind, 2, L, at, out, codes, fill + out, &r, plane);
        if (L <= SUMS_LANES && at < vectors)
            sums_channel(pass, kind, 1, L, at, out, codes, fill + out, &r, plane);
    }
}

typedef void sums_loop(const sums_pass *pass, const int32_t *bias, const sums_fill *fill, const uint8_t *codes);

#define SUMS_LOOP(kind, L)                                                                                             \
    static __attribute__((noinline)) void sums_##kind##_##L(const sums_pass *pass, const int32_t *bias,                \
                                                            const sums_fill *fill, const uint8_t *codes) {             \
        sums_channels(pass, SUMS_##kind, L, bias, fill, codes);                                                        \
    }
#if SUMS_ELEMENT == 1
#define SUMS_LOOPS(L) SUMS_LOOP(3X3S1, L)
#define SUMS_ENTRY(L) {0, sums_3X3S1_##L, 0}
SUMS_LOOPS(8)
SUMS_LOOPS(16)
SUMS_LOOPS(32)
#if SUMS_LANES == 64
SUMS_LOOPS(64)
#else
#define sums_3X3S1_64 0
#endif
static sums_loop *const sums_loops[][3] = {SUMS_ENTRY(8), SUMS_ENTRY(16), SUMS_ENTRY(32), SUMS_ENTRY(64)};
#else
#define SUMS_LOOPS(L) SUMS_LOOP(1X1, L) SUMS_LOOP(3X3S1, L) SUMS_LOOP(3X3S2, L)
#define SUMS_ENTRY(L) {sums_1X1_##L, sums_3X3S1_##L, sums_3X3S2_##L}
SUMS_LOOPS(4)
SUMS_LOOPS(8)
SUMS_LOOPS(16)
SUMS_LOOPS(32)
static sums_loop *const sums_loops[][3] = {SUMS_ENTRY(4), SUMS_ENTRY(8), SUMS_ENTRY(16), SUMS_ENTRY(32)};
#endif

static sums_loop *sums_choose(const sums_plan *p) {
    uint32_t size = 0;
    while (SUMS_LEAST_LANES << size < p->row_lanes)
        size++;
    return sums_loops[size][p->kernel == 1 ? SUMS_1X1 : p->stride == 1 ? SUMS_3X3S1 : SUMS_3X3S2];
}

static void sums_strip(const sums_job *job, const void *weights, uint32_t strip, uint32_t rows) {
    const coc_conv *layer = job->layer;
    const sums_plan *p = &job->plan;
    sums_loop *const loop = sums_choose(p);
    const int32_t *bias = ((const sums_head *)weights)->bias;
    const sums_fill *fill = (const sums_fill *)(bias + layer->out_channels);
    const uint8_t *codes = (const uint8_t *)weights + sums_codes_offset(layer, p);
    for (uint32_t pass = 0; pass < p->passes; pass++) {
        const sums_pass state = {
            .job = job, .groups = coc_min(p->pass_groups, p->groups - pass * p->pass_groups),
            .group_bytes = (size_t)sums_table_vectors(p, rows) * SUMS_ROW, .strip = strip, .rows = rows,
            .first = pass == 0, .last = pass + 1 == p->passes,
        };
        sums_build(job, pass, strip, rows);
        loop(&state, bias, fill, codes);
        fill += layer->out_channels;
        codes += (size_t)layer->out_channels * p->pass_groups * p->taps;
    }
}

static void sums_run(const coc_conv *layer, const void *weights, const uint8_t *x, uint8_t *y, void *scratch,
                     uint32_t first, uint32_t last) {
    if (first >= last)
        return;
    const sums_head *head = weights;
    sums_job job = {.layer = layer, .plan = head->plan, .at = head->at, .x = x, .y = y, .scratch = scratch,
                    .first = first, .last = last};
    const sums_plan *p = &job.plan;
    job.rows = coc_divide_up(last - first, p->segments);
    const int right = p->kernel == 3 && p->stride == 1;
    for (;;) {
        const uint32_t lanes = p->row_lanes - (right && job.column + p->row_lanes < layer->in_width);
        job.valid_to = coc_min(lanes, layer->out_width - job.column);
        job.full = job.column == 0 && job.valid_to == p->row_lanes && p->row_lanes == layer->out_width &&
                   job.rows * p->segments == last - first;
        if (sums_reads_input(&job)) {
            job.stage = x + (size_t)first * layer->in_width;
            job.at.stage_row = layer->in_width;
            job.at.stage_plane = (size_t)layer->in_height * layer->in_width;
        } else {
            job.stage = job.scratch;
            sums_stage(&job);
        }
        for (uint32_t strip = 0; strip < job.rows; strip += p->strip)
            sums_strip(&job, weights, strip, coc_min(p->strip, job.rows - strip));
        if (job.column + job.valid_to >= layer->out_width)
            return;
        job.column += p->tile_step;
        job.valid_from = p->kernel == 3;
    }
}

#define SUMS_KERNEL(kernel_name, kernel_level, accepts)                                                                \
    const coc_conv_kernel coc_##kernel_name = {                                                                        \
        #kernel_name, kernel_level, accepts, sums_weight_bytes, sums_prepare, sums_scratch_bytes, sums_run,            \
    };
