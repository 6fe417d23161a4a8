"""Image files of every kind become 8-bit pixels of one kind, upright, and one line says how."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from coc_runtime import CocError, datasets, imagefiles
from coc_runtime.imagefiles import COLOUR, GREY, Form

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 5, 3)).astype(np.uint8)
GREYS = RNG.integers(0, 256, (6, 5)).astype(np.uint8)
RED = np.full((6, 5, 3), (255, 0, 0), np.uint8)
WHITE = np.full((6, 5, 3), 255, np.uint8)


def save(path: Path, image: Image.Image | np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    found = image if isinstance(image, Image.Image) else Image.fromarray(image)
    found.save(path, **options)
    return path


def rgba(alpha: int) -> Image.Image:
    return Image.fromarray(np.dstack([RGB, np.full((6, 5), alpha, np.uint8)]))


def palette(transparent: int | None = None) -> Image.Image:
    """Five rows of red, then a row of blue."""
    image = Image.new("P", (5, 6), 0)
    image.putpalette([250, 0, 0, 0, 0, 250])
    image.paste(1, (0, 5, 5, 6))
    if transparent is not None:
        image.info["transparency"] = transparent
    return image


def red_and_blue(last: tuple[int, int, int] = (0, 0, 250)) -> np.ndarray:
    pixels = np.full((6, 5, 3), (250, 0, 0), np.uint8)
    pixels[5] = last
    return pixels


def of(path: Path, mode: str, size: tuple[int, int] | None = None) -> tuple[np.ndarray, dict[str, int]]:
    images, changes = imagefiles.decode([path], Form(mode, size))
    return images[0].transpose(1, 2, 0), dict(changes)


@pytest.mark.parametrize(
    ("image", "suffix", "expected", "said"),
    [
        (RGB, "png", RGB, None),
        (rgba(255), "png", RGB, "RGBA with transparency, laid on white"),
        (rgba(0), "png", WHITE, "RGBA with transparency, laid on white"),
        (palette(), "png", red_and_blue(), "palette"),
        (palette(1), "png", red_and_blue((255, 255, 255)), "palette with transparency, laid on white"),
        (palette(), "gif", red_and_blue(), "palette"),
        (Image.new("CMYK", (5, 6), (0, 255, 255, 0)), "tif", RED, "CMYK"),
        (GREYS, "png", np.dstack([GREYS] * 3), "grey"),
        (
            Image.fromarray(GREYS).convert("LA"),
            "png",
            np.dstack([GREYS] * 3),
            "grey with transparency",
        ),
        (Image.new("1", (5, 6), 1), "png", WHITE, "1-bit"),
        (257 * GREYS.astype(np.uint16), "png", np.dstack([GREYS] * 3), "16-bit by the upper 8 bits"),
        (257 * GREYS.astype(np.int32), "tif", np.dstack([GREYS] * 3), "16-bit by the upper 8 bits"),
    ],
)
def test_every_kind_of_image_becomes_colour(
    image: Image.Image | np.ndarray, suffix: str, expected: np.ndarray, said: str | None, tmp_path: Path
) -> None:
    found, changes = of(save(tmp_path / f"image.{suffix}", image), COLOUR)
    np.testing.assert_array_equal(found, expected)
    assert [change.startswith(said) for change in changes if said] == [True] * bool(said)


@pytest.mark.parametrize(
    ("image", "suffix", "expected"),
    [
        (GREYS, "png", GREYS),
        (Image.fromarray(GREYS).convert("LA"), "png", GREYS),
        (257 * GREYS.astype(np.uint16), "tif", GREYS),
        (Image.new("1", (5, 6), 1), "png", np.full((6, 5), 255, np.uint8)),
        (np.dstack([GREYS] * 3), "png", GREYS),
    ],
)
def test_kinds_without_colour_become_grey(
    image: Image.Image | np.ndarray, suffix: str, expected: np.ndarray, tmp_path: Path
) -> None:
    found, _ = of(save(tmp_path / f"image.{suffix}", image), GREY)
    np.testing.assert_array_equal(found[..., 0], expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_their_exif_data_say(orientation: int, tmp_path: Path) -> None:
    """The camera that wrote `orientation` held what EXIF calls row 0 and column 0 at other sides."""
    ways = [
        RGB,
        RGB[:, ::-1],
        RGB[::-1, ::-1],
        RGB[::-1],
        RGB.transpose(1, 0, 2),
        np.rot90(RGB, 1),
        np.rot90(RGB, 2).transpose(1, 0, 2),
        np.rot90(RGB, 3),
    ]
    exif = Image.Exif()
    exif[imagefiles.ORIENTATION] = orientation
    path = save(tmp_path / "image.png", np.ascontiguousarray(ways[orientation - 1]), exif=exif)
    found, changes = of(path, COLOUR)
    np.testing.assert_array_equal(found, RGB)
    assert changes == ({} if orientation == 1 else {imagefiles.TURNED: 1})


def test_damaged_exif_data_turn_nothing(tmp_path: Path) -> None:
    found, changes = of(save(tmp_path / "image.png", RGB, exif=b"Exif\0\0nothing"), COLOUR)
    np.testing.assert_array_equal(found, RGB)
    assert changes == {}


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_of_several_frames_the_first_is_taken(suffix: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (5, 6), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"image.{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
    found, changes = of(path, COLOUR)
    np.testing.assert_array_equal(found, RED)
    assert changes[imagefiles.FIRST] == 1


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.full((6, 5), np.nan, np.float32), "its pixels are real numbers"),
        (np.full((6, 5), -1, np.int32), "its pixels are -1 to -1"),
        (np.full((6, 5), 1 << 20, np.int32), "its pixels are 1048576 to 1048576"),
        (GREYS.astype(np.uint16), "use the lower 8 of 16 bits only"),
    ],
)
def test_pixels_without_a_sure_meaning_are_refused(pixels: np.ndarray, words: str, tmp_path: Path) -> None:
    with pytest.raises(CocError, match=words) as caught:
        of(save(tmp_path / "image.tif", pixels), GREY)
    assert str(tmp_path / "image.tif") in str(caught.value)


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    noise = RNG.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    whole = save(tmp_path / "whole.jpg", noise).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CocError, match=r"cut.jpg: cannot be read as an image: .*truncated"):
        imagefiles.decode([tmp_path / "whole.jpg", tmp_path / "cut.jpg"], Form(COLOUR))


def test_a_file_is_read_for_a_model_as_data_sets_read_it(tmp_path: Path) -> None:
    path = save(tmp_path / "image.png", rgba(0))
    np.testing.assert_array_equal(imagefiles.read(path, (3, 6, 5)), WHITE.transpose(2, 0, 1))
    assert imagefiles.read(path, (1, 12, 10)).shape == (1, 12, 10)
    with pytest.raises(CocError, match="the model takes 4"):
        imagefiles.read(path, (4, 6, 5))


def mixed_folder(root: Path, train: list[Image.Image | np.ndarray], test: np.ndarray) -> str:
    for name in ("a", "b"):
        for index, image in enumerate(train):
            save(root / "train" / name / f"{index}.png", image)
        save(root / "test" / name / "0.png", test)
    return f"imagefolder:{root}"


def test_a_mixed_folder_becomes_colour_if_any_training_image_has_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = mixed_folder(tmp_path / "mixed", [GREYS, GREYS, rgba(255)], GREYS)
    parts = [datasets.load(spec, split) for split in datasets.SPLITS]
    assert all(part.images.shape[1:] == (3, 6, 5) for part in parts)
    np.testing.assert_array_equal(parts[2].images[0], np.stack([GREYS] * 3))
    datasets.tell(*parts)
    said = "images are taken as 8-bit colour: 2 RGBA with transparency, laid on white, 6 grey"
    assert capsys.readouterr().out == f"imagefolder:mixed: {said}\n"


def test_the_test_split_takes_the_form_of_the_training_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = mixed_folder(tmp_path / "grey", [GREYS, GREYS], np.dstack([GREYS] * 3))
    parts = [datasets.load(spec, split) for split in datasets.SPLITS]
    assert all(part.images.shape[1:] == (1, 6, 5) for part in parts)
    np.testing.assert_array_equal(parts[2].images[0, 0], GREYS)
    datasets.tell(*parts[:2])
    assert capsys.readouterr().out == ""
    datasets.tell(*parts)
    assert capsys.readouterr().out == "imagefolder:grey: images are taken as 8-bit grey: 2 RGB\n"
