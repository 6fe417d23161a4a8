"""The C extension; everything else is declared in setup.cfg.

Where it cannot be built, installing goes on without it: `Session` then runs .coc files on the reference and
says why.
"""

import os
from glob import glob

from setuptools import Extension, setup

NATIVE = "runtime/native"

native = Extension(
    "coc_runtime._native",
    sources=sorted(
        path for path in glob(f"{NATIVE}/**/*.c", recursive=True) if os.path.basename(path) != "fuzz.c"
    ),
    depends=sorted(glob(f"{NATIVE}/**/*.h", recursive=True)),
    include_dirs=[NATIVE],
    define_macros=[("_GNU_SOURCE", None)],
    # Without contraction a * b + c rounds twice, everywhere alike: the exactness rests on it.
    extra_compile_args=["-std=c11", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-g0"],
    extra_link_args=["-pthread", "-lm"],
    py_limited_api=True,
    optional=True,
)

setup(ext_modules=[native], options={"bdist_wheel": {"py_limited_api": "cp311"}})
