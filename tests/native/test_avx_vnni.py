"""The level for AVX-VNNI: the instruction that compilers emit, what it computes, and where it is taken."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from coc_runtime.backends import native
from coc_runtime.environment import environment
from native_driver import NATIVE, Driver, runs_avx_vnni

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="a level of x86")

COMPARISON = """
#define COC_EMULATE_AVX_VNNI
#include "conv_dot8_avxvnni.c"
#include <stdio.h>
const coc_conv_kernel coc_conv_w1_sums_avx2;

__attribute__((target("avx2,avxvnni"))) static __m256i instruction(__m256i sum, __m256i x, __m256i w) {
    return _mm256_dpbusd_avx_epi32(sum, x, w);
}

__attribute__((target("avx2"))) int main(void) {
    static const uint8_t extremes[] = {0, 1, 127, 128, 129, 255};
    uint64_t state = 1;
    int count = 0;
    for (; count < 100000; count++) {
        uint8_t bytes[96], results[2][32];
        for (int i = 0; i < 96; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            bytes[i] = count % 2 ? extremes[(state >> 40) % 6] : (uint8_t)(state >> 40);
        }
        const __m256i *at = (const __m256i *)(const void *)bytes;
        const __m256i sum = _mm256_loadu_si256(at), x = _mm256_loadu_si256(at + 1);
        const __m256i w = _mm256_loadu_si256(at + 2);
        _mm256_storeu_si256((__m256i *)(void *)results[0], instruction(sum, x, w));
        _mm256_storeu_si256((__m256i *)(void *)results[1], dot_definition(sum, x, w));
        if (memcmp(results[0], results[1], 32) != 0)
            break;
    }
    printf("%d", count);
}
"""


@pytest.mark.parametrize("compiler", ("gcc", "clang"))
def test_the_kernel_consists_of_vex_instructions(compiler: str, tmp_path: Path) -> None:
    """An EVEX encoding, or a register beyond the sixteenth, would need AVX-512."""
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    target = tmp_path / "kernel.s"
    command = [compiler, "-std=c11", "-O3", "-S", str(NATIVE / "conv_dot8_avxvnni.c"), "-o", str(target)]
    subprocess.run(command, check=True)
    text = target.read_text()
    assert text.count("{vex}\tvpdpbusd") + text.count("{vex} vpdpbusd") == text.count("vpdpbusd") >= 8
    assert "%zmm" not in text and "%k1" not in text
    assert not any(f"%{kind}mm{number}" in text for kind in "xy" for number in range(16, 32))


def test_the_definition_that_tests_may_use_is_what_the_instruction_computes(tmp_path: Path) -> None:
    if not runs_avx_vnni():
        pytest.skip("this CPU does not execute AVX-VNNI")
    (tmp_path / "comparison.c").write_text(COMPARISON)
    program = tmp_path / "comparison"
    command = [
        "gcc",
        "-std=c11",
        "-O1",
        "-w",
        f"-I{NATIVE}",
        str(tmp_path / "comparison.c"),
        "-o",
        str(program),
    ]
    subprocess.run(command, check=True)
    assert subprocess.run([program], capture_output=True, text=True).stdout == "100000"


def test_the_drivers_tests_cover_the_level_whatever_cpuid_says(driver: Driver) -> None:
    assert ("avxvnni" in driver.levels()) == ("avx2" in driver.levels())


def test_sessions_take_the_level_where_cpuid_tells_the_feature() -> None:
    if native.why_missing() is not None:
        pytest.skip(str(native.why_missing()))
    assert ("avxvnni" in native.levels()) == ("avx_vnni" in environment()["flags"])
    order = ["avx512", "avxvnni", "avx2", "neon", "scalar"]
    assert list(native.levels()) == sorted(native.levels(), key=order.index)
