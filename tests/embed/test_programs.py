"""The Python programs of docs/embed.md, started as a user starts them, say what the reference says."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sites import ROOT, Site, run

PYTHON = "examples/python/classify.py"
ONNXRUNTIME = "examples/onnxruntime/classify.py"
FOLDER = "examples/batch/label_folder.py"


def answers(stdout: str) -> list[str]:
    """What stands behind the file's name in each line."""
    return [line.split(": ", 1)[1] for line in stdout.splitlines()]


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_sites_images_leave_at_different_exits(digits_site: Site, colour_site: Site) -> None:
    for site in (digits_site, colour_site):
        assert len(set(site.expected().exit.tolist())) > 1


def test_the_python_program_prints_what_the_reference_gives(digits_site: Site, colour_site: Site) -> None:
    for site in (digits_site, colour_site):
        done = run(PYTHON, site.coc, *site.png)
        assert (done.returncode, done.stderr) == (0, "")
        assert answers(done.stdout) == site.lines()


def test_the_python_program_prints_the_numbers_of_a_regression(regression_site: Site) -> None:
    found = regression_site.expected()
    done = run(PYTHON, regression_site.coc, *regression_site.png[:3])
    for n, line in enumerate(answers(done.stdout)):
        numbers = " ".join(f"{number:.4f}" for number in found.logits[n])
        assert line == f"{numbers}, exit {found.exit[n]}, confidence {found.confidence[n]:.4f}"
    assert len(done.stdout.splitlines()) == 3


def test_onnxruntime_alone_prints_what_the_reference_gives(digits_site: Site, colour_site: Site) -> None:
    pytest.importorskip("onnxruntime", reason="the program runs on it")
    assert "coc_runtime" not in (ROOT / ONNXRUNTIME).read_text()
    for site in (digits_site, colour_site):
        done = run(ONNXRUNTIME, site.onnx, *site.png)
        assert (done.returncode, done.stderr) == (0, "")
        assert answers(done.stdout) == site.lines()


def test_a_folder_becomes_a_csv_whatever_the_threads_and_batches(digits_site: Site, tmp_path: Path) -> None:
    found = digits_site.expected()
    for threads, batch in ((1, 64), (3, 4)):
        out = tmp_path / "labels.csv"
        done = run(FOLDER, digits_site.coc, digits_site.folder, out, "--threads", threads, "--batch", batch)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"labels.csv: {2 * len(digits_site.images)} images in " in done.stdout
        table = rows(out)
        images = [*digits_site.png, *digits_site.pnm]
        assert [row["file"] for row in table] == [f"{path.parent.name}/{path.name}" for path in images]
        for n, row in enumerate(table[: len(digits_site.images)]):
            assert (int(row["label"]), int(row["exit"])) == (found.label[n], found.exit[n])
            assert float(row["confidence"]) == pytest.approx(found.confidence[n], rel=1e-6)
        assert list(tmp_path.iterdir()) == [out]


def test_images_of_another_size_and_colour_are_scaled_to_the_models(
    digits_site: Site, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for path in digits_site.png[:4]:
        image = Image.open(path)
        doubled = np.asarray(image).repeat(2, axis=0).repeat(2, axis=1)
        Image.fromarray(doubled).convert("RGB").save(folder / path.name)
    assert run(FOLDER, digits_site.coc, folder, tmp_path / "out.csv").returncode == 0
    assert len(rows(tmp_path / "out.csv")) == 4
    done = run(PYTHON, digits_site.coc, *sorted(folder.iterdir()))
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 4)


def test_files_that_are_no_images_are_named_and_left_out(digits_site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "good.png").write_bytes(digits_site.png[0].read_bytes())
    (folder / "cut.png").write_bytes(digits_site.png[0].read_bytes()[:60])
    (folder / "text.jpg").write_text("hello")
    (folder / "notes.txt").write_text("not looked at")
    done = run(FOLDER, digits_site.coc, folder, tmp_path / "out.csv")
    assert done.returncode == 1
    assert sorted(line.split(": left out")[0] for line in done.stderr.splitlines()) == [
        str(folder / "cut.png"),
        str(folder / "text.jpg"),
    ]
    assert [row["file"] for row in rows(tmp_path / "out.csv")] == ["good.png"]


def test_what_cannot_be_done_is_one_line(digits_site: Site, tmp_path: Path) -> None:
    missing, image = tmp_path / "missing.coc", digits_site.png[0]
    (tmp_path / "empty").mkdir()
    nowhere = tmp_path / "no" / "out.csv"
    for words in (
        (PYTHON, missing, image),
        (PYTHON, digits_site.coc, tmp_path / "missing.png"),
        (PYTHON, image, image),
        (FOLDER, missing, digits_site.folder, tmp_path / "out.csv"),
        (FOLDER, digits_site.coc, tmp_path / "empty", tmp_path / "out.csv"),
        (FOLDER, digits_site.coc, digits_site.folder, nowhere),
    ):
        done = run(*words)
        assert done.returncode == 2, words
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert not (tmp_path / "out.csv").exists()
