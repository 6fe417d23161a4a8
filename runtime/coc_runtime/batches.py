"""How many images a pass over a network takes at once: as many as its memory may hold.

What comes out never depends on it: each image is computed on its own, and ranges are taken over whole
groups of images, however they are cut.
"""

from collections.abc import Iterator

import numpy as np

from .graph import Graph

MEMORY = 3 << 29
"""Bytes that the activations of a pass may take."""
COPIES = 6
"""Float32 arrays of the largest activation's size that are alive at once: a layer's input and output, a
shortcut, and what rounding and the libraries below make in between."""
STEM = 64
"""Channels that the largest activation is taken to have at the image's size, where nothing tells."""


def fitting(most: int, largest: int) -> int:
    """Images of a pass, 1 to `most`. largest: numbers in the largest activation of an image."""
    return max(1, min(most, MEMORY // (4 * COPIES * max(largest, 1))))


def largest(graph: Graph) -> int:
    """Numbers in the largest tensor of an image."""
    return max(int(np.prod(tensor.shape)) for tensor in graph.tensors.values())


def guessed(shape: tuple[int, ...]) -> int:
    """The same of a network of which the image's shape (C, H, W) alone is known."""
    return STEM * int(np.prod(shape[1:]))


def cut(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Images in batches of `size`, in order."""
    for at in range(0, len(images), size):
        yield images[at : at + size]
