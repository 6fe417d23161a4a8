/* reader.c - a .coc file (docs/format.md), byte by byte, into a model. The trust boundary.
 *
 * Everything is checked before it is used. One allocation holds a model; its size follows from sections
 * that were found to lie within the file.
 */
#include "reader.h"
#include "bytes.h"
#include "check.h"
#include "ops/table.h"
#include "place.h"

#include <string.h>

#define VERSION 2u /* the newest */

_Static_assert(COC_MAX_EXITS + 1 == COC_MAX_SEGMENTS && COC_MAX_CLASSES == COC_MAX_CHANNELS, "coc.h");

static const uint8_t magic[8] = {0x89, 'C', 'O', 'C', '\r', '\n', 0x1a, '\n'};

/* Where the sections begin; biases and scales count channels. */
typedef struct {
    uint32_t operators, segments;
    uint64_t thresholds, biases, scales, weights;
    uint64_t bias_count, scale_count;
} sections;

static uint32_t crc32(const uint8_t *data, size_t size) {
    uint32_t table[256];
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++)
            table[i] = table[i] >> 1 ^ (table[i] & 1 ? UINT32_C(0xEDB88320) : 0);
    }
    uint32_t crc = UINT32_C(0xFFFFFFFF);
    for (size_t i = 0; i < size; i++)
        crc = table[(crc ^ data[i]) & 0xff] ^ crc >> 8;
    return crc ^ UINT32_C(0xFFFFFFFF);
}

coc_status coc_check_head(const uint8_t *head, uint64_t size) {
    if (size < sizeof magic || memcmp(head, magic, sizeof magic) != 0)
        return COC_ERROR_MAGIC;
    if (size < COC_HEADER_BYTES)
        return COC_ERROR_TRUNCATED;
    if (get32(head + 8) > VERSION)
        return COC_ERROR_VERSION;
    if (get32(head + 8) == 0)
        return COC_ERROR_MALFORMED;
    if (size != get32(head + 16))
        return size < get32(head + 16) ? COC_ERROR_TRUNCATED : COC_ERROR_MALFORMED;
    return size > COC_MAX_FILE_BYTES ? COC_ERROR_LIMIT : COC_OK;
}

static coc_status check_header(const uint8_t *data) {
    const uint32_t operators = get16(data + 20), segments = get16(data + 22);
    const uint32_t channels = get32(data + 24), height = get16(data + 28), width = get16(data + 30);
    const uint32_t description = get32(data + 36);
    const int32_t exponent = get_i8(data + 32);
    if (operators > COC_MAX_OPERATORS || segments > COC_MAX_SEGMENTS || channels > COC_MAX_CHANNELS ||
        description > COC_MAX_DESCRIPTION)
        return COC_ERROR_LIMIT;
    if (operators == 0 || segments == 0 || segments > operators || description == 0)
        return COC_ERROR_MALFORMED;
    if (channels == 0 || height == 0 || width == 0 || exponent < -COC_MAX_EXPONENT || exponent > COC_MAX_EXPONENT)
        return COC_ERROR_MALFORMED;
    if (data[33] > COC_REGRESSION || !all_zero(data + 34, 2) || !all_zero(data + 40, 8))
        return COC_ERROR_MALFORMED;
    return COC_OK;
}

/* Find the sections; they lie within the file up to the place of the weights, which may be its end. */
static coc_status find_sections(const uint8_t *data, size_t size, sections *found) {
    *found = (sections){.operators = get16(data + 20), .segments = get16(data + 22)};
    found->thresholds =
        COC_HEADER_BYTES + COC_OPERATOR_BYTES * (uint64_t)found->operators + COC_SEGMENT_BYTES * (uint64_t)found->segments;
    found->biases = found->thresholds + 4 * (uint64_t)(found->segments - 1);
    if (found->biases > size)
        return COC_ERROR_TRUNCATED;
    for (uint32_t j = 0; j < found->operators; j++) {
        const uint8_t *p = data + COC_HEADER_BYTES + (size_t)COC_OPERATOR_BYTES * j;
        if (get32(p + 16) > COC_MAX_CHANNELS)
            return COC_ERROR_LIMIT;
        const coc_op *op = coc_op_of(p[0]);
        found->bias_count += op != NULL && op->has_biases ? get32(p + 16) : 0;
        found->scale_count += op != NULL && op->has_scales ? get32(p + 16) : 0;
    }
    found->scales = found->biases + 4 * found->bias_count;
    found->weights = found->scales + 2 * found->scale_count + get32(data + 36);
    return found->weights > size ? COC_ERROR_TRUNCATED : COC_OK;
}

