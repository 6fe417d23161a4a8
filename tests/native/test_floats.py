"""Compilers that would change floating point are refused or held back, callers' modes refused or harmless."""

import os
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from coc_runtime import Session, arithmetic, cocwrite
from coc_runtime.graph import Graph
from graphs import as_regression, random_graph, random_images, random_inception
from native_driver import NATIVE, ROOT, Driver, Request
from sites import lay_out

FAST = (
    "-ffast-math",
    "-Ofast",
    "-funsafe-math-optimizations",
    "-fassociative-math -fno-signed-zeros -fno-trapping-math",
    "-freciprocal-math",
    "-ffinite-math-only",
    "-fno-signed-zeros",
    "-ffp-contract=fast",
)
ALL = " ".join(reversed(FAST))
"""-ffast-math last, so that the linker's driver looks at it, too."""

PROGRAM = """
#include "kernels.h"
#include <stdio.h>
int main(void) {
    for (volatile int sum = -9; sum <= 9; sum++)
        printf("%d ", coc_requantize(sum, 0.5f, 100, 255));
}
"""


def requires(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


def compiled(folder: Path, compiler: str, options: str) -> subprocess.CompletedProcess[str]:
    """PROGRAM, as someone compiles the sources who writes the command himself."""
    (folder / "program.c").write_text(PROGRAM)
    command = [
        compiler,
        "-std=c11",
        f"-I{NATIVE}",
        "-O2",
        "-w",
        *options.split(),
        "program.c",
        "-o",
        "program",
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("options", (*FAST, ""))
@pytest.mark.parametrize("compiler", ("gcc", "clang"))
def test_a_compiler_is_refused_or_rounds_as_the_reference(
    compiler: str, options: str, tmp_path: Path
) -> None:
    requires(compiler)
    done = compiled(tmp_path, compiler, options)
    if done.returncode != 0:
        assert options in FAST and "coc needs exact floating point" in done.stderr, done.stderr
        return
    assert compiler == "clang" or options not in FAST, "gcc tells by macros"
    found = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=True).stdout.split()
    expected = arithmetic.requantize(np.arange(-9, 10), 0.5, 100, 8)
    assert list(map(int, found)) == expected.tolist()


@pytest.mark.parametrize(("options", "fits"), (("", False), ("-msse2 -mfpmath=sse", True)))
def test_arithmetic_of_the_x87_unit_is_refused(options: str, fits: bool, tmp_path: Path) -> None:
    requires("gcc")
    if os.uname().machine != "x86_64":
        pytest.skip("a compiler for x86 is not installed")
    (tmp_path / "only.c").write_text('#include "floats.h"\n')
    command = ["gcc", "-m32", *options.split(), f"-I{NATIVE}", "-fsyntax-only", "only.c"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode == 0) == fits
    assert fits or "single precision" in done.stderr


@pytest.mark.parametrize(
    "source", ("ops/add.c", "ops/average_pool.c", "gate.c", "conv_scalar.c", "conv_dot8_avx2.c")
)
def test_nothing_is_there_to_be_contracted(source: str, tmp_path: Path) -> None:
    """Of a dialect that allows contraction no macro tells: with it and without it the code is the same."""
    requires("gcc")
    if os.uname().machine != "x86_64":
        pytest.skip("a compiler for x86 is not installed")
    for contract in ("fast", "off"):
        options = ["-std=gnu11", "-O2", "-mfma", f"-ffp-contract={contract}", "-S", "-o", tmp_path / contract]
        subprocess.run(["gcc", *options, f"-I{NATIVE}", NATIVE / source], check=True)
    assert (tmp_path / "fast").read_text() == (tmp_path / "off").read_text()


def quick_compiler(folder: Path) -> Path:
    """gcc, but for -O3, which takes a minute."""
    requires("gcc", "bash")
    script = folder / "cc"
    script.write_text('#!/bin/bash\nexec gcc "${@/#-O3/-O1}"\n')
    script.chmod(0o755)
    return script


CHILD = """
import pickle, sys
import numpy, coc_runtime
coc_runtime.__path__.insert(0, {folder!r})
from coc_runtime.backends import native
from coc_runtime import _native
assert _native.__file__.startswith({folder!r}), _native.__file__
tiny = sys.float_info.min
assert tiny / 2 > 0 and numpy.float32(1e-40) * numpy.float32(1) > 0, "the mode of this program was changed"
data, images = pickle.load(sys.stdin.buffer)
runs = [native.NativeBackend(data, "m", cpu=level).run(images) for level in native.levels()]
sys.stdout.buffer.write(pickle.dumps(runs))
"""


def test_setup_py_builds_the_exact_core_whatever_cflags_say(tmp_path: Path) -> None:
    import pickle

    environment = os.environ | {"CC": str(quick_compiler(tmp_path)), "CFLAGS": ALL}
    folders = ["--build-temp", str(tmp_path / "temp"), "--build-lib", str(tmp_path / "lib")]
    command = [sys.executable, "setup.py", "-q", "build_ext", "--parallel", "2", *folders]
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    graph = random_graph(5, exits=2)
    images = random_images(graph, 20)
    child = [sys.executable, "-c", CHILD.format(folder=str(tmp_path / "lib/coc_runtime"))]
    paths = os.environ | {"PYTHONPATH": str(ROOT / "runtime")}
    request = pickle.dumps((cocwrite.dump(graph), images))
    done = subprocess.run(child, env=paths, input=request, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    expected = Session.from_graph(graph).run(images)
    runs = pickle.loads(done.stdout)
    assert runs
    for logits, _, taken, confidence, _ in runs:
        np.testing.assert_array_equal(logits, expected.logits)
        np.testing.assert_array_equal(taken, expected.exit)
        np.testing.assert_array_equal(confidence, expected.confidence)


def test_cmake_builds_the_exact_library_whatever_its_flags_say(tmp_path: Path) -> None:
    requires("cmake")
    graph = random_graph(21, exits=2)
    site = lay_out(tmp_path, graph, random_images(graph, 30, seed=3))
    settings = {"CMAKE_C_COMPILER": quick_compiler(tmp_path), "CMAKE_C_FLAGS": ALL}
    settings |= {"BUILD_SHARED_LIBS": "ON", "COC_EXAMPLE": "ON"}
    options = [f"-D{name}={value}" for name, value in settings.items()]
    for command in (
        ["cmake", "-S", str(NATIVE), "-B", str(tmp_path / "b"), *options],
        ["cmake", "--build", str(tmp_path / "b"), "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    ran = subprocess.run([tmp_path / "b/classify", site.coc, *site.pnm], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    told = [line.rsplit(", ", 1)[0] for line in ran.stdout.splitlines()[:-1]]
    assert told == [f"{path}: {line}" for path, line in zip(site.pnm, site.lines(), strict=True)]


def test_a_thread_that_rounds_otherwise_is_refused(driver: Driver) -> None:
    assert driver.ask("e", cocwrite.dump(random_graph(5, exits=2))) == b"\0"


@cache
def models() -> tuple[Graph, ...]:
    """Of all operators; one with the smallest scales that a file may hold."""
    graph = random_graph(3, exits=2)
    tiny = replace(
        graph, segments=tuple(replace(s, nodes=tuple(map(_smallest, s.nodes))) for s in graph.segments)
    )
    return graph, tiny, random_inception(5, exits=2), as_regression(random_graph(6, exits=2, classes=2))


def _smallest(node):  # type: ignore[no-untyped-def]
    return replace(node, scale=np.full_like(node.scale, 2.0**-60)) if hasattr(node, "scale") else node


@pytest.mark.parametrize("index", range(4))
def test_flushed_denormals_change_nothing(driver: Driver, index: int) -> None:
    graph = models()[index]
    images = random_images(graph, 6)
    session = Session.from_graph(graph)
    expected = session.run(images)
    driver.ask("z", struct.pack("<I", 1))
    try:
        for level in driver.levels():
            for threads in (1, 2):
                request = Request(cpu=level, threads=threads)
                found = driver.run(cocwrite.dump(graph), images, graph.classes, request)
                for name in ("logits", "exit", "label", "confidence"):
                    np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    finally:
        driver.ask("z", struct.pack("<I", 0))
