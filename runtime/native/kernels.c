/* kernels.c - the table of convolution kernels, from kernel_list.h. */
#include "kernels.h"

#define COC_KERNEL(name) extern const coc_conv_kernel coc_##name;
#include "kernel_list.h"

const coc_conv_kernel *const coc_conv_kernels[] = {
#define COC_KERNEL(name) &coc_##name,
#include "kernel_list.h"
};

const size_t coc_conv_kernel_count = sizeof coc_conv_kernels / sizeof coc_conv_kernels[0];