/* A model of the right size, with its arrays in place, the rest zero. */
static coc_status allocate(const sections *found, size_t size, const coc_allocator *allocator, coc_model **model,
                           coc_parameters *parameters) {
    uint64_t at = coc_align(sizeof(coc_model));
    const uint64_t tensors_at = at;
    at = coc_align(at + (found->operators + UINT64_C(1)) * sizeof(coc_tensor));
    const uint64_t nodes_at = at;
    at = coc_align(at + found->operators * (uint64_t)sizeof(coc_node));
    const uint64_t biases_at = at;
    at = coc_align(at + found->bias_count * sizeof(int32_t));
    const uint64_t multipliers_at = at;
    at = coc_align(at + found->scale_count * sizeof(float));
    const uint64_t codes_at = at + found->weights % COC_WEIGHT_ALIGNMENT; /* as aligned as in the file */
    at = codes_at + (size - found->weights);
    if (at > SIZE_MAX)
        return COC_ERROR_LIMIT;
    uint8_t *memory = allocator->allocate(allocator->user, (size_t)at);
    if (memory == NULL)
        return COC_ERROR_MEMORY;
    memset(memory, 0, (size_t)codes_at);
    *model = (coc_model *)(void *)memory;
    (*model)->allocator = *allocator;
    (*model)->node_count = found->operators;
    (*model)->segment_count = found->segments;
    (*model)->tensors = (coc_tensor *)(void *)(memory + tensors_at);
    (*model)->nodes = (coc_node *)(void *)(memory + nodes_at);
    parameters->biases = found->biases;
    parameters->scales = found->scales;
    parameters->weights = parameters->weights_begin = found->weights;
    parameters->bias = (int32_t *)(void *)(memory + biases_at);
    parameters->multiplier = (float *)(void *)(memory + multipliers_at);
    parameters->codes = memory + codes_at;
    return COC_OK;
}

static coc_status read_segments(coc_model *model, const uint8_t *p) {
    uint32_t first = 0, input = 0;
    for (uint32_t k = 0; k < model->segment_count; k++, p += COC_SEGMENT_BYTES) {
        const uint32_t count = get16(p), logits = get16(p + 2), carry = get16(p + 4);
        const uint32_t end = first + count;
        if (count == 0 || end > model->node_count || get16(p + 6) != 0)
            return COC_ERROR_MALFORMED;
        const int last = k == model->segment_count - 1;
        const int written = carry > first && carry <= end;
        if (last ? carry != 0 : carry != input && !written)
            return COC_ERROR_MALFORMED;
        model->segments[k] = (coc_segment){input, first, end, logits, carry};
        input = carry;
        first = end;
    }
    return first == model->node_count ? COC_OK : COC_ERROR_MALFORMED;
}

/* Stride, kernel, dilation and padding of a convolution or a pool. */
static int window_legal(const uint8_t *p, const coc_op *op) {
    if (p[3] == 0 || p[23] == p[3] || p[8] == 0 || p[9] == 0)
        return 0;
    const int dilated = op->fields & COC_DILATION;
    if (dilated && ((p[8] == 1 && p[6] != 0) || (p[9] == 1 && p[7] != 0)))
        return 0;
    const int high = (p[8] - 1) * (dilated ? p[6] + 1 : 1), wide = (p[9] - 1) * (dilated ? p[7] + 1 : 1);
    return p[10] <= high && p[12] <= high && p[11] <= wide && p[13] <= wide;
}

/* Whether every field that an operator does not have is 0 and the others are in their ranges. */
static int fields_legal(const uint8_t *p, const coc_op *op) {
    if (op->inputs == 1 && !(op->fields & COC_DILATION) && get16(p + 6) != 0)
        return 0;
    if (op->fields & COC_WINDOW ? !window_legal(p, op) : p[3] != 0 || p[23] != 0 || !all_zero(p + 8, 6))
        return 0;
    if (((op->fields & COC_GROUPS) != 0) != (get16(p + 14) != 0))
        return 0;
    if (((op->fields & (COC_WEIGHTS | COC_COUNT)) != 0) != (get32(p + 16) != 0))
        return 0;
    return op->fields & COC_WEIGHTS ? COC_WEIGHT_BITS(p[1]) && p[2] <= 1 : p[1] == 0 && p[2] == 0;
}

static coc_status read_fields(const uint8_t *p, coc_node *node, coc_row *row) {
    node->kind = p[0];
    node->op = coc_op_of(p[0]);
    if (node->op == NULL || !fields_legal(p, node->op))
        return COC_ERROR_MALFORMED;
    node->inputs[0] = get16(p + 4);
    node->inputs[1] = node->op->inputs == 2 ? get16(p + 6) : 0;
    *row = (coc_row){
        .weight_bits = p[1],
        .out_channels = get32(p + 16),
        .encoding = p[2] == 0 ? COC_ODD : COC_SYMMETRIC,
        .kernel_height = p[8],
        .kernel_width = p[9],
        .stride = p[3],
        .across = p[23] != 0 ? p[23] : p[3],
        .pad_top = p[10],
        .pad_left = p[11],
        .pad_bottom = p[12],
        .pad_right = p[13],
        .groups = get16(p + 14),
        .dilation_down = node->op->fields & COC_DILATION ? p[6] + 1u : 1,
        .dilation_across = node->op->fields & COC_DILATION ? p[7] + 1u : 1,
    };
    return COC_OK;
}

