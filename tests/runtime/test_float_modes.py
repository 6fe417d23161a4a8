"""What programs do to floating point: other rounding directions are refused, NumPy's settings harmless."""

import ctypes
import ctypes.util
import platform
from pathlib import Path

import numpy as np
import pytest

from coc_runtime import CocError, arithmetic
from graphs import random_graph, random_images
from openers import Opener, by_every_back_end

X86_MODES = {"down": 0x400, "up": 0x800, "towards zero": 0xC00}
"""FE_DOWNWARD and so on of glibc on x86."""

library = ctypes.util.find_library("m")


@by_every_back_end
@pytest.mark.parametrize("mode", X86_MODES)
def test_a_session_runs_only_where_the_thread_rounds_to_nearest(
    mode: str, opener: Opener, tmp_path: Path
) -> None:
    if library is None or platform.machine() != "x86_64" or platform.system() != "Linux":
        pytest.skip("the directions' numbers are known for glibc on x86 alone")
    libm, graph = ctypes.CDLL(library), random_graph(3, exits=1)
    session, images = opener(graph, tmp_path), random_images(graph, 3)
    expected = session.run(images).logits
    for call in (session.run, session.logits_per_exit, lambda images: session.run(images[:1])):
        assert libm.fesetround(X86_MODES[mode]) == 0
        try:
            with pytest.raises(
                CocError, match=r"does not round to nearest.*fesetround\(FE_TONEAREST\) first"
            ):
                call(images)
        finally:
            libm.fesetround(0)
    np.testing.assert_array_equal(session.run(images).logits, expected)


@by_every_back_end
def test_numpys_error_settings_change_nothing(opener: Opener, tmp_path: Path) -> None:
    graph = random_graph(3, exits=2)
    session, images = opener(graph, tmp_path), random_images(graph, 20)
    expected = session.run(images)
    with np.errstate(all="raise"):
        found = session.run(images)
        one = session.run(images[:1])
    np.testing.assert_array_equal(found.logits, expected.logits)
    np.testing.assert_array_equal(found.confidence, expected.confidence)
    np.testing.assert_array_equal(one.confidence, expected.confidence[:1])


def test_a_hopeless_class_raises_nothing() -> None:
    with np.errstate(all="raise"):
        found = arithmetic.confidence(np.array([[2.0**30, -(2.0**30), 0], [-800.5, 0, -60]], np.float32))
    assert found.tolist() == [1, 1]
