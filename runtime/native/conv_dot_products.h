/* conv_dot_products.h - sums of a register tile in 32 bits, for instructions that need no widening in between (x86;
 * internal). The including file defines dot_vec, dot_load(), dot_set() and dot_multiply_add(). */
COC_INLINE void dot_products(int N, const dot_walk *walk, size_t half, dot_vec acc[DOT_VECTORS][4]) {
    const uint32_t *w = walk->weights;
    size_t offset = 0;
#pragma GCC unroll 4
    for (int j = 0; j < N; j++)
#pragma GCC unroll 4
        for (int o = 0; o < 4; o++)
            acc[j][o] = dot_set(walk->bias[o]);
    for (uint32_t unit = 0; unit < walk->units; unit++, offset += walk->unit_step)
        for (uint32_t tap = 0; tap < walk->taps; tap++, w += 4) {
            const size_t at = offset + walk->tap[tap];
            dot_vec x[DOT_VECTORS];
#pragma GCC unroll 4
            for (int j = 0; j < N; j++)
                x[j] = dot_load(walk->x[j] + at, half);
#pragma GCC unroll 4
            for (int o = 0; o < 4; o++) {
                const dot_vec weight = dot_set((int32_t)w[o]);
#pragma GCC unroll 4
                for (int j = 0; j < N; j++)
                    dot_multiply_add(acc[j][o], x[j], weight);
            }
        }
}

static uint32_t dot_flush_steps(const coc_conv *layer) {
    (void)layer;
    return 0;
}
