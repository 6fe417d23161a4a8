"""Reads images for the trainer, the exporter and the benchmark: uint8 arrays, one split at a time.

The held-out split is cut from the training images, never from the test images. Splits depend on
nothing but the data: the same images come back in the same order every time.
"""

import importlib
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import imagefiles
from .arithmetic import Task
from .errors import CocError
from .imagefiles import COLOUR, Form
from .text import one_line

SPLITS = ("train", "held-out", "test")
SPECS = (
    "digits, rotated-digits, cifar10[:PATH], cifar100[:PATH], svhn[:PATH], cinic10:PATH, "
    "imagefolder:PATH[:size=WxH]; any with [:held_out=SHARE]"
)
ROTATIONS = 3
"""rotated-digits holds every image rotated in so many ways."""
MOST_DEGREES = 60
CALIBRATION_SHARE = 0.1
CALIBRATION_MOST = 5000
DIGITS_TEST_SHARE = 0.28
SEED = 20240
CINIC10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DOWNLOADED = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "svhn": "SVHN"}
"""Data that torchvision downloads, and its classes."""


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
    converted: Mapping[str, int] = field(default_factory=dict)
    """how many images were converted how"""

    def __post_init__(self) -> None:
        check_images(self.images, self.name)
        if self.labels.dtype.kind == "f" and not np.isfinite(self.labels).all():
            raise CocError(f"{self.name}: labels are not finite: every image needs its numbers")

    @property
    def task(self) -> Task:
        """What the labels are."""
        return Task.REGRESSION if self.labels.dtype.kind == "f" else Task.CLASSIFICATION


def check_images(images: np.ndarray, name: str) -> None:
    """Raise CocError unless an array holds raw pixels, uint8 [N, C, H, W]."""
    if not isinstance(images, np.ndarray) or isinstance(images, np.ma.MaskedArray):
        raise CocError(f"{name}: images are a {type(images).__name__}, not a plain NumPy array")
    if images.dtype != np.uint8 or images.ndim != 4:
        found = f"{images.dtype} of shape {list(images.shape)}"
        raise CocError(f"{name}: images are {found}: give raw pixels, uint8 [N, C, H, W]")


def tell(*parts: Dataset) -> None:
    """Print a line on how images of a data set's splits were converted, where they were."""
    changes = sum((Counter(part.converted) for part in parts), Counter[str]())
    if changes:
        print(imagefiles.told(parts[0].name, parts[0].images.shape[1], changes))


@dataclass(frozen=True, eq=False)
class _Source:
    """Labels of all images of a part (train or test), and how to get the images at some indices.

    strata: what the held-out images are taken an equal share of, int [M], where that is not the labels;
    N is a multiple of M, and images M apart belong together.
    """

    name: str
    labels: np.ndarray
    classes: tuple[str, ...]
    read: Callable[[np.ndarray], tuple[np.ndarray, Mapping[str, int]]]
    strata: np.ndarray | None = None

    def held_out(self, share: float | None) -> np.ndarray:
        """Which images are held out, bool [N]: this share of them, or the usual one."""
        strata = self.labels if self.strata is None else self.strata
        if share is None:
            share = min(CALIBRATION_SHARE, CALIBRATION_MOST / max(len(strata), 1))
        return np.tile(_stratified(strata, share), len(self.labels) // max(len(strata), 1))


@dataclass(frozen=True)
class HeldOut:
    """Which images make the held-out split: the usual share, or one that a spec names behind its data."""

    share: float | None = None
    of_test: bool = False
    text: str = ""


def parse_held_out(spec: str) -> tuple[str, HeldOut]:
    """A spec without its ":held_out=SHARE" or ":held_out_of_test=SHARE", and what that says."""
    found = re.fullmatch(r"(.*):(held_out|held_out_of_test)=([^:]*)", spec, re.DOTALL)
    if found is None:
        return spec, HeldOut()
    share = float(found[3]) if re.fullmatch(r"0?\.\d{1,6}", found[3]) else 0.0
    if not share:
        raise CocError(f"data {spec}: {found[2]}={found[3]} is not a share between 0 and 1, e.g. 0.3")
    return found[1], HeldOut(share, found[2] == "held_out_of_test", spec[len(found[1]) :])


def load(spec: str, split: str) -> Dataset:
    """Load a split of a data set.

    spec: "digits" (scikit-learn's, 1,797 images 1x8x8), "rotated-digits" (each of them
    turned by three random angles of -60 to 60 degrees; the label is the angle / 60, float32 [N, 1]),
    "cifar10", "cifar100" or "svhn", also with ":PATH" (torchvision's, downloaded to PATH, "data" by
    default, unless they are there), "cinic10:PATH" (PATH/train/CLASS/* and PATH/test/CLASS/*; PATH/valid is
    not read), or "imagefolder:PATH" (PATH/train/CLASS/* and PATH/test/CLASS/* or PATH/val/CLASS/*, images of
    one size, or of any size with ":size=WxH" behind PATH, to which they are then scaled; all become RGB if
    any training image has colours, else grey, see `imagefiles`). split: "train", "held-out" (10 % of the
    training images, at most 5,000, the same share of every class; "train" is the rest) or "test". Behind all
    that, ":held_out=SHARE" gives "held-out" another share of the training images, and
    ":held_out_of_test=SHARE" one of the test images: "train" then has all training images, "test" the rest.
    Raises CocError: unknown spec or split, files missing or unreadable, package missing, download failed.
    """
    if split not in SPLITS:
        raise CocError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    data, asked = parse_held_out(spec)
    cut = "test" if asked.of_test else "train"
    source = _source(data, cut if split == "held-out" else split)
    chosen = np.arange(len(source.labels))
    if split in ("held-out", cut):
        held_out = source.held_out(asked.share)
        chosen = np.flatnonzero(held_out if split == "held-out" else ~held_out)
    if len(chosen) == 0:
        raise CocError(f"{spec}: no images for the {split} split")
    images, converted = source.read(chosen)
    return Dataset(source.name + asked.text, images, source.labels[chosen], source.classes, converted)


def _source(spec: str, part: str) -> _Source:
    kind, colon, path = spec.partition(":")
    if spec == "digits":
        return _digits(part)
    if spec == "rotated-digits":
        return _rotated_digits(part)
    if kind in DOWNLOADED and (path or not colon):
        return _downloaded(kind, Path(path or "data"), part)
    if kind == "cinic10" and path:
        return _image_folder(kind, Path(path), part, mode=COLOUR, expected=CINIC10)
    if kind == "imagefolder" and path:
        folder, size, text = path.partition(":size=")
        return _image_folder(kind, Path(folder), part, size=_parse_size(text) if size else None)
    raise CocError(f"unknown data {spec!r}: choose one of {SPECS}")


def _parse_size(text: str) -> tuple[int, int]:
    """ "64x48" as (width, height)."""
    found = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text)
    if found is None:
        raise CocError(f"imagefolder: size={text} is not understood: give width and height, e.g. size=64x48")
    return int(found[1]), int(found[2])


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
        "digits", labels[kept], tuple(str(digit) for digit in range(10)), lambda at: (images[kept[at]], {})
    )


