/* conv_sums_channel8.h - one output channel of conv_sums.h with tables in 8 bits, for activations of at most 4 bits and
 * a 3x3 kernel of stride 1 (internal; continues that file).
 *
 * Table entries carry an offset of SUMS_GROUP * s, which makes them unsigned (at most 64; the offsets join the bias).
 * The three entries of a group in one column of the kernel add up to at most 192 in 8 bits. Read as 16-bit lanes, such
 * a sum is even + 256 * odd (pixels of even and odd columns); `both` adds the lanes as they are, `odd` adds their upper
 * bytes, and even = both - 256 * odd at the end, modulo 2^16.
 *
 * A neighbour is in the other half: with e, o for even and odd columns, and sets l, m, r of taps that read from the
 * left, the same column and the right,
 *   result.e[i] = m.e[i] + l.o[i - 1] + r.o[i]      result.o[i] = m.o[i] + l.e[i] + r.e[i + 1]
 */

/* N vectors of sums from vector `at` of the strip, for one output channel. */
COC_INLINE void sums_accumulate8(int N, const uint8_t *codes, uint32_t groups, const uint8_t *table, size_t group_bytes,
                                 sums_vec both[3][SUMS_TILE], sums_vec odd[3][SUMS_TILE]) {
    for (uint32_t group = 0; group < groups; group++, table += group_bytes) {
        uint64_t eight;
        memcpy(&eight, codes, 8);
        const uint32_t ninth = codes[8];
        codes += 9;
#pragma GCC unroll 3
        for (uint32_t column = 0; column < 3; column++) {
            const uint8_t *top = table + (size_t)(uint8_t)(eight >> (8 * column)) * 8;
            const uint8_t *middle = table + (size_t)(uint8_t)(eight >> (8 * column + 24)) * 8 + SUMS_ROW;
            const uint8_t *bottom = table + 2 * SUMS_ROW +
                (size_t)(column == 2 ? ninth : (uint8_t)(eight >> (8 * column + 48))) * 8;
#pragma GCC unroll 4
            for (int j = 0; j < N; j++) {
                sums_vec three = sums_add8(sums_load(top + j * (int)SUMS_ROW), sums_load(middle + j * (int)SUMS_ROW));
                three = sums_add8(three, sums_load(bottom + j * (int)SUMS_ROW));
                sums_add_to(both[column][j], three);
                sums_add_to(odd[column][j], sums_upper(three));
            }
        }
    }
}

COC_INLINE void sums_channel(const sums_pass *pass, sums_kind kind, int N, uint32_t L, uint32_t at, uint32_t out,
                             const uint8_t *codes, const sums_fill *fill, const sums_rules *rules,
                             uint8_t *plane) {
    (void)kind;
    const sums_job *job = pass->job;
    const uint8_t *table = job->scratch + job->at.table + (size_t)at * SUMS_ROW;
    sums_vec both[3][SUMS_TILE], odds[3][SUMS_TILE];
#pragma GCC unroll 3
    for (int column = 0; column < 3; column++)
#pragma GCC unroll 4
        for (int j = 0; j < N; j++)
            both[column][j] = odds[column][j] = sums_set(0);
    sums_accumulate8(N, codes, pass->groups, table, pass->group_bytes, both, odds);

    int32_t *sums = (int32_t *)(void *)(job->scratch + job->at.sums) + ((size_t)out * pass->rows + at) * SUMS_LANES;
    const sums_edges edges = sums_make_edges(L / 2, fill->left, fill->right);
#pragma GCC unroll 4
    for (int j = 0; j < N; j++, sums += SUMS_LANES) {
        sums_vec even[3], *const odd[3] = {&odds[0][j], &odds[1][j], &odds[2][j]}, half[2];
#pragma GCC unroll 3
        for (int column = 0; column < 3; column++)
            even[column] = sums_sub(both[column][j], sums_left8(*odd[column]));
        half[0] = sums_add(sums_add(even[1], sums_from_left(&edges, L / 2, 1, 0, *odd[0], *odd[0])), *odd[2]);
        half[1] = sums_add(sums_add(*odd[1], even[0]), sums_from_right(&edges, L / 2, 1, 0, even[2], even[2]));
        sums_vec words[2];
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            sums_wide a = sums_low16(half[h]), b = sums_high16(half[h]);
            int32_t *at_sums = sums + (uint32_t)h * (SUMS_LANES / 2);
            if (!pass->first) {
                a = sums_add32(a, sums_load32(at_sums));
                b = sums_add32(b, sums_load32(at_sums + SUMS_LANES / 4));
            }
            a = sums_add32(a, sums_set32(rules->bias));
            b = sums_add32(b, sums_set32(rules->bias));
            if (!pass->last) {
                sums_store32(at_sums, a);
                sums_store32(at_sums + SUMS_LANES / 4, b);
                words[h] = sums_set(0);
                continue;
            }
            words[h] = requantize(a, b, rules->multiplier, rules->zero);
        }
        if (!pass->last)
            continue;
        _Alignas(64) uint8_t bytes[SUMS_LANES];
        sums_narrow_halves(words[0], words[1], rules, bytes);
        sums_put(job, L, plane, pass->strip + at + (uint32_t)j, 0, bytes);
    }
}
