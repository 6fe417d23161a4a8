"""Images that need no data set: the borders of what pixels can be, and noise; the same on every machine.

Sums are largest, and roundings and clips at their ends, where pixels are 0 or 255: there kernels overflow or
saturate that agree on photographs.
"""

from collections.abc import Iterator, Sequence

import numpy as np

MOST = 64
BYTES = 1 << 22
"""Their pixels take at most so many bytes, unless FEWEST images take more."""
FEWEST = 28
"""So many images have all kinds among them."""
SEED = 20240
ZERO = 128
"""The pixel whose value is 0, also where a convolution pads."""


def images(shape: Sequence[int]) -> np.ndarray:
    """uint8 [N, C, H, W] for images of shape (C, H, W), N up to MOST; always the same in the same order."""
    count = int(np.clip(BYTES // int(np.prod(shape)), FEWEST, MOST))
    found = list(_borders(tuple(shape)))
    # RandomState's stream is frozen for ever; default_rng's may change with NumPy's version.
    random = np.random.RandomState(SEED)
    while len(found) < count:
        found += _random(tuple(shape), random)
    return np.stack(found[:count])


def _borders(shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Flat images, single channels, squares, stripes, ramps and single pixels at the ends of the range."""
    channels, height, width = shape
    for value in (0, 255, ZERO, ZERO - 1):
        yield np.full(shape, value, np.uint8)
    for channel in range(min(channels, 3) if channels > 1 else 0):
        alone = np.zeros(shape, np.uint8)
        alone[channel] = 255
        yield alone
    rows, columns = np.mgrid[:height, :width]
    for part in (rows + columns, rows // 2 + columns // 2, rows // 4 + columns // 4, rows, columns):
        squares = np.broadcast_to(255 * (part % 2).astype(np.uint8), shape)
        yield squares
        yield 255 - squares
    for along, length in ((rows, height), (columns, width)):
        yield np.broadcast_to((255 * along // max(length - 1, 1)).astype(np.uint8), shape)
    for row, column in ((0, 0), (height // 2, width // 2)):
        pixel = np.zeros(shape, np.uint8)
        pixel[:, row, column] = 255
        yield pixel


def _random(shape: tuple[int, ...], random: np.random.RandomState) -> list[np.ndarray]:
    """Pixels at either end, few of them, any, and any in patches of 4x4, which deeper layers notice more."""
    channels, height, width = shape
    patches = random.randint(0, 256, (channels, -(-height // 4), -(-width // 4)), np.uint8)
    return [
        255 * random.randint(0, 2, shape, np.uint8),
        255 * (random.randint(0, 16, shape) == 0).astype(np.uint8),
        random.randint(0, 256, shape, np.uint8),
        patches.repeat(4, axis=1).repeat(4, axis=2)[:, :height, :width],
    ]
