"""Data sets: splits that never mix and never change, and one-line errors for all that can be wrong."""

import hashlib
import os
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from coc_runtime import CocError, datasets

DIGITS_SUMS = {
    "train": "97ee383f014707f9",
    "held-out": "d250b40c4beed8d1",
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
    assert len(parts["held-out"].labels) == pytest.approx(0.1 * 0.72 * 1797, rel=0.05)
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
        "held-out": 4,
        "test": 8,
    }
    for split, part in parts.items():
        assert part.name == "imagefolder:pets" and part.classes == ("cat", "dog")
        assert part.images.shape[1:] == (3, 4, 5) and part.images.dtype == np.uint8
        np.testing.assert_array_equal(part.images[:, 0, 0, 0], part.labels)
        assert set(part.images[:, 2, 0, 0]) == {split != "test"}
    assert parts["held-out"].labels.tolist() == [0, 0, 1, 1]
    assert not rows(parts["train"].images) & rows(parts["held-out"].images)
    first = np.asarray(Image.open(tmp_path / "pets" / test / "cat" / "000.png")).transpose(2, 0, 1)
    np.testing.assert_array_equal(parts["test"].images[0], first)


def test_grayscale_images_have_one_channel(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for index in range(3):
            write(tmp_path / part / "a" / f"{index}.png", np.full((2, 6), index, np.uint8))
    data = datasets.load(f"imagefolder:{tmp_path}", "test")
    assert data.images.shape == (3, 1, 2, 6)
    assert data.images[:, 0, 0, 0].tolist() == [0, 1, 2]


def held_out(labels: np.ndarray) -> np.ndarray:
    return datasets._Source("", labels, (), lambda at: (at, {})).held_out(None)


def test_the_held_out_split_takes_at_most_5000_images() -> None:
    labels = np.repeat(np.arange(10), 8000)
    mask = held_out(labels)
    assert np.bincount(labels[mask]).tolist() == [500] * 10
    assert held_out(labels[::100]).sum() == 80


def make_bad(root: Path, kind: str) -> str:
    """Break a good folder; returns what the message must name."""
    folder = make_folder(root) / "train" / "dog"
    odd = folder / "999.png"
    if kind == "size":
        write(odd, np.zeros((5, 5, 3), np.uint8))
    elif kind == "real numbers":
        odd = odd.with_suffix(".tif")
        write(odd, np.full((4, 5), np.nan, np.float32))
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


@pytest.mark.parametrize("kind", ["size", "real numbers", "damaged", "text", "empty class", "new class"])
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
    with pytest.raises(CocError, match="no images for the held-out split"):
        datasets.load(spec, "held-out")


@pytest.mark.parametrize(
    "spec",
    ["", "mnist", "imagefolder", "imagefolder:", "cifar10:", "digits:8", "svhn:", "cinic10", "cinic10:"],
)
def test_unknown_specifications_are_refused_with_the_choices(spec: str) -> None:
    with pytest.raises(CocError, match=r"unknown data .*digits, cifar10\[:PATH\], .*imagefolder:PATH"):
        datasets.load(spec, "train")


def test_unknown_splits_are_refused() -> None:
    with pytest.raises(CocError, match="unknown split 'valid': choose one of train, held-out, test"):
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
        url, base_folder = "http://somewhere", "files"
        train_list, test_list, meta = [["one", ""]], [["two", ""]], {"filename": "three"}

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
    held_out, train = datasets.load("cifar10", "held-out"), datasets.load("cifar10", "train")
    assert (len(held_out.labels), len(train.labels)) == (4, 36)
    assert held_out.images[:, 0, 0, 0].all() and train.images[:, 0, 0, 0].all()
    with pytest.raises(CocError, match=r"cifar10: .*offline .*\(Error downloading\); offline/files missing"):
        datasets.load("cifar10:offline", "train")


def write_cifar100(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-100's files with 40 and 10 images, and torchvision told not to expect the real ones' sums."""
    import torchvision

    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in (("train", 40), ("test", 10)):
        fine = [index % 2 for index in range(count)]
        pixels = rng.integers(0, 256, (count, 3072), np.uint8)
        pixels[:, 0] = fine
        entry = {"data": pixels, "fine_labels": fine, "coarse_labels": [9] * count}
        (folder / name).write_bytes(pickle.dumps(entry))
    meta = {"fine_label_names": ["apple", "bee"], "coarse_label_names": ["thing"] * 10}
    (folder / "meta").write_bytes(pickle.dumps(meta))
    cifar100 = torchvision.datasets.CIFAR100
    monkeypatch.setattr(cifar100, "train_list", [["train", None]])
    monkeypatch.setattr(cifar100, "test_list", [["test", None]])
    monkeypatch.setattr(cifar100, "meta", cifar100.meta | {"md5": None})


def test_cifar100_is_read_from_its_files_with_fine_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar100(tmp_path, monkeypatch)
    parts = {split: datasets.load(f"cifar100:{tmp_path}", split) for split in datasets.SPLITS}
    assert {split: len(part.labels) for split, part in parts.items()} == {
        "train": 36,
        "held-out": 4,
        "test": 10,
    }
    for part in parts.values():
        assert (part.name, part.classes) == ("cifar100", ("apple", "bee"))
        assert part.images.shape[1:] == (3, 32, 32) and part.images.dtype == np.uint8
        np.testing.assert_array_equal(part.images[:, 0, 0, 0], part.labels)
    entry = pickle.loads((tmp_path / "cifar-100-python" / "test").read_bytes())
    np.testing.assert_array_equal(parts["test"].images.reshape(10, -1), entry["data"])
    assert not rows(parts["train"].images) & rows(parts["held-out"].images)


def write_svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """SVHN's files with 30 images, a digit in their first byte (SVHN writes 10 for zero); the images."""
    import torchvision
    from scipy import io

    images = np.random.default_rng(1).integers(0, 256, (32, 32, 3, 30)).astype(np.uint8)
    labels = np.arange(30) % 10 + 1
    images[0, 0, 0] = labels % 10
    files = {split: ["http://somewhere", f"{split}_32x32.mat", None] for split in ("train", "test")}
    for _, name, _ in files.values():
        io.savemat(root / name, {"X": images, "y": labels[:, None].astype(np.uint8)})
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", files)
    return images


def test_svhn_is_read_from_its_files_with_ten_meaning_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_svhn(tmp_path, monkeypatch)
    test = datasets.load(f"svhn:{tmp_path}", "test")
    np.testing.assert_array_equal(test.images, images.transpose(3, 2, 0, 1))
    assert test.images.flags["C_CONTIGUOUS"] and test.labels.dtype == np.int64
    assert test.labels.tolist() == [(index + 1) % 10 for index in range(30)]
    assert (test.name, test.classes) == ("svhn", tuple("0123456789"))
    held_out = datasets.load(f"svhn:{tmp_path}", "held-out")
    assert sorted(held_out.labels.tolist()) == list(range(10))


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("cifar100", r"root/cifar-100-python missing: unpack https://\S*cifar-100-python.tar.gz in \S*root"),
        ("svhn", r"put http://\S*/train_32x32.mat there as \S*root/train_32x32.mat"),
    ],
)
def test_data_that_cannot_be_downloaded_names_what_is_missing_and_where_it_goes(
    kind: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(CocError, match=rf"{kind}: .*no route to host.*{told}$"):
        datasets.load(f"{kind}:{tmp_path / 'root'}", "train")


def test_a_damaged_file_of_cifar100_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar100(tmp_path, monkeypatch)
    (tmp_path / "cifar-100-python" / "train").write_bytes(b"nothing")
    with pytest.raises(CocError, match=r"cifar100: .*; a file there is damaged: unpack"):
        datasets.load(f"cifar100:{tmp_path}", "train")


def make_cinic10(root: Path) -> Path:
    """One test image and two training images a class, one of them grayscale as CINIC-10 has some."""
    for label, name in enumerate(datasets.CINIC10):
        write(root / "train" / name / "a.png", np.full((32, 32, 3), label, np.uint8))
        write(root / "train" / name / "b.png", np.full((32, 32), 100 + label, np.uint8))
        write(root / "valid" / name / "c.png", np.full((32, 32, 3), 200, np.uint8))
        write(root / "test" / name / "d.png", np.full((32, 32, 3), label, np.uint8))
    return root


def test_cinic10_is_read_as_rgb_from_train_and_test(tmp_path: Path) -> None:
    spec = f"cinic10:{make_cinic10(tmp_path)}"
    parts = {split: datasets.load(spec, split) for split in datasets.SPLITS}
    assert all(part.images.shape == (10, 3, 32, 32) for part in parts.values())
    assert all(part.name == "cinic10" for part in parts.values())
    assert parts["test"].images[:, 0, 0, 0].tolist() == parts["test"].labels.tolist() == list(range(10))
    seen = np.concatenate([parts["train"].images, parts["held-out"].images])
    assert sorted(seen[:, 2, 3, 3].tolist()) == [*range(10), *range(100, 110)]


def test_cinic10_with_other_classes_is_refused(tmp_path: Path) -> None:
    make_cinic10(tmp_path)
    (tmp_path / "train" / "ship").rename(tmp_path / "train" / "boat")
    with pytest.raises(CocError, match="cinic10: .*train has classes airplane, .*boat.*, not airplane"):
        datasets.load(f"cinic10:{tmp_path}", "train")


def test_images_of_several_sizes_are_scaled_where_a_size_is_given(tmp_path: Path) -> None:
    make_folder(tmp_path)
    big = np.zeros((8, 12, 3), np.uint8)
    big[:, 6:] = 200
    write(tmp_path / "test" / "cat" / "000.png", big)
    with pytest.raises(CocError, match=r"all images must be alike \(imagefolder:PATH:size=WxH scales them\)"):
        datasets.load(f"imagefolder:{tmp_path}", "test")
    images = datasets.load(f"imagefolder:{tmp_path}:size=6x4", "test").images
    assert images.shape == (8, 3, 4, 6)
    assert images[0, 0, 2].tolist() == pytest.approx([0, 0, 0, 200, 200, 200], abs=40)
    assert images[0, 0, 2, 0] == 0 and images[0, 0, 2, -1] == 200


@pytest.mark.parametrize("size", ["", "4", "0x4", "4x-1", "4x4x4", "99999x1"])
def test_a_size_that_makes_no_sense_is_refused(size: str, tmp_path: Path) -> None:
    with pytest.raises(CocError, match="size=.*is not understood: give width and height, e.g. size=64x48"):
        datasets.load(f"imagefolder:{make_folder(tmp_path)}:size={size}", "train")


def test_names_of_folders_that_are_not_utf8_or_hold_line_breaks_become_one_line(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"caf\xe9 and\nmore")
    for part in ("train", "test"):
        for name in (b"a\xff", b"b\tb"):
            for index in range(2):
                write(root / part / os.fsdecode(name) / f"{index}.png", np.full((2, 2), index, np.uint8))
    for split in datasets.SPLITS:
        data = datasets.load(f"imagefolder:{root}", split)
        assert (data.name, data.classes) == (r"imagefolder:caf\xe9 and\nmore", (r"a\xff", r"b\tb"))
        assert data.labels.tolist() == sorted(data.labels.tolist()) and set(data.labels) == {0, 1}


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (np.full((2, 1, 4, 4), np.nan, np.float32), [0, 1], "float32 of shape [2, 1, 4, 4]: give raw pixels"),
        (np.zeros((2, 4, 4), np.uint8), [0, 1], "uint8 of shape [2, 4, 4]: give raw pixels"),
        (np.ma.masked_equal(np.zeros((2, 1, 4, 4), np.uint8), 0), [0, 1], "a MaskedArray, not a plain"),
        (np.zeros((2, 1, 4, 4), np.uint8), [[0.5], [np.nan]], "labels are not finite"),
    ],
)
def test_arrays_that_are_no_images_or_labels_are_refused(
    images: np.ndarray, labels: list[object], words: str
) -> None:
    with pytest.raises(CocError, match=f"mine: (images are )?{re.escape(words)}"):
        datasets.Dataset("mine", images, np.array(labels), ("a", "b"))


