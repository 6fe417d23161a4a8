"""Runs that are killed, find no space or no folder, or meet each other: nothing finished is ever lost."""

import contextlib
import errno
import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from coc_deploy import cli, locking
from coc_runtime import files
from coc_runtime.errors import CocError
from tiny import same_state, write_recipe

TEXT = """\
chain = "DPQE"
batch = 64
[original]
model = "resnet8"
width = 4
epochs = 3
[d]
model = "resnet8"
width = 4
epochs = 3
[p]
ratio = 0.3
round_to = 1
epochs = 3
[q]
epochs = 3
[e]
positions = [0.5]
head_channels = 4
epochs = 3
"""
STAGES = ("00-original", "01-distill", "02-prune", "03-quantize", "04-exit")
PATIENCE = 300

# A server that has torch imported and forks for every run: a run then starts in milliseconds.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["coc_deploy.chain", "sklearn.datasets"])


def start(recipe: Path, out: Path) -> BaseProcess:
    """coc-compress in a process of its own."""
    process = CONTEXT.Process(target=cli.main, args=([str(recipe), "--out", str(out), "--threads", "1"],))
    process.start()
    return process


def run(recipe: Path, out: Path) -> int:
    """coc-compress in this process; its exit status."""
    return cli.main([str(recipe), "--out", str(out), "--threads", "1"])


def model_of(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "model.pt", weights_only=True)["state"]


def wait_for(path: Path, process: BaseProcess) -> None:
    end = time.monotonic() + PATIENCE
    while not path.exists():
        assert process.is_alive(), f"ended before {path} appeared"
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe and the folder of its run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    recipe = write_recipe(folder, TEXT)
    assert run(recipe, folder / "run") == 0
    return recipe, folder / "run"


def test_ten_kills_in_all_stages_end_in_the_undisturbed_model(
    undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe, whole = undisturbed
    parts, moments = tmp_path / "run", random.Random(5)
    struck = []
    for stage in STAGES:
        seconds = json.loads((whole / stage / "result.json").read_text())["seconds"]
        # Once with an epoch on disk, and once wherever the continued run is by then.
        for awaited, longest in ((parts / stage / "progress.pt", seconds / 6), (parts, seconds / 2)):
            process = start(recipe, parts)
            wait_for(awaited, process)
            time.sleep(moments.uniform(0, longest))
            process.kill()
            process.join()
            if not (parts / stage / "result.json").exists():
                struck.append(stage)
    assert set(struck) == set(STAGES), "kills came too late to show anything"
    assert run(recipe, parts) == 0
    assert same_state(model_of(parts), model_of(whole))
    histories = [json.loads((out / "history.json").read_text()) for out in (whole, parts)]
    for a, b in zip(*histories, strict=True):
        assert a["accuracy"] == b["accuracy"] and a["exit_share"] == b["exit_share"]
        assert [epoch["loss"] for epoch in a["epochs"]] == [epoch["loss"] for epoch in b["epochs"]]


class FullDisk:
    """Stands in for os.fsync: refuses the nth and all later writes."""

    def __init__(self, allowed: int) -> None:
        self.left = allowed

    def __call__(self, descriptor: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# Writes of a run: recipe.json, key.json, three epochs, model.pt, result.json, history.json; and again.
@pytest.mark.parametrize(
    ("allowed", "file"),
    [(0, "recipe.json"), (1, "key.json"), (3, "progress.pt"), (6, "result.json")],
)
def test_a_full_disk_is_one_line_and_costs_no_finished_epoch(
    allowed: int,
    file: str,
    undisturbed: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    recipe, whole = undisturbed
    out = tmp_path / "run"
    monkeypatch.setattr("coc_runtime.files.os.fsync", FullDisk(allowed))
    assert run(recipe, out) == 2
    printed, error = capfd.readouterr()
    assert error.count("\n") == 1
    assert f"{file}: cannot be written (No space left on device)" in error
    monkeypatch.undo()
    finished = max(0, min(3, allowed - 2))
    progress = out / "00-original" / "progress.pt"
    assert progress.exists() == (finished > 0)
    kept = torch.load(progress, weights_only=True)["log"] if finished else []
    assert len(kept) == printed.count("original epoch") == finished
    short = ["--set", "chain=D", "--threads", "1"]
    assert cli.main([str(recipe), "--out", str(out), *short]) == 0
    epochs = json.loads((out / "00-original" / "result.json").read_text())["epochs"]
    assert epochs[:finished] == kept, "finished epochs are not computed again"
    for path in ("00-original/model.pt", "01-distill/model.pt"):
        a, b = (torch.load(run_ / path, weights_only=True)["state"] for run_ in (out, whole))
        assert same_state(a, b)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip("mounting needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="tmpfs")
def test_a_disk_that_is_really_full_and_then_read_only(
    undisturbed: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe, whole = undisturbed
    with small_disk(tmp_path / "disk", "1m") as disk:
        filler = disk / "filler"
        with contextlib.suppress(OSError):
            filler.write_bytes(bytes(1 << 20))
        with filler.open("r+b") as file:
            file.truncate(filler.stat().st_size - (60 << 10))
        assert run(recipe, disk / "run") == 2
        error = capfd.readouterr().err
        assert error.count("\n") == 1 and "(No space left on device)" in error
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert run(recipe, disk / "run") == 2
        error = capfd.readouterr().err
        assert error.count("\n") == 1 and "(Read-only file system)" in error
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        filler.unlink()
        assert run(recipe, disk / "run") == 0
        assert same_state(model_of(disk / "run"), model_of(whole))


@pytest.mark.parametrize("inside", ["run", "run/00-original"])
def test_a_file_in_the_place_of_a_folder_is_one_line(
    inside: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, TEXT)
    blocked = tmp_path / inside
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_text("in the way")
    assert run(recipe, tmp_path / "run") == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and str(blocked) in error


def test_a_second_command_on_a_folder_fails_at_once_and_names_the_first(
    undisturbed: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe, _ = undisturbed
    out = tmp_path / "run"
    first = start(recipe, out)
    wait_for(out / "00-original", first)
    os.kill(first.pid, 19)  # SIGSTOP: it cannot finish meanwhile
    try:
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        assert run(recipe, out) == 2
        error = capfd.readouterr().err
        assert error.count("\n") == 1
        assert f"{out}: process {first.pid} (" in error and "works in it" in error
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    finally:
        first.kill()
        first.join()
    with locking.hold(out):
        pass


def test_a_folder_is_free_after_an_error_inside(tmp_path: Path) -> None:
    with pytest.raises(CocError, match="inside"), locking.hold(tmp_path):
        raise CocError("inside")
    with locking.hold(tmp_path), pytest.raises(CocError, match=f"process {os.getpid()}"):
        locking._lock(tmp_path)
    files.write_bytes(tmp_path / "other", b"")
