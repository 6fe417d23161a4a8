/* conv_depthwise_avx2.c - depthwise convolution (AVX2): any kernel of at most 49 taps, stride 1 or 2, any weights.
 *
 * Lanes are pixels. A channel's rows are staged in 16 bits, minus the zero point, with padding; stride 2 puts even and
 * odd columns apart. Two taps make one vpmaddwd of interleaved pixels, exact for 9-bit factors. */
#if defined(__x86_64__)
#include "level_avx2.h"

#include "requantize_avx2.h"

#define LANES 16u
#define TAPS 49u
#define STRIP 16u /* output rows that are staged at once */

static uint32_t pairs(const coc_conv *layer) {
    return (layer->kernel_height * layer->kernel_width + 1) / 2;
}

/* Elements of one column parity of a staged row: all lanes of the last vector, and the kernel's reach. */
static uint32_t pitch(const coc_conv *layer) {
    return (uint32_t)coc_round_up(layer->out_width, LANES) + (layer->kernel_width - 1) / layer->stride;
}

static int accepts(const coc_conv *layer) {
    return layer->groups == layer->in_channels && layer->groups == layer->out_channels && layer->groups > 1 &&
           (layer->stride == 1 || layer->stride == 2) && layer->kernel_height * layer->kernel_width <= TAPS &&
           coc_simple_numbers(layer);
}

static size_t weight_bytes(const coc_conv *layer) {
    return (size_t)layer->out_channels * pairs(layer) * 4;
}

/* Pairs of weights, [channel][pair]; an odd number of taps ends with a zero. */
static void prepare(const coc_conv *layer, void *weights) {
    const uint32_t taps = layer->kernel_height * layer->kernel_width;
    int16_t *w = weights;
    for (uint32_t channel = 0; channel < layer->out_channels; channel++)
        for (uint32_t tap = 0; tap < 2 * pairs(layer); tap++) {
            const size_t index = (size_t)channel * taps + coc_min(tap, taps - 1);
            const uint32_t code = coc_code(layer->codes, layer->weight_bits, index);
            *w++ = tap < taps ? (int16_t)coc_integer(code, layer->weight_bits, layer->encoding) : 0;
        }
}

static uint32_t staged_rows(const coc_conv *layer, uint32_t rows) {
    return (rows - 1) * layer->stride + layer->kernel_height;
}

static size_t scratch_bytes(const coc_conv *layer) {
    return (size_t)staged_rows(layer, coc_min(STRIP, layer->out_height)) * layer->stride * pitch(layer) * 2;
}

/* stage[row][column parity][column] of the input of output rows [first, first + rows) of a channel. */
static void stage_channel(const coc_conv *layer, const uint8_t *x, int16_t *stage, uint32_t first, uint32_t rows) {
    const uint32_t stride = layer->stride, length = pitch(layer);
    for (uint32_t i = 0; i < staged_rows(layer, rows); i++, stage += stride * length) {
        const int64_t row = (int64_t)first * stride + i - layer->pad_top;
        memset(stage, 0, (size_t)stride * length * 2);
        if (row < 0 || row >= layer->in_height)
            continue;
        const uint8_t *source = x + (size_t)row * layer->in_width;
        const uint32_t count = coc_min(layer->in_width, stride * length - coc_min(layer->pad_left, stride * length));
        uint32_t c = 0;
        if (stride == 1)
            for (; c + 8 <= count; c += 8) {
                const __m128i wide = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)(const void *)(source + c)));
                _mm_storeu_si128((__m128i *)(void *)(stage + layer->pad_left + c),
                                 _mm_sub_epi16(wide, _mm_set1_epi16((int16_t)layer->in_zero)));
            }
        for (; c < count; c++) {
            const uint32_t column = layer->pad_left + c;
            stage[column % stride * length + column / stride] = (int16_t)(source[c] - layer->in_zero);
        }
    }
}

/* Sixteen pixels; taps[] are the distances of the taps from `at`, in elements. */
static inline void sixteen(const coc_conv *layer, const int16_t *at, const uint32_t *taps, const int32_t *w,
                           uint32_t channel, uint8_t *result) {
    __m256i low = _mm256_setzero_si256(), high = low;
    for (uint32_t pair = 0; pair < pairs(layer); pair++) {
        const __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)(at + taps[2 * pair]));
        const __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(at + taps[2 * pair + 1]));
        const __m256i weight = _mm256_set1_epi32(w[pair]);
        low = _mm256_add_epi32(low, _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), weight));
        high = _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), weight));
    }
    const __m256i bias = _mm256_set1_epi32(layer->bias[channel]);
    __m256i words = requantize(_mm256_add_epi32(low, bias), _mm256_add_epi32(high, bias), layer->multiplier[channel],
                               layer->out_zero);
    words = _mm256_permute4x64_epi64(_mm256_packus_epi16(words, words), 0x08);
    _mm_storeu_si128((__m128i *)(void *)result,
                     _mm_min_epu8(_mm256_castsi256_si128(words), _mm_set1_epi8((char)layer->out_max)));
}

static void run_strip(const coc_conv *layer, const int32_t *w, const int16_t *stage, const uint32_t *taps,
                      uint32_t channel, uint8_t *y, uint32_t rows) {
    for (uint32_t row = 0; row < rows; row++, y += layer->out_width) {
        const int16_t *at = stage + (size_t)row * layer->stride * layer->stride * pitch(layer);
        uint32_t column = 0;
        for (; column + LANES <= layer->out_width; column += LANES)
            sixteen(layer, at + column, taps, w, channel, y + column);
        if (column < layer->out_width) {
            uint8_t end[LANES];
            sixteen(layer, at + column, taps, w, channel, end);
            coc_copy_row(y + column, end, layer->out_width - column, LANES);
        }
    }
}

static void run(const coc_conv *layer, const void *weights, const uint8_t *x, uint8_t *y, void *scratch, uint32_t first,
                uint32_t last) {
    const uint32_t stride = layer->stride, count = layer->kernel_height * layer->kernel_width;
    uint32_t taps[TAPS + 1];
    for (uint32_t tap = 0; tap < 2 * pairs(layer); tap++) {
        const uint32_t used = coc_min(tap, count - 1); /* the zero weight reads the last tap again */
        const uint32_t ky = used / layer->kernel_width, kx = used % layer->kernel_width;
        taps[tap] = (ky * stride + kx % stride) * pitch(layer) + kx / stride;
    }
    for (uint32_t channel = 0; channel < layer->out_channels; channel++)
        for (uint32_t row = first; row < last; row += STRIP) {
            const uint32_t rows = coc_min(STRIP, last - row);
            stage_channel(layer, x + (size_t)channel * layer->in_height * layer->in_width, scratch, row, rows);
            run_strip(layer, (const int32_t *)weights + (size_t)channel * pairs(layer), scratch, taps, channel,
                      y + ((size_t)channel * layer->out_height + row) * layer->out_width, rows);
        }
}

const coc_conv_kernel coc_conv_depthwise_avx2 = {
    "conv_depthwise_avx2", COC_AVX2, accepts, weight_bytes, prepare, scratch_bytes, run,
};

#include "level_end.h"
#endif
