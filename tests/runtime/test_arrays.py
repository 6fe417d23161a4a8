"""What images come in: arrays of the right bytes give the same integers everywhere, others are refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from coc_runtime import CocError
from graphs import random_graph, random_images
from openers import Opener, by_every_back_end


class Zeroing(np.ndarray):
    """Whatever is computed of it is zero, as of an array with units, masks or other ideas of its own."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: object, **options: object) -> object:
        plain = [x.view(np.ndarray) if isinstance(x, Zeroing) else x for x in inputs]
        return 0 * np.asarray(getattr(ufunc, method)(*plain))


def mapped(images: np.ndarray, folder: Path) -> np.ndarray:
    images.tofile(folder / "images")
    return np.memmap(folder / "images", np.uint8, "r", shape=images.shape)


def read_only(images: np.ndarray, folder: Path) -> np.ndarray:
    copy = images.copy()
    copy.flags.writeable = False
    return copy


def interleaved(images: np.ndarray, folder: Path) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def every_second(images: np.ndarray, folder: Path) -> np.ndarray:
    wide = np.zeros((2 * len(images), *images.shape[1:-1], 3 * images.shape[-1]), np.uint8)
    wide[::2, ..., ::3] = images
    return wide[::2, ..., ::3]


def at_an_odd_address(images: np.ndarray, folder: Path) -> np.ndarray:
    return np.frombuffer(b"-" + images.tobytes(), np.uint8, offset=1).reshape(images.shape)


SAME: dict[str, Callable[[np.ndarray, Path], np.ndarray]] = {
    "a subclass": lambda images, _: images.view(Zeroing),
    "a file": mapped,
    "read only": read_only,
    "Fortran order": lambda images, _: np.asfortranarray(images),
    "backwards": lambda images, _: images[::-1, ::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1, ::-1],
    "interleaved": interleaved,
    "strided": every_second,
    "an odd address": at_an_odd_address,
    "big-endian": lambda images, _: images.view(">u1"),
}


@by_every_back_end
@pytest.mark.parametrize("form", SAME)
def test_any_array_of_the_same_bytes_gives_the_same(form: str, opener: Opener, tmp_path: Path) -> None:
    graph = random_graph(5, exits=2)
    session, images = opener(graph, tmp_path), random_images(graph, 7)
    given = SAME[form](images, tmp_path)
    expected, found, alone = session.run(images), session.run(given), session.run(given[2:3])
    for name in ("logits", "label", "exit", "confidence", "bitops"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        np.testing.assert_array_equal(getattr(alone, name), getattr(expected, name)[2:3])
        assert type(getattr(found, name)) is np.ndarray
    every = session.logits_per_exit(given)
    assert type(every) is np.ndarray
    np.testing.assert_array_equal(every, session.logits_per_exit(images))


@by_every_back_end
def test_one_image_repeated_by_strides_of_zero(opener: Opener, tmp_path: Path) -> None:
    graph = random_graph(5, exits=1)
    session, image = opener(graph, tmp_path), random_images(graph, 1)
    found = session.run(np.broadcast_to(image, (4, *image.shape[1:])))
    np.testing.assert_array_equal(found.logits, np.repeat(session.run(image).logits, 4, axis=0))


SHAPE = (2, 3, 8, 8)
REFUSED = {
    "masked": (
        np.ma.masked_greater(np.arange(384, dtype=np.uint8).reshape(SHAPE), 9),
        "no pixel can be left out",
    ),
    "masked nowhere": (np.ma.MaskedArray(np.zeros(SHAPE, np.uint8)), "no pixel can be left out"),
    "NaN": (np.full(SHAPE, np.nan, np.float32), "images are float32"),
    "whole floats": (np.zeros(SHAPE), "images are float64"),
    "16 bits, big-endian": (np.zeros(SHAPE, ">u2"), "images are >u2"),
    "signed bytes": (np.zeros(SHAPE, np.int8), "images are int8"),
    "truth values": (np.zeros(SHAPE, bool), "images are bool"),
    "objects": (np.zeros(SHAPE, object), "images are object"),
    "records": (np.zeros(SHAPE, [("red", "u1")]), "images are "),
    "a matrix": (np.zeros((8, 8), np.uint8).view(np.matrix), r"images have shape \[8, 8\]"),
    "bytes": (b"123", "images are a bytes, not a NumPy array"),
}


@by_every_back_end
@pytest.mark.parametrize("case", REFUSED)
def test_other_arrays_are_refused_in_a_line(case: str, opener: Opener, tmp_path: Path) -> None:
    session = opener(random_graph(5, exits=1), tmp_path)
    images, words = REFUSED[case]
    for call in (session.run, session.logits_per_exit, lambda given: session.operator_times(given, 1)):
        with pytest.raises(CocError, match=words) as caught:
            call(images)
        assert "\n" not in str(caught.value) and "expected uint8 [N, 3, 8, 8]" in str(caught.value)
