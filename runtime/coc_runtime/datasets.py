"""Reads images for the trainer, the exporter and the benchmark: uint8 arrays, one split at a time.

The calibration split is cut from the training images, never from the test images. Splits depend on
nothing but the data: the same images come back in the same order every time.
"""

import importlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import CocError

SPLITS = ("train", "calibration", "test")
SPECS = "digits, cifar10, cifar10:PATH, imagefolder:PATH"
CALIBRATION_SHARE = 0.1
CALIBRATION_MOST = 5000
DIGITS_TEST_SHARE = 0.28
SEED = 20240
CHANNELS = {"L": 1, "RGB": 3}
"""Pillow's modes that are read, and their channels."""
SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split in memory."""

    name: str
    images: np.ndarray
    """uint8 [N, C, H, W]"""
    labels: np.ndarray
    """int64 [N], indices into classes"""
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Source:
    """Labels of all images of a part (train or test), and how to get the images at some indices."""

    name: str
    labels: np.ndarray
    classes: tuple[str, ...]
    read: Callable[[np.ndarray], np.ndarray]


def load(spec: str, split: str) -> Dataset:
    """Load a split of a data set.

    spec: "digits" (scikit-learn's, 1,797 images 1x8x8), "cifar10" or "cifar10:PATH" (torchvision's,
    downloaded to PATH, "data" by default), or "imagefolder:PATH" (PATH/train/CLASS/* and PATH/test/CLASS/*
    or PATH/val/CLASS/*, 8-bit grayscale or RGB images of one size). split: "train", "calibration"
    (10 % of the training images, at most 5,000, the same share of every class; "train" is the rest) or
    "test".
    Raises CocError: unknown spec or split, files missing or unreadable, package missing, download failed.
    """
    if split not in SPLITS:
        raise CocError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    kind, _, path = spec.partition(":")
    part = "test" if split == "test" else "train"
    if spec == "digits":
        source = _digits(part)
    elif kind == "cifar10" and (path or spec == "cifar10"):
        source = _cifar10(Path(path or "data"), part)
    elif kind == "imagefolder" and path:
        source = _image_folder(Path(path), part)
    else:
        raise CocError(f"unknown data {spec!r}: choose one of {SPECS}")
    chosen = np.arange(len(source.labels))
    if part == "train":
        held_out = _calibration_mask(source.labels)
        chosen = np.flatnonzero(held_out if split == "calibration" else ~held_out)
    if len(chosen) == 0:
        raise CocError(f"{spec}: no images for the {split} split")
    return Dataset(source.name, source.read(chosen), source.labels[chosen], source.classes)


def _calibration_mask(labels: np.ndarray) -> np.ndarray:
    """Which training images are held out for calibration, bool [N]."""
    return _stratified(labels, min(CALIBRATION_SHARE, CALIBRATION_MOST / max(len(labels), 1)))


def _stratified(labels: np.ndarray, share: float) -> np.ndarray:
    """Choose a share of every class, rounded down, but one where a class has two or more; bool [N]."""
    # RandomState's stream is frozen for ever; default_rng's may change with NumPy's version.
    random = np.random.RandomState(SEED)
    mask = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(int(len(members) * share), 1) if len(members) > 1 else 0
        mask[random.permutation(members)[:count]] = True
    return mask


def _digits(part: str) -> _Source:
    data = _import("sklearn.datasets", "scikit-learn").load_digits()
    images = np.minimum(16 * data.images, 255).astype(np.uint8)[:, None]
    labels = data.target.astype(np.int64)
    test = _stratified(labels, DIGITS_TEST_SHARE)
    kept = np.flatnonzero(test if part == "test" else ~test)
    return _Source(
        "digits", labels[kept], tuple(str(digit) for digit in range(10)), lambda at: images[kept[at]]
    )


def _cifar10(root: Path, part: str) -> _Source:
    datasets = _import("torchvision.datasets", "torchvision")
    try:
        data = datasets.CIFAR10(str(root), train=part == "train", download=True)
    except Exception as error:  # Network, disk and archive errors of urllib, tarfile and pickle.
        raise CocError(f"cifar10: cannot be read from or downloaded to {root}: {_line(error)}") from error
    labels = np.asarray(data.targets, dtype=np.int64)
    images = data.data
    return _Source(
        "cifar10",
        labels,
        tuple(data.classes),
        lambda at: np.ascontiguousarray(images[at].transpose(0, 3, 1, 2)),
    )


def _image_folder(root: Path, part: str) -> _Source:
    _import("PIL.Image", "pillow")
    if not root.is_dir():
        raise CocError(f"imagefolder: {root} is not a folder")
    train = _subfolder(root, ("train",))
    classes = tuple(_class_folders(train))
    folder = train if part == "train" else _subfolder(root, ("test", "val"))
    paths: list[Path] = []
    labels: list[int] = []
    for name in _class_folders(folder):
        if name not in classes:
            raise CocError(f"imagefolder: {folder / name} is a class that {train} does not have")
        images = _image_files(folder / name)
        paths += images
        labels += [classes.index(name)] * len(images)
    return _Source(
        f"imagefolder:{root.resolve().name}",
        np.array(labels, dtype=np.int64),
        classes,
        lambda at: _decode([paths[index] for index in at]),
    )


def _subfolder(root: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise CocError(f"imagefolder: {root} has no folder {' or '.join(names)}")


def _class_folders(folder: Path) -> list[str]:
    """Sorted names of the class folders, at least one."""
    names = sorted(path.name for path in _entries(folder) if path.is_dir() and path.name[0] != ".")
    if not names:
        raise CocError(f"imagefolder: {folder} has no class folders")
    return names


def _image_files(folder: Path) -> list[Path]:
    """Sorted image files of a class folder, at least one; other files are ignored."""
    files = sorted(Path(path) for path in _entries(folder) if path.name[0] != "." and _is_image(path.name))
    if not files:
        raise CocError(f"imagefolder: {folder} has no images ({', '.join(sorted(SUFFIXES))})")
    return files


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise CocError(f"imagefolder: {folder} cannot be listed: {_line(error)}") from error


def _decode(paths: list[Path]) -> np.ndarray:
    """uint8 [N, C, H, W] of image files that all have the first one's size and mode."""
    first = _pixels(paths[0])
    images = np.empty((len(paths), *first.shape), np.uint8)

    def place(index: int) -> None:
        pixels = _pixels(paths[index])
        if pixels.shape != first.shape:
            raise CocError(
                f"{paths[index]}: {_size(pixels)}, but {paths[0]} is {_size(first)}; all images must be alike"
            )
        images[index] = pixels

    # Pillow releases Python's lock while it decodes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(place, range(len(paths))):
            pass
    return images


def _pixels(path: Path) -> np.ndarray:
    """uint8 [C, H, W] of one file."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            mode = image.mode
            pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CocError(f"{path}: cannot be read as an image: {_line(error)}") from error
    if mode not in CHANNELS:
        raise CocError(f"{path}: mode {mode} is not supported, only 8-bit grayscale (L) and RGB")
    return pixels.reshape(*pixels.shape[:2], CHANNELS[mode]).transpose(2, 0, 1)


def _size(pixels: np.ndarray) -> str:
    channels, height, width = pixels.shape
    return f"{width}x{height} with {channels} channel{'s' if channels > 1 else ''}"


def _import(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise CocError(f"this data needs {package}: pip install 'coc-deploy[compile]'") from error


def _line(error: Exception) -> str:
    """An exception's message in one line."""
    return " ".join(str(error).split()) or type(error).__name__
