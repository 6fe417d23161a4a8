"""Generated images are the same everywhere, reach the ends of the pixels' range, and reach every exit."""

import hashlib

import numpy as np
import pytest

from coc_export import generated
from coc_runtime import Session, arithmetic, thresholds
from coc_runtime.arithmetic import Task
from graphs import random_graph


@pytest.mark.parametrize(
    ("shape", "digest"),
    [
        ((1, 8, 8), "9ac95f964039cafc"),
        ((3, 32, 32), "d9393518fcb868f2"),
        ((3, 9, 14), "18947f5d19dd97b1"),
        ((4, 8, 8), "2363608efd87dc54"),
    ],
)
def test_they_are_pinned(shape: tuple[int, ...], digest: str) -> None:
    """A report compares logits of one machine with those of another: other images would compare nothing."""
    found = generated.images(shape)
    assert found.dtype == np.uint8 and found.shape == (generated.MOST, *shape)
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (5, 8, 9)])
def test_the_borders_are_among_them_and_no_image_twice(shape: tuple[int, ...]) -> None:
    found = [image.tobytes() for image in generated.images(shape)]
    pixels = int(np.prod(shape))
    assert {bytes([value]) * pixels for value in (0, 255, 128, 127)} <= set(found)
    assert len(set(found)) == len(found)
    board = np.indices(shape[1:]).sum(axis=0) % 2 * 255
    assert np.broadcast_to(board, shape).astype(np.uint8).tobytes() in found
    assert sum(set(image) == {0, 255} for image in found) >= 10


@pytest.mark.parametrize("shape", [(3, 224, 224), (3, 1080, 1920)])
def test_large_images_are_fewer_of_every_kind(shape: tuple[int, ...]) -> None:
    found = generated.images(shape)
    assert len(found) == generated.FEWEST
    assert len(np.unique(found[-1])) > 100, "noise is among them"


@pytest.mark.parametrize("exits", [1, 2, 3])
def test_spread_thresholds_send_some_to_every_exit(exits: int) -> None:
    session = Session.from_graph(random_graph(5, exits=exits))
    logits = session.logits_per_exit(generated.images(session.info.input_shape))
    limits = thresholds.spread(logits, Task.CLASSIFICATION)
    taken = arithmetic.exits_taken(logits, limits)
    assert np.bincount(taken, minlength=exits + 1).min() >= generated.MOST // (2 * (exits + 1))


def test_spread_tolerances_send_some_to_every_exit_but_the_first() -> None:
    logits = np.random.default_rng(0).normal(size=(4, 60, 1)).astype(np.float32)
    limits = thresholds.spread(logits, Task.REGRESSION)
    taken = np.bincount(arithmetic.exits_taken(logits, limits, Task.REGRESSION), minlength=4)
    assert taken[0] == 0 and taken[1:].min() >= 15


def test_where_all_confidences_are_equal_nothing_leaves_early() -> None:
    logits = np.zeros((3, 10, 4), np.float32)
    assert thresholds.spread(logits, Task.CLASSIFICATION) == (2.0, 2.0)
    assert thresholds.spread(logits[:1], Task.CLASSIFICATION) == ()