def test_another_share_of_the_training_images_is_held_out() -> None:
    usual = {split: datasets.load("digits", split) for split in datasets.SPLITS}
    more = {split: datasets.load("digits:held_out=0.4", split) for split in datasets.SPLITS}
    assert [len(more[split].labels) for split in datasets.SPLITS] == [785, 515, 497]
    np.testing.assert_array_equal(more["test"].images, usual["test"].images)
    assert rows(usual["held-out"].images) <= rows(more["held-out"].images)
    assert more["held-out"].name == "digits:held_out=0.4"
    turned = [len(datasets.load("rotated-digits:held_out=.3", split).labels) for split in datasets.SPLITS]
    assert turned == [2745, 1155, 1491]


def test_test_images_are_held_out_where_nothing_may_be_trained_on_them() -> None:
    usual = {split: datasets.load("digits", split) for split in datasets.SPLITS}
    cut = {split: datasets.load("digits:held_out_of_test=0.5", split) for split in datasets.SPLITS}
    assert len(cut["train"].labels) == len(usual["train"].labels) + len(usual["held-out"].labels)
    test, held_out = rows(cut["test"].images), rows(cut["held-out"].images)
    assert not test & held_out and test | held_out == rows(usual["test"].images)
    assert abs(len(cut["test"].labels) - len(cut["held-out"].labels)) <= 10
    assert len(np.unique(cut["held-out"].labels)) == 10


@pytest.mark.parametrize("share", ["0", "1", "1.5", "half", "", "-0.2", "0.0"])
def test_a_share_that_is_none_is_refused(share: str) -> None:
    with pytest.raises(CocError, match="is not a share between 0 and 1, e.g. 0.3"):
        datasets.load(f"digits:held_out={share}", "train")
