/* conv_dot.h - convolution by dot products of DOT_K channels, for any kernel, stride and padding (internal; included by
 * one file per instruction).
 *
 * Lanes are pixels; the element of a pixel, a dot_cell, holds DOT_K consecutive input channels, a unit. The input is
 * staged once per strip of output rows as [unit][row parity][column parity][row][column] of such elements, padding
 * included (one parity each for stride 1), so that every tap of a vector of pixels is one unaligned load at a fixed
 * distance. Output rows of half a vector come in pairs, one in each half (where the including file defines DOT_SPLIT).
 * Other output widths that are no multiple of the lanes treat the staged rows as one long row: lanes between two rows
 * are computed in vain and dropped by the copy to the output.
 *
 * The including file defines DOT_LANES, DOT_K, DOT_VECTORS, DOT_RAW (1: staged codes, 0: codes minus the zero point),
 * dot_cell, dot_vec, dot_walk, dot_element(), dot_pack8(), dot_split(), dot_accumulate(), dot_results(),
 * dot_flush_steps(); it may define dot_pack16().
 */
#include "conv_shared.h"

#ifndef DOT_SPLIT
#define DOT_SPLIT 0
#endif

#define DOT_OUTS 4u       /* output channels of a register tile */
#define DOT_TAPS 49u      /* most taps of a kernel */
#ifndef DOT_STAGE
#define DOT_STAGE 65536u  /* bytes of a strip's stage, if a few rows fit */
#endif

typedef struct {
    uint32_t stride, units, taps;
    uint32_t pitch;         /* elements of a staged row */
    uint32_t strip;         /* output rows of a strip */
    uint32_t planes;        /* parities */
    int split;              /* an output row is half a vector */
    int whole;              /* output rows are whole vectors, or halves: nothing is computed in vain */
} dot_plan;

/* Rows of one parity plane for `rows` output rows, and one to read behind the end. */
static inline uint32_t dot_plane_rows(const coc_conv *layer, uint32_t rows) {
    return rows + (layer->kernel_height - 1) / layer->stride;
}

static inline size_t dot_plane_elements(const coc_conv *layer, const dot_plan *p, uint32_t rows) {
    return (size_t)dot_plane_rows(layer, rows) * p->pitch;
}

/* Elements between units: lanes that are computed in vain may read up to DOT_VECTORS vectors past the last plane. */
static inline size_t dot_unit_elements(const coc_conv *layer, const dot_plan *p, uint32_t rows) {
    return dot_plane_elements(layer, p, rows) * p->planes;
}

#define DOT_SLACK (DOT_VECTORS * DOT_LANES + 16u)

static dot_plan dot_make_plan(const coc_conv *layer) {
    dot_plan p = {.stride = layer->stride};
    p.units = coc_divide_up(layer->in_channels, DOT_K);
    p.taps = layer->kernel_height * layer->kernel_width;
    p.planes = coc_min(layer->stride, layer->kernel_height) * coc_min(layer->stride, layer->kernel_width);
    p.split = DOT_SPLIT && 2 * layer->out_width == DOT_LANES;
    p.whole = p.split || layer->out_width % DOT_LANES == 0;
    p.pitch = layer->out_width + (layer->kernel_width - 1) / layer->stride;
    /* The padding in front of a row may serve as the padding behind the row before. */
    if (!p.whole && layer->stride == 1 && layer->pad_left > 0 && p.pitch > layer->out_width &&
        p.pitch > layer->pad_left + layer->in_width)
        p.pitch--;
    const size_t row = (size_t)p.units * p.planes * p.pitch * sizeof(dot_cell);
    const size_t rows = DOT_STAGE / row;
    p.strip = layer->out_height;
    if (rows < dot_plane_rows(layer, p.strip)) {
        const uint32_t most = rows > 6 ? (uint32_t)rows - 2 : 4;
        p.strip = coc_divide_up(layer->out_height, coc_divide_up(layer->out_height, most));
    }
    return p;
}

static int dot_accepts_shape(const coc_conv *layer) {
    return layer->groups == 1 && (layer->stride == 1 || layer->stride == 2) &&
           layer->kernel_height * layer->kernel_width <= DOT_TAPS && coc_simple_numbers(layer);
}

/* Prepared weights: bias [out], padded to whole tiles, then elements [out / 4][unit][tap][4]. */
static size_t dot_bias_bytes(const coc_conv *layer) {
    return coc_round_up((size_t)layer->out_channels * sizeof(int32_t), 64);
}