def _rotated_digits(part: str) -> _Source:
    """Digits turned counter-clockwise by degrees / 60; all angles of a digit are in one split."""
    Image = _import("PIL.Image", "pillow")
    digits = _digits(part)
    upright = digits.read(np.arange(len(digits.labels)))[0][:, 0]
    random = np.random.RandomState(SEED + (part == "test"))
    degrees = random.uniform(-MOST_DEGREES, MOST_DEGREES, (ROTATIONS, len(upright)))
    turned = [
        np.asarray(Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR))
        for angles in degrees
        for image, angle in zip(upright, angles, strict=True)
    ]
    images = np.stack(turned)[:, None]
    labels = (degrees.reshape(-1, 1) / MOST_DEGREES).astype(np.float32)
    return _Source("rotated-digits", labels, ("angle",), lambda at: (images[at], {}), digits.labels)


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
        return _Source(kind, data.labels, classes, lambda at: (np.ascontiguousarray(data.data[at]), {}))
    return _Source(
        kind,
        np.asarray(data.targets, dtype=np.int64),
        tuple(data.classes),
        lambda at: (np.ascontiguousarray(data.data[at].transpose(0, 3, 1, 2)), {}),
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
    kind: str,
    root: Path,
    part: str,
    *,
    mode: str | None = None,
    size: tuple[int, int] | None = None,
    expected: tuple[str, ...] | None = None,
) -> _Source:
    """Images of PATH/PART/CLASS. mode: of `imagefiles`; None for what the training images need. size: (width,
    height). expected: the classes, where the data set has names of its own."""
    _import("PIL.Image", "pillow")
    if not root.is_dir():
        raise CocError(f"{kind}: {root} is not a folder")
    train = _subfolder(root, ("train",))
    classes = tuple(_class_folders(train))
    if expected not in (None, classes):
        raise CocError(f"{kind}: {train} has classes {', '.join(classes)}, not {', '.join(expected or ())}")
    folder = train if part == "train" else _subfolder(root, ("test",) if expected else ("test", "val"))
    paths, labels = _labelled(folder, classes, train)
    if mode is None:
        mode = imagefiles.common_mode(paths if part == "train" else _labelled(train, classes, train)[0])
    form = Form(mode, size)
    return _Source(
        kind if expected else f"{kind}:{one_line(root.resolve().name)}",
        np.array(labels, dtype=np.int64),
        tuple(one_line(name) for name in classes),
        lambda at: imagefiles.decode([paths[index] for index in at], form),
    )


def _labelled(folder: Path, classes: tuple[str, ...], train: Path) -> tuple[list[Path], list[int]]:
    """Image files of a folder's classes and their labels; CocError for a class that training lacks."""
    paths: list[Path] = []
    labels: list[int] = []
    for name in _class_folders(folder):
        if name not in classes:
            raise CocError(f"image folder: {folder / name} is a class that {train} does not have")
        images = _image_files(folder / name)
        paths += images
        labels += [classes.index(name)] * len(images)
    return paths, labels


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
    files = sorted(
        Path(path) for path in _entries(folder) if path.name[0] != "." and imagefiles.is_image(path.name)
    )
    if not files:
        raise CocError(f"image folder: {folder} has no images ({', '.join(sorted(imagefiles.SUFFIXES))})")
    return files


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise CocError(f"image folder: {folder} cannot be listed: {_line(error)}") from error


def _import(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise CocError(f"this data needs {package}: pip install 'coc-deploy[compile]'") from error


def _line(error: Exception) -> str:
    """An exception's message in one line."""
    return " ".join(str(error).split()) or type(error).__name__
