"""The C extension; everything else is declared in setup.cfg.

Where it cannot be built, installing goes on without it: `Session` then runs .coc files on the reference and
says why.
"""

import os
from glob import glob

from setuptools import Extension, setup

NATIVE = "runtime/native"

# These stand behind the options of CFLAGS and LDFLAGS and undo what of them would change results (floats.h).
# Linking with -ffast-math would moreover change the mode of the program that imports the extension.
NO_FAST_MATH = ["-fno-fast-math", "-fno-unsafe-math-optimizations"]
EXACT = ["-ffp-contract=off", *NO_FAST_MATH, "-fno-associative-math", "-fno-reciprocal-math"]
EXACT += ["-fno-finite-math-only", "-fsigned-zeros"]

native = Extension(
    "coc_runtime._native",
    sources=sorted(
        path for path in glob(f"{NATIVE}/**/*.c", recursive=True) if os.path.basename(path) != "fuzz.c"
    ),
    depends=sorted(glob(f"{NATIVE}/**/*.h", recursive=True)),
    include_dirs=[NATIVE],
    define_macros=[("_GNU_SOURCE", None)],
    extra_compile_args=["-std=c11", "-O3", *EXACT, "-fvisibility=hidden", "-g0"],
    extra_link_args=["-pthread", "-lm", "-O3", *NO_FAST_MATH],
    py_limited_api=True,
    optional=True,
)

setup(ext_modules=[native], options={"bdist_wheel": {"py_limited_api": "cp311"}})