static size_t dot_weight_bytes(const coc_conv *layer) {
    const dot_plan p = dot_make_plan(layer);
    return dot_bias_bytes(layer) + coc_round_up(layer->out_channels, DOT_OUTS) * p.units * p.taps * sizeof(dot_cell);
}

static void dot_prepare(const coc_conv *layer, void *weights) {
    const dot_plan p = dot_make_plan(layer);
    int32_t *bias = weights;
    dot_cell *elements = (dot_cell *)(void *)((uint8_t *)weights + dot_bias_bytes(layer));
    memset(weights, 0, dot_weight_bytes(layer));
    for (uint32_t out = 0; out < layer->out_channels; out++) {
        dot_cell *element = elements + (size_t)(out / DOT_OUTS) * p.units * p.taps * DOT_OUTS + out % DOT_OUTS;
        uint32_t sum = 0; /* bias and sums may wrap around: what they add up to does not */
        for (uint32_t unit = 0; unit < p.units; unit++) {
            const uint32_t channels = coc_min(DOT_K, layer->in_channels - unit * DOT_K);
            const size_t first = ((size_t)out * layer->in_channels + unit * DOT_K) * p.taps;
            int32_t w[DOT_TAPS][DOT_K];
            memset(w, 0, p.taps * sizeof w[0]);
            for (uint32_t k = 0; k < channels; k++)
                for (uint32_t tap = 0; tap < p.taps; tap++)
                    sum += (uint32_t)(w[tap][k] = coc_weight(layer, first + k * p.taps + tap));
            for (uint32_t tap = 0; tap < p.taps; tap++, element += DOT_OUTS)
                *element = dot_element(w[tap]);
        }
        bias[out] = (int32_t)((uint32_t)layer->bias[out] - DOT_RAW * (uint32_t)layer->in_zero * sum);
    }
}

typedef struct {
    size_t row, results, total; /* offsets: one row before its split, bytes of four channels */
} dot_scratch;

static dot_scratch dot_layout(const coc_conv *layer, const dot_plan *p) {
    dot_scratch s;
    s.row = coc_round_up((p->units * dot_unit_elements(layer, p, p->strip) + DOT_SLACK) * sizeof(dot_cell), 64);
    s.results = s.row + (p->stride == 1 ? 0 : coc_round_up((2 * (size_t)p->pitch + 16) * sizeof(dot_cell), 64));
    const size_t plane = coc_round_up((size_t)p->strip * p->pitch + DOT_SLACK, 64);
    s.total = s.results + (p->whole && !p->split ? 0 : DOT_OUTS * plane);
    return s;
}

static size_t dot_scratch_bytes(const coc_conv *layer) {
    const dot_plan p = dot_make_plan(layer);
    return dot_layout(layer, &p).total;
}

static void dot_fill(dot_cell *target, dot_cell value, size_t count) {
    for (size_t i = 0; i < count; i++)
        target[i] = value;
}

/* Elements of a row of a unit, whose first channel is at `source`: `lead` of padding, `count` pixels, padding up to
 * `length`. Channels that the last unit lacks read zeros. */
static void dot_stage_row(const coc_conv *layer, const uint8_t *source, uint32_t channels, dot_cell *target,
                          uint32_t lead, uint32_t count, uint32_t length, dot_cell padding) {
    static const uint8_t none[16];
    const uint8_t *row[DOT_K], *at[DOT_K];
    uint32_t step[DOT_K], x = 0;
#pragma GCC unroll 4
    for (uint32_t k = 0; k < DOT_K; k++) {
        row[k] = k < channels ? source + (size_t)k * layer->in_height * layer->in_width : none;
        step[k] = k < channels ? 1 : 0;
    }
    dot_fill(target, padding, lead);
    target += lead;
#ifdef dot_pack16
    for (; x + 16 <= count; x += 16, target += 16) {
#pragma GCC unroll 4
        for (uint32_t k = 0; k < DOT_K; k++)
            at[k] = row[k] + x * step[k];
        dot_pack16(at, target);
    }
#endif
    for (; x + 8 <= count; x += 8, target += 8) {
#pragma GCC unroll 4
        for (uint32_t k = 0; k < DOT_K; k++)
            at[k] = row[k] + x * step[k];
        dot_pack8(at, layer->in_zero, target);
    }
    if (x < count) {
        uint8_t ends[DOT_K][8];
        dot_cell packed[8];
#pragma GCC unroll 4
        for (uint32_t k = 0; k < DOT_K; k++) {
            memset(ends[k], 0, 8);
            if (k < channels)
                coc_copy_row(ends[k], row[k] + x, count - x, 8);
            at[k] = ends[k];
        }
        dot_pack8(at, layer->in_zero, packed);
        for (; x < count; x++)
            *target++ = packed[x % 8];
    }
    dot_fill(target, padding, length - lead - count);
}

