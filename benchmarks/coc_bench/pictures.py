"""PNG files of test images, without a library: a device may have none."""

import base64
import struct
import zlib

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 3: 2}
"""PNG's number for gray and RGB, by channels."""


def can_show(shape: tuple[int, ...]) -> bool:
    """Whether images (C, H, W) can be written."""
    return shape[0] in COLOUR_TYPES


def png(image: np.ndarray) -> bytes:
    """The file of one image, uint8 [1 or 3, H, W]. https://www.w3.org/TR/png-3/"""
    channels, height, width = image.shape
    header = struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    rows = image.transpose(1, 2, 0).reshape(height, width * channels)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)
    body = zlib.compress(filtered.tobytes(), 9)
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def base64_png(image: np.ndarray) -> str:
    return base64.b64encode(png(image)).decode()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
