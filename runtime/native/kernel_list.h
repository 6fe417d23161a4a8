/* kernel_list.h - every convolution kernel, in the order in which the planner asks them.
 *
 * Define COC_KERNEL(name), include this file. One line gives a kernel its declaration
 * `extern const coc_conv_kernel coc_<name>;`, its place in the table and its tests.
 * Best first within a level; scalar last.
 */
#if defined(__x86_64__)
COC_KERNEL(conv3x3s1_w1a4_sums_avx512)
COC_KERNEL(conv_w1_sums_avx512)
COC_KERNEL(conv_dot8_avx512)
COC_KERNEL(conv_grouped_avx512)
#if defined(COC_AVX_VNNI)
COC_KERNEL(conv_dot8_avxvnni)
COC_KERNEL(conv_grouped_avxvnni)
#endif
COC_KERNEL(conv3x3s1_w1a4_sums_avx2)
COC_KERNEL(conv3x3s1_w1_sums5_avx2)
COC_KERNEL(conv_w1_sums_avx2)
COC_KERNEL(conv_dot8_avx2)
COC_KERNEL(conv_dot16_avx2)
COC_KERNEL(conv_depthwise_avx2)
COC_KERNEL(conv_grouped_avx2)
#endif
#if defined(__aarch64__)
COC_KERNEL(conv_w1_sums_neon)
COC_KERNEL(conv_dot16_neon)
COC_KERNEL(conv_grouped_neon)
#endif
COC_KERNEL(conv_scalar)
#undef COC_KERNEL
