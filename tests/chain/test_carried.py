"""A model.pt carries some of the images that were held out, which files of earlier versions do not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coc_deploy import carried, checkpoint, cli, recipe
from coc_deploy.checkpoint import Checkpoint
from coc_runtime.datasets import Dataset
from coc_runtime.errors import CocError
from conftest import TinyRun
from tiny import RECIPE, digits, float_network, stage_key, write_recipe


def dataset(count: int, shape: tuple[int, ...]) -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    return Dataset("some", images, np.arange(count) % 3, ("a", "b", "c"))


@pytest.mark.parametrize(
    ("count", "shape", "most", "expected"),
    [
        (500, (1, 8, 8), 64, 64),
        (40, (1, 8, 8), 64, 40),
        (500, (3, 32, 32), 64, 64),
        (500, (3, 96, 96), 64, 9),
        (20, (3, 224, 224), 64, 1),
        (3, (3, 600, 800), 64, 1),
        (500, (1, 8, 8), 5, 5),
    ],
)
def test_as_many_are_carried_as_are_small(
    count: int, shape: tuple[int, ...], most: int, expected: int
) -> None:
    found = carried.some_of(dataset(count, shape), most)
    assert found is not None and len(found.images) == len(found.labels) == expected
    assert expected == 1 or found.images.nbytes <= carried.BYTES
    assert len({image.tobytes() for image in found.images}) == expected


def test_they_are_spread_over_classes_that_lie_behind_each_other() -> None:
    data = Dataset("sorted", dataset(900, (1, 8, 8)).images, np.repeat(np.arange(3), 300), ("a", "b", "c"))
    found = carried.some_of(data, 64)
    assert found is not None and np.bincount(found.labels).min() >= 20


def test_every_stage_carries_them_from_the_held_out_split(tiny_run: TinyRun) -> None:
    held_out = digits("held-out")
    labels = {image.tobytes(): label for image, label in zip(held_out.images, held_out.labels, strict=True)}
    paths = sorted(tiny_run.out.glob("0*/model.pt"))
    assert len(paths) == 5
    for path in (*paths, tiny_run.model):
        images = checkpoint.load(path).images
        assert images is not None and len(images.images) == recipe.CARRIED_IMAGES
        assert [labels[image.tobytes()] for image in images.images] == images.labels.tolist()
        assert images.classes == held_out.classes and images.name == "digits"


def test_a_recipe_may_carry_none(tmp_path: Path) -> None:
    text = RECIPE.replace('chain = "DPQE"', 'chain = "P"').replace("epochs = 5", "epochs = 1", 1)
    arguments = [str(write_recipe(tmp_path, text)), "--out", str(tmp_path / "run"), "--threads", "1"]
    assert cli.main([*arguments, "--set", "carried_images=0"]) == 0
    assert checkpoint.load(tmp_path / "run/model.pt").images is None
    assert torch.load(tmp_path / "run/model.pt", weights_only=True)["images"] is None


def test_a_stage_with_other_images_is_another_stage() -> None:
    base, same, none = (
        recipe.parse(values) for values in ({}, {"carried_images": 64}, {"carried_images": 0})
    )
    assert stage_key(base, "P") == stage_key(same, "P") != stage_key(none, "P")
    with pytest.raises(CocError, match="carried_images = -1 is not allowed: 0 to 1000"):
        recipe.parse({"carried_images": -1})


def saved(tmp_path: Path, data: Dataset | None, meta: dict[str, Any] | None = None) -> Path:
    path = tmp_path / "model.pt"
    checkpoint.save(path, Checkpoint(float_network(), (), meta or {}, data))
    return path


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_they_come_back_as_they_were(task: str, tmp_path: Path) -> None:
    data, meta = dataset(7, (1, 8, 8)), {"task": task}
    if task == "regression":
        data = Dataset("some", data.images, np.linspace(0, 1, 14, dtype=np.float32).reshape(7, 2), ("x", "y"))
    found = checkpoint.load(saved(tmp_path, data, meta)).images
    assert found is not None and (found.name, found.classes, found.task) == (
        data.name,
        data.classes,
        data.task,
    )
    np.testing.assert_array_equal(found.images, data.images)
    np.testing.assert_array_equal(found.labels, data.labels)


def test_a_file_of_an_earlier_version_has_none(tmp_path: Path) -> None:
    path = saved(tmp_path, dataset(3, (1, 8, 8)))
    data = torch.load(path, weights_only=True)
    del data["images"]
    torch.save(data, path)
    assert checkpoint.load(path).images is None


@pytest.mark.parametrize(
    "change",
    [
        {"pixels": torch.zeros((3, 1, 9, 8), dtype=torch.uint8)},
        {"pixels": torch.zeros((3, 1, 8, 8))},
        {"pixels": torch.zeros((2, 1, 8, 8), dtype=torch.uint8)},
        {"pixels": torch.zeros((0, 1, 8, 8), dtype=torch.uint8), "labels": torch.zeros(0, dtype=torch.int64)},
        {"pixels": torch.zeros((3, 8, 8), dtype=torch.uint8)},
        {"pixels": [1, 2]},
        {"labels": torch.zeros((3, 1))},
        {"labels": torch.zeros((3, 2), dtype=torch.int64)},
        {"labels": None},
        {"classes": 3},
    ],
)
def test_images_that_the_network_does_not_take_are_told_in_one_line(
    change: dict[str, Any], tmp_path: Path
) -> None:
    path = saved(tmp_path, dataset(3, (1, 8, 8)))
    data = torch.load(path, weights_only=True)
    data["images"] |= change
    torch.save(data, path)
    with pytest.raises(CocError, match="damaged coc-deploy model: ") as error:
        checkpoint.load(path)
    assert "\n" not in str(error.value)
