"""The images that are measured: a data set's, or random ones where only latency is asked for."""

from dataclasses import dataclass

import numpy as np

from coc_runtime import datasets
from coc_runtime.arithmetic import Task

SEED = 0
"""The choice of images is drawn with this seed, for every artifact and every run."""
RANDOM = "random"
RANDOM_IMAGES = 64


@dataclass(frozen=True, eq=False)
class Images:
    """One split, as far as the benchmark needs it."""

    name: str
    images: np.ndarray
    """uint8 [N, C, H, W]"""
    labels: np.ndarray | None
    """as of `coc_runtime.datasets.Dataset`; None for random images"""
    classes: tuple[str, ...]
    """names; empty for random images"""
    task: Task

    @classmethod
    def of(cls, data: datasets.Dataset) -> "Images":
        return cls(data.name, data.images, data.labels, data.classes, data.task)


def test_split(spec: str, limit: int | None, shape: tuple[int, ...], task: Task) -> Images:
    """The test split, or `limit` images drawn from it (files may be sorted by class).

    spec: "random", for images of this shape (C, H, W) and a model of this task, or what
    `coc_runtime.datasets.load` takes; raises CocError as it does.
    """
    if spec == RANDOM:
        return _random(limit or RANDOM_IMAGES, shape, task, SEED)
    loaded = datasets.load(spec, "test")
    datasets.tell(loaded)
    data = Images.of(loaded)
    if limit is None or limit >= len(data.images):
        return data
    chosen = np.sort(np.random.default_rng(SEED).permutation(len(data.images))[:limit])
    labels = None if data.labels is None else data.labels[chosen]
    return Images(data.name, data.images[chosen], labels, data.classes, data.task)


def held_out_split(spec: str, test: Images) -> Images:
    """Images to quantize peers with; random ones, other than the test's, if that is what is measured."""
    if spec == RANDOM:
        return _random(RANDOM_IMAGES, test.images.shape[1:], test.task, SEED + 1)
    return Images.of(datasets.load(spec, "held-out"))


def _random(count: int, shape: tuple[int, ...], task: Task, seed: int) -> Images:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)
    return Images(RANDOM, pixels, None, (), task)