/* Stages the input of output rows [first, first + rows). */
static void dot_stage(const coc_conv *layer, const dot_plan *p, const uint8_t *x, uint8_t *scratch,
                      dot_cell *row_buffer, uint32_t first, uint32_t rows) {
    const uint32_t plane_rows = dot_plane_rows(layer, rows);
    const uint32_t row_parities = coc_min(p->stride, layer->kernel_height);
    const uint32_t column_parities = coc_min(p->stride, layer->kernel_width);
    const size_t plane = dot_plane_elements(layer, p, rows);
    dot_cell *target = (dot_cell *)(void *)scratch;
    int32_t zero[DOT_K];
    for (uint32_t k = 0; k < DOT_K; k++)
        zero[k] = DOT_RAW * layer->in_zero;
    const dot_cell padding = dot_element(zero);
    const uint32_t length = p->pitch * p->stride, lead = coc_min(layer->pad_left, length);
    const uint32_t count = coc_min(layer->in_width, length - lead);
    const int joined = length == layer->in_width && layer->kernel_height == 1 && p->stride == 1 &&
                       layer->pad_top == 0 && layer->pad_left == 0 && layer->out_height <= layer->in_height;
    for (uint32_t unit = 0; unit < p->units; unit++) {
        const uint32_t channels = coc_min(DOT_K, layer->in_channels - unit * DOT_K);
        const uint8_t *source = x + (size_t)unit * DOT_K * layer->in_height * layer->in_width;
        if (joined) { /* without padding, all rows are one */
            const uint32_t pixels = rows * layer->in_width;
            const uint8_t *from = source + (size_t)first * layer->in_width;
            dot_stage_row(layer, from, channels, target, 0, pixels, pixels, padding);
            target += pixels;
            continue;
        }
        for (uint32_t parity = 0; parity < row_parities; parity++, target += column_parities * plane)
            for (uint32_t i = 0; i < plane_rows; i++) {
                const int64_t row = ((int64_t)first + i) * p->stride + parity - layer->pad_top;
                dot_cell *even = target + (size_t)i * p->pitch;
                if (row < 0 || row >= layer->in_height) {
                    for (uint32_t c = 0; c < column_parities; c++)
                        dot_fill(even + c * plane, padding, p->pitch);
                    continue;
                }
                dot_cell *whole = p->stride == 1 ? even : row_buffer;
                const uint8_t *from = source + (size_t)row * layer->in_width;
                dot_stage_row(layer, from, channels, whole, lead, count, length, padding);
                if (p->stride == 2)
                    dot_split(row_buffer, even, column_parities == 2 ? even + plane : NULL, p->pitch);
            }
    }
    dot_fill(target, padding, DOT_SLACK);
}

/* Results of four output channels for `vectors` vectors of pixels; result[o] is where channel o's bytes go. */
COC_INLINE void dot_tile(const coc_conv *layer, uint32_t out, int N, const dot_walk *walk,
                         uint8_t *const result[DOT_OUTS], size_t at) {
    dot_vec acc[DOT_VECTORS][DOT_OUTS];
    dot_accumulate(N, walk, acc);
#pragma GCC unroll 4
    for (uint32_t o = 0; o < DOT_OUTS; o++) {
        if (out + o >= layer->out_channels)
            break;
        dot_vec sums[DOT_VECTORS];
#pragma GCC unroll 4
        for (int j = 0; j < N; j++)
            sums[j] = acc[j][o];
        dot_results(N, sums, layer, layer->multiplier[out + o], result[o] + at);
    }
}

