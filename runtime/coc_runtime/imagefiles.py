"""Image files of any kind as 8-bit pixels of one kind: grey (L) or colour (RGB), upright, of one size."""

import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import files
from .errors import CocError
from .text import one_line
from .threads import each

if TYPE_CHECKING:
    from PIL import Image

GREY, COLOUR = "L", "RGB"
CHANNELS = {GREY: 1, COLOUR: 3}
"""Pillow's modes that images are brought to, and their channels."""
SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
WIDE = ("I", "I;16", "I;16B", "I;16L", "I;16N")
"""Modes of more than 8 bits."""
GREYS = frozenset((GREY, "1", "LA", "La", *WIDE))
"""Modes without colour."""
NAMES = {GREY: "grey", "1": "1-bit", "LA": "grey", "La": "grey", "P": "palette", "PA": "palette"}
NAMES |= dict.fromkeys(WIDE, "16-bit")
"""What people call modes; others go by their own names."""
ALPHA = "with transparency, laid on white"
UPPER = "by the upper 8 bits"
ORIENTATION = 0x0112
"""EXIF's tag."""
TURNED = "turned as EXIF says"
FIRST = "of several frames, the first"
FRAMES_OF_ONE = ("MPO",)
"""Formats whose further frames are not meant to be seen."""


@dataclass(frozen=True)
class Form:
    """What image files are brought to: a mode of CHANNELS, and (width, height), which None leaves alone."""

    mode: str
    size: tuple[int, int] | None = None


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def common_mode(paths: Sequence[Path]) -> str:
    """COLOUR if any of the images has colours, else GREY."""
    return _common_mode(tuple(paths))


@lru_cache(maxsize=8)  # of the training images, which decide for each split
def _common_mode(paths: tuple[Path, ...]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return COLOUR if any(_has_colours(path) for path in paths) else GREY


def _has_colours(path: Path) -> bool:
    from PIL import Image

    try:
        files.require_regular(path, "")
        with Image.open(path) as image:
            return image.mode not in GREYS
    except Exception:  # told, whatever it is, when the file is decoded
        return False


def read(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 [C, H, W] of one file as a model takes it (see `Session.info.input_shape`), scaled where it is of
    another size; CocError that names the file where it is no image."""
    channels, height, width = shape
    mode = next((mode for mode, number in CHANNELS.items() if number == channels), None)
    if mode is None:
        raise CocError(f"{path}: an image has 1 or 3 channels, the model takes {channels}")
    return _pixels(path, Form(mode, (width, height)))[0]


def decode(paths: Sequence[Path], form: Form) -> tuple[np.ndarray, Counter[str]]:
    """uint8 [N, C, H, W] of files that all have, in that form, one size; and how many were converted how.

    Raises CocError that names the first file that is no image, or is not like the first one.
    """
    with warnings.catch_warnings():  # Pillow's, on files that it repairs
        warnings.simplefilter("ignore")
        first = _pixels(paths[0], form)[0]
        images = np.empty((len(paths), *first.shape), np.uint8)

        def place(index: int) -> tuple[str, ...]:
            pixels, changes = _pixels(paths[index], form)
            if pixels.shape != first.shape:
                raise CocError(
                    f"{paths[index]}: {_size(pixels)}, but {paths[0]} is {_size(first)}; all images must be "
                    "alike (imagefolder:PATH:size=WxH scales them)"
                )
            images[index] = pixels
            return changes

        # Pillow releases Python's lock while it decodes.
        changes = each(place, range(len(paths)))
    if all(found and found[-1].endswith(UPPER) for found in changes) and not images.any():
        raise CocError(f"{paths[0]}: it and all others use the lower 8 of 16 bits only: save them with 8")
    return images, Counter(change for found in changes for change in found)


def told(name: str, channels: int, changes: Mapping[str, int]) -> str:
    """One line on what `decode` converted."""
    kind = "colour" if channels == CHANNELS[COLOUR] else "grey"
    counts = ", ".join(f"{count:,} {change}" for change, count in sorted(changes.items()))
    return f"{name}: images are taken as 8-bit {kind}: {counts}"


def _pixels(path: Path, form: Form) -> tuple[np.ndarray, tuple[str, ...]]:
    """uint8 [C, H, W] of one file, scaled bilinearly (averaging where it shrinks) if the form has a size; and
    what was converted."""
    from PIL import Image

    files.require_regular(path, "take it out of the folder")
    try:
        with Image.open(path) as file:
            image, changes = _upright(file)
            image, converted = _converted(image, form.mode)
            if form.size:
                image = image.resize(form.size, Image.Resampling.BILINEAR)
            pixels = np.asarray(image)
    except CocError as error:
        raise CocError(f"{path}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise whatever they meet in damaged files.
        why = one_line(str(error)) or type(error).__name__
        raise CocError(f"{path}: cannot be read as an image: {why}") from error
    pixels = pixels.reshape(*pixels.shape[:2], CHANNELS[form.mode])
    return pixels.transpose(2, 0, 1), changes + converted


def _upright(file: Any) -> tuple["Image.Image", tuple[str, ...]]:
    """The first frame of an open file, turned and mirrored as its EXIF data say."""
    from PIL.Image import Transpose

    changes: tuple[str, ...] = ()
    if file.format not in FRAMES_OF_ONE and getattr(file, "is_animated", False):
        changes = (FIRST,)
    try:
        orientation = file.getexif().get(ORIENTATION)
    except Exception:  # damaged EXIF data say nothing
        orientation = None
    ways = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    if orientation in ways:
        return file.transpose(ways[orientation]), (*changes, TURNED)
    return file, changes


def _converted(image: "Image.Image", mode: str) -> tuple["Image.Image", tuple[str, ...]]:
    """The image in a mode of CHANNELS, and what that took."""
    if image.mode == mode and not image.has_transparency_data:
        return image, ()
    kind = NAMES.get(image.mode, image.mode)
    if image.mode in WIDE:
        return _narrow(image).convert(mode), (f"{kind} {UPPER}",)
    if image.mode == "F":
        raise CocError("its pixels are real numbers: save it with 8 or 16 bits a channel")
    if image.has_transparency_data:
        return _on_white(image).convert(mode), (f"{kind} {ALPHA}",)
    return image.convert(mode), (kind,)


def _narrow(image: "Image.Image") -> "Image.Image":
    """The upper 8 of 16 bits."""
    from PIL import Image

    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise CocError(
            f"its pixels are {values.min()} to {values.max()}: save it with 8 or 16 bits a channel"
        )
    return Image.fromarray((values >> 8).astype(np.uint8))


def _on_white(image: "Image.Image") -> "Image.Image":
    """What people see of an image with transparency."""
    from PIL import Image

    colours = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)


def _size(pixels: np.ndarray) -> str:
    _, height, width = pixels.shape
    return f"{width}x{height}"
