/* conv_sums_channel16.h - one output channel of conv_sums.h with sums in 16 bits (internal; continues that file). */

/* Where a tap finds the table of vector j, in tables of one vector (see sums_build). */
COC_INLINE uint32_t sums_place(sums_kind kind, uint32_t V, uint32_t tap, uint32_t j) {
    const uint32_t row = tap / 3, column = tap % 3;
    if (kind == SUMS_1X1)
        return j;
    if (kind == SUMS_3X3S1)
        return row * V + j;
    return ((2 * (j / V) + row) * 2 + (column == 1 ? 0 : 1)) * V + j % V;
}

/* acc[column of the kernel][j] += table[code] for one tap. */
COC_INLINE void sums_tap(sums_kind kind, int N, uint32_t V, uint32_t tap, uint32_t code, const uint8_t *table,
                         sums_vec acc[3][SUMS_TILE_1X1]) {
    const uint32_t column = tap % 3;
    const uint32_t from = kind == SUMS_1X1 ? 1 : column;
    table += (size_t)code * 8;
#pragma GCC unroll 8
    for (int j = 0; j < N; j++)
        sums_add_from(acc[from][j], table + sums_place(kind, V, tap, (uint32_t)j) * SUMS_ROW);
}

/* Eight codes come with one load: loads are what limits this loop. */
COC_INLINE void sums_accumulate(sums_kind kind, int N, uint32_t V, const uint8_t *codes, uint32_t groups,
                                const uint8_t *table, size_t group_bytes, sums_vec acc[3][SUMS_TILE_1X1]) {
    for (uint32_t group = 0; group < groups; group++, table += group_bytes) {
        if (kind == SUMS_1X1) {
            sums_tap(kind, N, V, 0, *codes++, table, acc);
            continue;
        }
        uint64_t eight;
        memcpy(&eight, codes, 8);
        const uint32_t ninth = codes[8];
        codes += 9;
#pragma GCC unroll 9
        for (uint32_t tap = 0; tap < 8; tap++)
            sums_tap(kind, N, V, tap, (uint8_t)(eight >> (8 * tap)), table, acc);
        sums_tap(kind, N, V, 8, ninth, table, acc);
    }
}

/* The sums of vector j, in 32 bits and with the bias: accumulators are moved to the column they belong to and added. */
COC_INLINE void sums_combine(sums_kind kind, uint32_t L, int j, const sums_edges *edges, const sums_rules *r,
                             sums_vec acc[3][SUMS_TILE_1X1], sums_wide *low, sums_wide *high) {
    const int V = L > SUMS_LANES ? (int)(L / SUMS_LANES) : 1;
    sums_vec narrow = acc[1][j], apart = sums_set(0);
    if (kind != SUMS_1X1)
        apart = sums_from_left(edges, L, V, j % V, j % V ? acc[0][j - 1] : acc[0][j], acc[0][j]);
    if (kind == SUMS_3X3S1) {
        narrow = sums_add(narrow, apart);
        apart = sums_from_right(edges, L, V, j % V, acc[2][j], (j + 1) % V ? acc[2][j + 1] : acc[2][j]);
    } else if (kind == SUMS_3X3S2)
        narrow = sums_add(narrow, acc[2][j]);
    if (kind == SUMS_1X1) {
        *low = sums_widen_low(narrow, sums_set(SUMS_BIAS_STEP), r->bias_high);
        *high = sums_widen_high(narrow, sums_set(SUMS_BIAS_STEP), r->bias_high);
    } else {
        *low = sums_add32(sums_widen_low(narrow, apart, 1), sums_set32(r->bias));
        *high = sums_add32(sums_widen_high(narrow, apart, 1), sums_set32(r->bias));
    }
}

/* N vectors of sums from vector `at` of the strip, for one output channel. */
COC_INLINE void sums_channel(const sums_pass *pass, sums_kind kind, int N, uint32_t L, uint32_t at, uint32_t out,
                             const uint8_t *codes, const sums_fill *fill, const sums_rules *rules,
                             uint8_t *plane) {
    const int V = L > SUMS_LANES ? (int)(L / SUMS_LANES) : 1;
    const sums_job *job = pass->job;
    const uint8_t *table = job->scratch + job->at.table + (size_t)at * (kind == SUMS_3X3S2 ? 4 : 1) * SUMS_ROW;
    sums_vec acc[3][SUMS_TILE_1X1];
#pragma GCC unroll 8
    for (int j = 0; j < N; j++) {
        acc[0][j] = acc[2][j] = sums_set(0);
        acc[1][j] = sums_set(kind == SUMS_1X1 ? rules->bias_low : 0);
    }
    sums_accumulate(kind, N, (uint32_t)V, codes, pass->groups, table, pass->group_bytes, acc);

    int32_t *sums = (int32_t *)(void *)(job->scratch + job->at.sums) +
                    ((size_t)out * pass->rows * (uint32_t)V + at) * SUMS_LANES;
    const sums_edges edges = sums_make_edges(L, fill->left, fill->right);
    sums_vec words[SUMS_TILE_1X1];
#pragma GCC unroll 8
    for (int j = 0; j < N; j++, sums += SUMS_LANES) {
        sums_wide low, high;
        sums_combine(kind, L, j, &edges, rules, acc, &low, &high);
        if (!pass->first) {
            low = sums_add32(low, sums_load32(sums));
            high = sums_add32(high, sums_load32(sums + SUMS_LANES / 2));
        }
        if (!pass->last) {
            sums_store32(sums, low);
            sums_store32(sums + SUMS_LANES / 2, high);
            words[j] = sums_set(0);
            continue;
        }
        words[j] = requantize(low, high, rules->multiplier, rules->zero);
    }
    if (!pass->last)
        return;
    /* Whole rows go where they belong, other lanes by way of a buffer. */
    const int direct = job->full && L >= SUMS_LANES;
    _Alignas(64) uint8_t bytes[SUMS_TILE_1X1 * SUMS_LANES];
    uint8_t *target[SUMS_TILE_1X1];
#pragma GCC unroll 8
    for (int j = 0; j < SUMS_TILE_1X1; j++)
        target[j] = direct && j < N ? plane + (size_t)(job->first + pass->strip) * L + (at + (uint32_t)j) * SUMS_LANES
                                    : bytes + (uint32_t)j * SUMS_LANES;
#pragma GCC unroll 8
    for (int j = 0; j < N; j += 2)
        sums_narrow(words[j], words[j + 1 < N ? j + 1 : j], rules, target[j], target[j + 1]);
#pragma GCC unroll 8
    for (int j = 0; !direct && j < N; j++)
        sums_put(job, L, plane, pass->strip + (at + (uint32_t)j) / (uint32_t)V, (uint32_t)(j % V), target[j]);
}