/* All pixels of a strip for four output channels. */
static void dot_block(const coc_conv *layer, const dot_plan *p, uint32_t out, dot_walk *walk,
                      uint8_t *const result[DOT_OUTS], const uint8_t *stage, uint32_t rows) {
    const uint32_t width = p->whole ? layer->out_width : p->pitch;
    const uint32_t row_vectors = p->whole ? width / DOT_LANES : 0;
    const uint32_t vectors = coc_divide_up(rows * width, DOT_LANES);
    uint32_t v = 0, row = 0, column = 0;
    while (v < vectors) {
        /* The last two tiles share what is left: a tile of one vector waits for its own sums. */
        const uint32_t left = vectors - v;
        const uint32_t n = left <= DOT_VECTORS ? left : left < 2 * DOT_VECTORS ? (left + 1) / 2 : DOT_VECTORS;
        for (uint32_t j = 0; j < n; j++) {
            size_t lane = (size_t)(v + j) * DOT_LANES;
            if (p->whole)
                lane = p->split ? (size_t)(v + j) * 2 * p->pitch : (size_t)row * p->pitch + column * DOT_LANES;
            walk->x[j] = stage + lane * sizeof(dot_cell);
            if (++column == row_vectors) {
                column = 0;
                row++;
            }
        }
        const size_t at = (size_t)v * DOT_LANES;
        if (n == DOT_VECTORS)
            dot_tile(layer, out, DOT_VECTORS, walk, result, at);
#if DOT_VECTORS > 3
        else if (n == 3)
            dot_tile(layer, out, 3, walk, result, at);
#endif
#if DOT_VECTORS > 2
        else if (n == 2)
            dot_tile(layer, out, 2, walk, result, at);
#endif
        else
            dot_tile(layer, out, 1, walk, result, at);
        v += n;
    }
}

static void dot_run(const coc_conv *layer, const void *weights, const uint8_t *x, uint8_t *y, void *scratch,
                    uint32_t first, uint32_t last) {
    const dot_plan p = dot_make_plan(layer);
    const dot_scratch at = dot_layout(layer, &p);
    uint8_t *bytes = scratch;
    const dot_cell *elements = (const dot_cell *)(const void *)((const uint8_t *)weights + dot_bias_bytes(layer));
    const size_t plane_out = (size_t)layer->out_height * layer->out_width;
    for (uint32_t row = first; row < last; row += p.strip) {
        const uint32_t rows = coc_min(p.strip, last - row);
        dot_stage(layer, &p, x, bytes, (dot_cell *)(void *)(bytes + at.row), row, rows);
        const size_t plane = dot_plane_elements(layer, &p, rows);
        dot_walk walk = {.units = p.units, .taps = p.taps,
                         .unit_step = dot_unit_elements(layer, &p, rows) * sizeof(dot_cell),
                         .flush = dot_flush_steps(layer),
                         .half = p.split && p.pitch > layer->out_width ? p.pitch * sizeof(dot_cell) : 0};
        const uint32_t column_parities = coc_min(p.stride, layer->kernel_width);
        for (uint32_t tap = 0; tap < p.taps; tap++) {
            const uint32_t ky = tap / layer->kernel_width, kx = tap % layer->kernel_width;
            walk.tap[tap] = (ky % p.stride * column_parities + kx % p.stride) * plane * sizeof(dot_cell) +
                            ((size_t)(ky / p.stride) * p.pitch + kx / p.stride) * sizeof(dot_cell);
        }
        const size_t flat = coc_round_up((size_t)p.strip * p.pitch + DOT_SLACK, 64);
        const size_t step = p.whole ? layer->out_width : p.pitch; /* of result rows */
        const int direct = p.whole && !(p.split && rows % 2);
        for (uint32_t out = 0; out < layer->out_channels; out += DOT_OUTS) {
            uint8_t *result[DOT_OUTS], *target = y + out * plane_out + (size_t)row * layer->out_width;
            for (uint32_t o = 0; o < DOT_OUTS; o++)
                result[o] = direct ? target + o * plane_out : bytes + at.results + o * flat;
            walk.weights = elements + (size_t)out * p.units * p.taps;
            walk.bias = (const int32_t *)weights + out;
            dot_block(layer, &p, out, &walk, result, bytes, rows);
            for (uint32_t o = 0; !direct && o < DOT_OUTS && out + o < layer->out_channels; o++)
                for (uint32_t i = 0; i < rows; i++)
                    coc_copy_row(target + o * plane_out + (size_t)i * layer->out_width, result[o] + i * step,
                                 layer->out_width, 32);
        }
    }
}

#define DOT_KERNEL(kernel_name, kernel_level, accepts)                                                                 \
    const coc_conv_kernel coc_##kernel_name = {                                                                        \
        #kernel_name, kernel_level, accepts, dot_weight_bytes, dot_prepare, dot_scratch_bytes, dot_run,                \
    };
