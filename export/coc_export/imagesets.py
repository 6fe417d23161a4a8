"""Which images back ends are compared on: a test split, those that a model.pt carries, generated ones."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coc_runtime.datasets import Dataset

from . import generated


class Kind(enum.Enum):
    """Where images come from, as reports say it."""

    TEST = "test split"
    CARRIED = "carried"
    """Held-out images in the model.pt."""
    GENERATED = "generated"
    """Images at the borders of the pixels' range, and noise."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one kind."""

    kind: Kind
    images: np.ndarray
    """uint8 [N, C, H, W]"""
    data: str | None = None
    """the name of the data set"""
    labels: np.ndarray | None = None
    """None of generated images"""

    @classmethod
    def of(cls, kind: Kind, data: Dataset, count: int | None = None) -> "ImageSet":
        """The first `count` images of a data set."""
        return cls(kind, data.images[:count], data.name, data.labels[:count])


def generate(shape: Sequence[int], count: int | None = None) -> ImageSet:
    """The first `count` generated images for a model that takes images (C, H, W)."""
    return ImageSet(Kind.GENERATED, generated.images(shape)[:count])
