/* floats.h - the floating point that results rest on: IEEE 754, rounded once per operation, to nearest (internal).
 *
 * A compiler that may reorder or replace float operations changes results without a word: coc_requantize, for one,
 * adds a number and subtracts it again. What it tells by a macro is refused here, what it does not is switched off.
 * setup.py and CMakeLists.txt switch all of it off by options behind those of CFLAGS.
 */
#ifndef COC_FLOATS_H
#define COC_FLOATS_H

#include <float.h>

#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || defined(_M_FP_FAST) || \
    (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || (defined(__GCC_IEC_559) && __GCC_IEC_559 == 0)
#error "coc needs exact floating point: compile it without -ffast-math, -Ofast, /fp:fast and the options they consist of"
#endif

#if FLT_EVAL_METHOD != 0
#error "coc needs float arithmetic in single precision: on 32-bit x86 compile it with -msse2 -mfpmath=sse"
#endif

/* Clang has no macro for -funsafe-math-optimizations and its parts, nor has a dialect that allows contraction one for
 * that; but this library has nothing to contract, an addition that takes a product. */
#if defined(__clang__)
#pragma clang fp reassociate(off) contract(off)
#elif defined(_MSC_VER)
#pragma float_control(precise, on)
#pragma fp_contract(off)
#endif

/* Whether the calling thread rounds to nearest, ties to even. */
int coc_rounds_to_nearest(void);

#endif