/* Bits, zero point and exponent of what an operator writes. */
static coc_status read_output(const uint8_t *p, const coc_node *node, coc_tensor *output) {
    output->bits = p[20];
    output->zero = p[21];
    output->exponent = get_i8(p + 22);
    if (output->exponent < -COC_MAX_EXPONENT || output->exponent > COC_MAX_EXPONENT)
        return COC_ERROR_MALFORMED;
    if (node->op->gives_logits)
        return output->bits == COC_LOGIT_BITS && output->zero == 0 ? COC_OK : COC_ERROR_MALFORMED;
    if (output->bits < 2 || output->bits > COC_MAX_BITS)
        return COC_ERROR_MALFORMED;
    return output->zero == 0 || output->zero == 1 << (output->bits - 1) ? COC_OK : COC_ERROR_MALFORMED;
}

static coc_status read_operators(coc_model *model, const uint8_t *data) {
    const coc_segment *segment = model->segments;
    const uint8_t *p = data + COC_HEADER_BYTES;
    uint32_t version = 1;
    for (uint32_t j = 0; j < model->node_count; j++, p += COC_OPERATOR_BYTES) {
        coc_node *node = &model->nodes[j];
        coc_row row;
        segment += j == segment->end;
        coc_status status = read_fields(p, node, &row);
        if (status == COC_OK)
            status = coc_check_reads(model, segment, j);
        if (status == COC_OK)
            status = read_output(p, node, &model->tensors[j + 1]);
        if (status == COC_OK)
            status = coc_check_shape(model, &row, node, &model->tensors[j + 1]);
        if (status != COC_OK)
            return status;
        const int plain = row.across == row.stride && row.dilation_down == 1 && row.dilation_across == 1;
        const uint32_t since = plain ? node->op->since : 2;
        version = since > version ? since : version;
    }
    return get32(data + 8) == version ? COC_OK : COC_ERROR_MALFORMED;
}

/* Give every operator its parameters and the numbers that follow from types. */
static coc_status read_parameters(coc_model *model, coc_parameters *at) {
    for (uint32_t j = 0; j < model->node_count; j++) {
        coc_node *node = &model->nodes[j];
        const coc_tensor *x[2];
        coc_read_by(model, node, x);
        const coc_status status =
            node->op->bind == NULL ? COC_OK : node->op->bind(at, x, &model->tensors[j + 1], node);
        if (status != COC_OK)
            return status;
    }
    return at->weights == at->size ? COC_OK : COC_ERROR_MALFORMED;
}

static coc_status read_image(coc_model *model, const uint8_t *data) {
    model->tensors[0] = (coc_tensor){
        .rank = 3,
        .channels = get32(data + 24),
        .height = get16(data + 28),
        .width = get16(data + 30),
        .bits = 8,
        .zero = 128,
        .exponent = get_i8(data + 32),
    };
    return coc_elements(&model->tensors[0]) > COC_MAX_ELEMENTS ? COC_ERROR_LIMIT : COC_OK;
}

static coc_status read_thresholds(coc_model *model, const uint8_t *p) {
    const uint32_t most = model->task == COC_REGRESSION ? COC_MAX_TOLERANCE_AS_BITS : COC_MAX_CONFIDENCE_AS_BITS;
    for (uint32_t k = 0; k + 1 < model->segment_count; k++) {
        const uint32_t bits = get32(p + 4 * (size_t)k);
        if (bits > most)
            return COC_ERROR_MALFORMED;
        memcpy(&model->thresholds[k], &bits, sizeof bits);
    }
    return COC_OK;
}

coc_status coc_read_model(const uint8_t *data, size_t size, const coc_allocator *allocator, coc_model **model) {
    sections found;
    coc_parameters parameters = {.data = data, .size = size};
    coc_status status = coc_check_head(data, size);
    if (status == COC_OK && crc32(data + 16, size - 16) != get32(data + 12))
        status = COC_ERROR_CHECKSUM;
    if (status == COC_OK)
        status = check_header(data);
    if (status == COC_OK)
        status = find_sections(data, size, &found);
    if (status == COC_OK)
        status = allocate(&found, size, allocator, model, &parameters);
    if (status != COC_OK)
        return status;
    memcpy(parameters.codes, data + found.weights, size - (size_t)found.weights);
    (*model)->task = (coc_task)data[33];
    status = read_image(*model, data);
    if (status == COC_OK)
        status = read_thresholds(*model, data + found.thresholds);
    if (status == COC_OK)
        status = read_segments(*model, data + COC_HEADER_BYTES + (size_t)COC_OPERATOR_BYTES * found.operators);
    if (status == COC_OK)
        status = read_operators(*model, data);
    if (status == COC_OK)
        status = coc_check_segments(*model);
    if (status == COC_OK)
        status = read_parameters(*model, &parameters);
    if (status == COC_OK) {
        coc_place_tensors(*model);
    } else {
        allocator->release(allocator->user, *model);
        *model = NULL;
    }
    return status;
}
