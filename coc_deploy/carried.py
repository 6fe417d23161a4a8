"""Held-out images that a model.pt carries, so that an exporter has real ones where the data set is not."""

from typing import Any

import numpy as np
import torch

from coc_runtime.arithmetic import Task
from coc_runtime.datasets import Dataset
from coc_runtime.errors import CocError

BYTES = 1 << 18
"""Their pixels take at most so many bytes, or one image where that is larger."""


def some_of(data: Dataset, most: int) -> Dataset | None:
    """Up to `most` images that BYTES hold, spread evenly over the set, and so over classes; None for none."""
    size = data.images[0].size
    count = min(most, len(data.images), max(BYTES // size, 1))
    if not count:
        return None
    chosen = np.linspace(0, len(data.images) - 1, count).astype(int)
    return Dataset(data.name, data.images[chosen], data.labels[chosen], data.classes)


def entry(data: Dataset | None) -> dict[str, Any] | None:
    """What a model.pt holds of them."""
    if data is None:
        return None
    pixels, labels = (torch.from_numpy(np.ascontiguousarray(part)) for part in (data.images, data.labels))
    return {"data": data.name, "pixels": pixels, "labels": labels, "classes": list(data.classes)}


def read(found: dict[str, Any] | None, shape: tuple[int, ...], task: Task) -> Dataset | None:
    """The images of a file's entry; None where it has none, as those of earlier versions.

    shape: (C, H, W) of the network's images. Raises CocError for images that it does not take.
    """
    if found is None:
        return None
    pixels, labels = found["pixels"].numpy(), found["labels"].numpy()
    classes = tuple(str(name) for name in found["classes"])
    data = Dataset(str(found["data"]), pixels, labels, classes)
    if pixels.dtype != np.uint8 or pixels.shape[1:] != shape or not 0 < len(pixels) == len(labels):
        raise CocError(f"carries images {pixels.dtype} {list(pixels.shape)}, the network takes {list(shape)}")
    if data.task is not task or labels.ndim != (1 if task is Task.CLASSIFICATION else 2):
        raise CocError(f"carries labels {labels.dtype} {list(labels.shape)} of no {task.value}")
    return data
