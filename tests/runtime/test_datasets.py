"""Data sets: splits that never mix and never change, and one-line errors for all that can be wrong."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from coc_runtime import CocError, datasets

DIGITS_SUMS = {
    "train": "97ee383f014707f9",
    "calibration": "d250b40c4beed8d1",
    "test": "3696eabc1e3cb2d8",
}


def rows(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def make_folder(root: Path, test: str = "test", counts: tuple[int, int] = (20, 4)) -> Path:
    """Images 5 wide and 4 high of classes cat and dog, all different; their first byte tells the class."""
    rng = np.random.default_rng(0)
    for part, count in zip(("train", test), counts, strict=True):
        for label, name in enumerate(("cat", "dog")):
            for index in range(count):
                pixels = rng.integers(0, 256, (4, 5, 3)).astype(np.uint8)
                pixels[0, 0] = (label, index, part == "train")
                write(root / part / name / f"{index:03}.png", pixels)
    return root


def test_digits_splits_are_disjoint_complete_and_stratified() -> None:
    parts = {split: datasets.load("digits", split) for split in datasets.SPLITS}
    assert sum(len(part.labels) for part in parts.values()) == 1797
    assert len(parts["test"].labels) == pytest.approx(0.28 * 1797, rel=0.02)
    assert len(parts["calibration"].labels) == pytest.approx(0.1 * 0.72 * 1797, rel=0.05)
    for part in parts.values():
        assert part.images.dtype == np.uint8 and part.labels.dtype == np.int64
        assert part.images.shape == (len(part.labels), 1, 8, 8)
        assert part.classes == tuple("0123456789")
        assert np.bincount(part.labels, minlength=10).min() > 0.08 * len(part.labels)
    kept = [rows(part.images) for part in parts.values()]
    assert not (kept[0] & kept[1] or kept[0] & kept[2] or kept[1] & kept[2])


def test_digits_are_scaled_to_bytes_with_their_labels() -> None:
    data = load_digits()
    expected = {
        np.minimum(16 * image.astype(int), 255).astype(np.uint8).tobytes(): label
        for image, label in zip(data.images, data.target, strict=True)
    }
    test = datasets.load("digits", "test")
    assert test.images.max() == 255
    assert [expected[image.tobytes()] for image in test.images] == test.labels.tolist()


def test_digits_splits_never_change() -> None:
    sums = {}
    for split in datasets.SPLITS:
        data = datasets.load("digits", split)
        sums[split] = hashlib.sha256(data.images.tobytes() + data.labels.tobytes()).hexdigest()[:16]
    assert sums == DIGITS_SUMS


@pytest.mark.parametrize("test", ["test", "val"])
def test_an_image_folder_gives_pixels_labels_and_disjoint_splits(tmp_path: Path, test: str) -> None:
    spec = f"imagefolder:{make_folder(tmp_path / 'pets', test)}"
    (tmp_path / "pets" / "train" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "pets" / "train" / ".cache").mkdir()
    parts = {split: datasets.load(spec, split) for split in datasets.SPLITS}
    assert {split: len(part.labels) for split, part in parts.items()} == {
        "train": 36,
        "calibration": 4,
        "test": 8,
    }
    for split, part in parts.items():
        assert part.name == "imagefolder:pets" and part.classes == ("cat", "dog")
        assert part.images.shape[1:] == (3, 4, 5) and part.images.dtype == np.uint8
        np.testing.assert_array_equal(part.images[:, 0, 0, 0], part.labels)
        assert set(part.images[:, 2, 0, 0]) == {split != "test"}
    assert parts["calibration"].labels.tolist() == [0, 0, 1, 1]
    assert not rows(parts["train"].images) & rows(parts["calibration"].images)
    first = np.asarray(Image.open(tmp_path / "pets" / test / "cat" / "000.png")).transpose(2, 0, 1)
    np.testing.assert_array_equal(parts["test"].images[0], first)


def test_grayscale_images_have_one_channel(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for index in range(3):
            write(tmp_path / part / "a" / f"{index}.png", np.full((2, 6), index, np.uint8))
    data = datasets.load(f"imagefolder:{tmp_path}", "test")
    assert data.images.shape == (3, 1, 2, 6)
    assert data.images[:, 0, 0, 0].tolist() == [0, 1, 2]


def test_calibration_takes_at_most_5000_images() -> None:
    labels = np.repeat(np.arange(10), 8000)
    mask = datasets._calibration_mask(labels)
    assert np.bincount(labels[mask]).tolist() == [500] * 10
    assert datasets._calibration_mask(labels[::100]).sum() == 80


def make_bad(root: Path, kind: str) -> str:
    """Break a good folder; returns what the message must name."""
    folder = make_folder(root) / "train" / "dog"
    odd = folder / "999.png"
    if kind == "size":
        write(odd, np.zeros((5, 5, 3), np.uint8))
    elif kind == "channels":
        write(odd, np.zeros((4, 5), np.uint8))
    elif kind == "mode":
        write(odd, np.zeros((4, 5, 4), np.uint8))
    elif kind == "damaged":
        odd.write_bytes((folder / "000.png").read_bytes()[:60])
    elif kind == "text":
        odd.write_text("hello")
    elif kind == "empty class":
        odd = folder.parent / "emu"
        odd.mkdir()
    elif kind == "new class":
        odd = root / "test" / "emu"
        write(odd / "0.png", np.zeros((4, 5, 3), np.uint8))
    return str(odd)


@pytest.mark.parametrize("kind", ["size", "channels", "mode", "damaged", "text", "empty class", "new class"])
def test_a_bad_image_folder_is_refused_with_the_file_named(tmp_path: Path, kind: str) -> None:
    named = make_bad(tmp_path, kind)
    with pytest.raises(CocError) as caught:
        for split in datasets.SPLITS:
            datasets.load(f"imagefolder:{tmp_path}", split)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_folders_are_named(tmp_path: Path) -> None:
    spec = f"imagefolder:{tmp_path}"
    with pytest.raises(CocError, match="absent is not a folder"):
        datasets.load(f"{spec}/absent", "train")
    with pytest.raises(CocError, match="has no folder train"):
        datasets.load(spec, "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(CocError, match="train has no class folders"):
        datasets.load(spec, "train")
    write(tmp_path / "train" / "a" / "0.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(CocError, match="has no folder test or val"):
        datasets.load(spec, "test")
    with pytest.raises(CocError, match="no images for the calibration split"):
        datasets.load(spec, "calibration")


@pytest.mark.parametrize(
    "spec", ["", "mnist", "imagefolder", "imagefolder:", "cifar10:", "digits:8", "cifar100:x"]
)
def test_unknown_specifications_are_refused_with_the_choices(spec: str) -> None:
    with pytest.raises(CocError, match="unknown data .*digits, cifar10, cifar10:PATH, imagefolder:PATH"):
        datasets.load(spec, "train")


def test_unknown_splits_are_refused() -> None:
    with pytest.raises(CocError, match="unknown split 'valid': choose one of train, calibration, test"):
        datasets.load("digits", "valid")


@pytest.mark.parametrize(
    ("spec", "module"),
    [("digits", "sklearn.datasets"), ("cifar10", "torchvision.datasets"), ("imagefolder:.", "PIL.Image")],
)
def test_a_missing_package_says_how_to_install_it(
    spec: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(CocError, match=r"pip install 'coc-deploy\[compile\]'"):
        datasets.load(spec, "train")


class FakeCifar:
    """What torchvision.datasets offers, with 40 images."""

    class CIFAR10:
        classes = ["plane", "car"]

        def __init__(self, root: str, train: bool, download: bool) -> None:
            if root == "offline":
                raise RuntimeError("Error\ndownloading")
            assert download
            self.data = np.arange(40 * 4 * 5 * 3, dtype=np.uint32).astype(np.uint8).reshape(40, 4, 5, 3)
            self.data[:, 0, 0, 0] = train
            self.targets = [index % 2 for index in range(40)]


def test_cifar10_comes_from_torchvision_channels_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", FakeCifar)
    whole = FakeCifar.CIFAR10("data", False, True).data
    test = datasets.load("cifar10:somewhere", "test")
    np.testing.assert_array_equal(test.images, whole.transpose(0, 3, 1, 2))
    assert (test.name, test.classes) == ("cifar10", ("plane", "car"))
    assert test.labels.tolist() == [0, 1] * 20
    held_out, train = datasets.load("cifar10", "calibration"), datasets.load("cifar10", "train")
    assert (len(held_out.labels), len(train.labels)) == (4, 36)
    assert held_out.images[:, 0, 0, 0].all() and train.images[:, 0, 0, 0].all()
    with pytest.raises(CocError, match="cifar10: cannot be .*offline: Error downloading"):
        datasets.load("cifar10:offline", "train")
