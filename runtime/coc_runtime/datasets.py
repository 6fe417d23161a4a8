"""Reads images for the trainer, the exporter and the benchmark: uint8 arrays, one split at a time.

The calibration split is cut from the training images, never from the test images. Splits depend on
nothing but the data: the same images come back in the same order every time.
"""

import importlib
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .arithmetic import Task
from .errors import CocError

SPLITS = ("train", "calibration", "test")
SPECS = (
    "digits, rotated-digits, cifar10[:PATH], cifar100[:PATH], svhn[:PATH], cinic10:PATH, "
    "imagefolder:PATH[:size=WxH]"
)
ROTATIONS = 3
"""Of every image of rotated-digits."""
MOST_DEGREES = 60
CALIBRATION_SHARE = 0.1
CALIBRATION_MOST = 5000
DIGITS_TEST_SHARE = 0.28
SEED = 20240
CHANNELS = {"L": 1, "RGB": 3}
"""Pillow's modes that are read, and their channels."""
CINIC10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DOWNLOADED = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "svhn": "SVHN"}
"""Data that torchvision downloads, and its classes."""
SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split in memory."""

    name: str
    images: np.ndarray
    """uint8 [N, C, H, W]"""
    labels: np.ndarray
    """int64 [N], indices into classes; or the numbers to predict, float32 [N, outputs]"""
    classes: tuple[str, ...]
    """their names, or those of the numbers"""

    @property
    def task(self) -> Task:
        """What the labels are."""
        return Task.REGRESSION if self.labels.dtype.kind == "f" else Task.CLASSIFICATION


@dataclass(frozen=True)
class _Form:
    """What image files are brought to: a mode of CHANNELS, (width, height); None leaves them as they are."""

    mode: str | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class _Source:
    """Labels of all images of a part (train or test), and how to get the images at some indices.

    held_out: the calibration images, bool [N], where the classes do not tell which to take.
    """

    name: str
    labels: np.ndarray
    classes: tuple[str, ...]
    read: Callable[[np.ndarray], np.ndarray]
    held_out: np.ndarray | None = None


def load(spec: str, split: str) -> Dataset:
    """Load a split of a data set.

    spec: "digits" (scikit-learn's, 1,797 images 1x8x8), "rotated-digits" (each of them
    turned by three random angles of -60 to 60 degrees; the label is the angle / 60, float32 [N, 1]),
    "cifar10", "cifar100" or "svhn", also with ":PATH" (torchvision's, downloaded to PATH, "data" by
    default, unless they are there), "cinic10:PATH" (PATH/train/CLASS/* and PATH/test/CLASS/*; PATH/valid is
    not read), or "imagefolder:PATH" (PATH/train/CLASS/* and PATH/test/CLASS/* or PATH/val/CLASS/*, 8-bit
    grayscale or RGB images of one size, or of any size with ":size=WxH" behind PATH, to which they are then
    scaled). split: "train", "calibration" (10 % of the training images, at most 5,000, the same share of
    every class; "train" is the rest) or "test".
    Raises CocError: unknown spec or split, files missing or unreadable, package missing, download failed.
    """
    if split not in SPLITS:
        raise CocError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    source = _source(spec, "test" if split == "test" else "train")
    chosen = np.arange(len(source.labels))
    if split != "test":
        held_out = _calibration_mask(source.labels) if source.held_out is None else source.held_out
        chosen = np.flatnonzero(held_out if split == "calibration" else ~held_out)
    if len(chosen) == 0:
        raise CocError(f"{spec}: no images for the {split} split")
    return Dataset(source.name, source.read(chosen), source.labels[chosen], source.classes)


def _source(spec: str, part: str) -> _Source:
    kind, colon, path = spec.partition(":")
    if spec == "digits":
        return _digits(part)
    if spec == "rotated-digits":
        return _rotated_digits(part)
    if kind in DOWNLOADED and (path or not colon):
        return _downloaded(kind, Path(path or "data"), part)
    if kind == "cinic10" and path:
        return _image_folder(kind, Path(path), part, _Form("RGB"), CINIC10)
    if kind == "imagefolder" and path:
        folder, size, text = path.partition(":size=")
        return _image_folder(kind, Path(folder), part, _Form(size=_parse_size(text)) if size else _Form())
    raise CocError(f"unknown data {spec!r}: choose one of {SPECS}")


def _parse_size(text: str) -> tuple[int, int]:
    """ "64x48" as (width, height)."""
    found = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text)
    if found is None:
        raise CocError(f"imagefolder: size={text} is not understood: give width and height, e.g. size=64x48")
    return int(found[1]), int(found[2])


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


def _rotated_digits(part: str) -> _Source:
    """Digits turned counter-clockwise by degrees / 60; all angles of a digit are in one split."""
    Image = _import("PIL.Image", "pillow")
    digits = _digits(part)
    upright = digits.read(np.arange(len(digits.labels)))[:, 0]
    random = np.random.RandomState(SEED + (part == "test"))
    degrees = random.uniform(-MOST_DEGREES, MOST_DEGREES, (ROTATIONS, len(upright)))
    turned = [
        np.asarray(Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR))
        for angles in degrees
        for image, angle in zip(upright, angles, strict=True)
    ]
    images = np.stack(turned)[:, None]
    labels = (degrees.reshape(-1, 1) / MOST_DEGREES).astype(np.float32)
    held_out = np.tile(_calibration_mask(digits.labels), ROTATIONS)
    return _Source("rotated-digits", labels, ("angle",), lambda at: images[at], held_out)


def _downloaded(kind: str, root: Path, part: str) -> _Source:
    datasets = _import("torchvision.datasets", "torchvision")
    if kind == "svhn":
        _import("scipy.io", "scipy")
    torchvision = getattr(datasets, DOWNLOADED[kind])
    chosen = {"split": part} if kind == "svhn" else {"train": part == "train"}
    try:
        data = torchvision(str(root), download=True, **chosen)
    except Exception as error:  # Network, disk and archive errors of urllib, tarfile, pickle and scipy.
        raise CocError(
            f"{kind}: cannot be read from {root} or downloaded to it ({_line(error)}); "
            f"{_what_to_fetch(torchvision, root, part)}"
        ) from error
    if kind == "svhn":
        classes = tuple("0123456789")
        return _Source(kind, data.labels, classes, lambda at: np.ascontiguousarray(data.data[at]))
    return _Source(
        kind,
        np.asarray(data.targets, dtype=np.int64),
        tuple(data.classes),
        lambda at: np.ascontiguousarray(data.data[at].transpose(0, 3, 1, 2)),
    )


def _what_to_fetch(torchvision: Any, root: Path, part: str) -> str:
    """Which files torchvision wants under root, and where they come from."""
    if hasattr(torchvision, "split_list"):
        url, name = torchvision.split_list[part][:2]
        return f"put {url} there as {root / name}"
    folder = root / torchvision.base_folder
    lists = [*torchvision.train_list, *torchvision.test_list, (torchvision.meta["filename"],)]
    missing = [str(folder / name) for name, *_ in lists if not (folder / name).exists()]
    state = f"{', '.join(missing)} missing" if missing else "a file there is damaged"
    return f"{state if folder.exists() else f'{folder} missing'}: unpack {torchvision.url} in {root}"


def _image_folder(
    kind: str, root: Path, part: str, form: _Form, expected: tuple[str, ...] | None = None
) -> _Source:
    """Images of PATH/PART/CLASS; expected: the classes, where the data set has names of its own."""
    _import("PIL.Image", "pillow")
    if not root.is_dir():
        raise CocError(f"{kind}: {root} is not a folder")
    train = _subfolder(root, ("train",))
    classes = tuple(_class_folders(train))
    if expected not in (None, classes):
        raise CocError(f"{kind}: {train} has classes {', '.join(classes)}, not {', '.join(expected or ())}")
    folder = train if part == "train" else _subfolder(root, ("test",) if expected else ("test", "val"))
    paths: list[Path] = []
    labels: list[int] = []
    for name in _class_folders(folder):
        if name not in classes:
            raise CocError(f"{kind}: {folder / name} is a class that {train} does not have")
        images = _image_files(folder / name)
        paths += images
        labels += [classes.index(name)] * len(images)
    return _Source(
        kind if expected else f"{kind}:{root.resolve().name}",
        np.array(labels, dtype=np.int64),
        classes,
        lambda at: _decode([paths[index] for index in at], form),
    )


def _subfolder(root: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise CocError(f"image folder: {root} has no folder {' or '.join(names)}")


def _class_folders(folder: Path) -> list[str]:
    """Sorted names of the class folders, at least one."""
    names = sorted(path.name for path in _entries(folder) if path.is_dir() and path.name[0] != ".")
    if not names:
        raise CocError(f"image folder: {folder} has no class folders")
    return names


def _image_files(folder: Path) -> list[Path]:
    """Sorted image files of a class folder, at least one; other files are ignored."""
    files = sorted(Path(path) for path in _entries(folder) if path.name[0] != "." and _is_image(path.name))
    if not files:
        raise CocError(f"image folder: {folder} has no images ({', '.join(sorted(SUFFIXES))})")
    return files


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise CocError(f"image folder: {folder} cannot be listed: {_line(error)}") from error


def _decode(paths: list[Path], form: _Form) -> np.ndarray:
    """uint8 [N, C, H, W] of image files that all have, in that form, the first one's size and mode."""
    first = _pixels(paths[0], form)
    images = np.empty((len(paths), *first.shape), np.uint8)

    def place(index: int) -> None:
        pixels = _pixels(paths[index], form)
        if pixels.shape != first.shape:
            raise CocError(
                f"{paths[index]}: {_size(pixels)}, but {paths[0]} is {_size(first)}; all images must be "
                "alike (imagefolder:PATH:size=WxH scales them)"
            )
        images[index] = pixels

    # Pillow releases Python's lock while it decodes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(place, range(len(paths))):
            pass
    return images


def _pixels(path: Path, form: _Form) -> np.ndarray:
    """uint8 [C, H, W] of one file, scaled bilinearly (averaging where it shrinks) if the form has a size."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            image: Image.Image = file
            if image.mode in CHANNELS and form.mode:
                image = image.convert(form.mode)
            if image.mode in CHANNELS and form.size:
                image = image.resize(form.size, Image.Resampling.BILINEAR)
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
