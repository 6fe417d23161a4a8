"""Several processes that torchrun starts train one network together."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from coc_deploy.cli import main
from tiny import same_state, write_recipe

RECIPE = """\
chain = "QE"
batch = 64
[original]
model = "resnet8"
width = 8
epochs = 6
[q]
bits = "4x8"
epochs = 2
folded_epochs = 0
[e]
positions = [0.5]
head_channels = 8
epochs = 1
"""

FIT = """\
import sys
from pathlib import Path
import torch
from coc_deploy import machine, train
from coc_runtime.errors import CocError
from tiny import digits, float_network

folder = Path(sys.argv[1])
network = float_network(steps=20)
frozen = lambda epoch: bool(network.eval()) and False
learning = lambda epoch: bool(network.train()) and False
rank = machine.fabric().global_rank
print("rank", rank)
for name, prepare in (("frozen", frozen), ("learning", learning)):
    (folder / name).mkdir(exist_ok=True)
    work = train.Job(
        name, "key", network, list(network.parameters()),
        lambda x, y: train.cross_entropy(network(x), y), prepare, train.Schedule(1, 0.02, 60), 1,
        folder / name, digits("train"), digits("held-out"), train.Augment(1, False),
    )
    log = train.fit(work)
    torch.save({"state": network.state_dict(), "log": log}, folder / f"{name}{rank}.pt")

def fail():
    raise CocError("disk full")

try:
    machine.once(fail)
except CocError as error:
    (folder / f"error{rank}").write_text(str(error))
"""
"""One epoch with batch-norm at rest, one with batch-norm learning; then an error of the first process."""


def python(processes: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python in so many processes, one of them without torchrun."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), *command],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""},
    )


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders of what FIT left with one and with two processes."""
    folders = {}
    for processes in (1, 2):
        folder = folders[processes] = tmp_path_factory.mktemp(f"fit{processes}")
        script = folder / "fit.py"
        script.write_text(FIT)
        done = python(processes, str(script), str(folder))
        assert done.returncode == 0, done.stderr
        assert [line for line in done.stdout.splitlines() if line.startswith("rank")] == ["rank 0"]
        assert len(re.findall("epoch 1/1", done.stdout)) == 2, "the first process alone prints"
    return folders


def result(fits: dict[int, Path], processes: int, name: str, rank: int = 0) -> dict:
    return torch.load(fits[processes] / f"{name}{rank}.pt", weights_only=True)


@pytest.mark.parametrize("name", ["frozen", "learning"])
def test_all_processes_hold_the_same_network_bit_for_bit(fits: dict[int, Path], name: str) -> None:
    one, two = (result(fits, 2, name, rank) for rank in (0, 1))
    assert same_state(one["state"], two["state"])
    assert one["log"][0]["loss"] == two["log"][0]["loss"]
    assert one["log"][0]["calibration_accuracy"] == two["log"][0]["calibration_accuracy"]


def test_two_processes_compute_the_steps_of_one(fits: dict[int, Path]) -> None:
    """Up to rounding, and where batch-norm does not look at the batch."""
    one, two = (result(fits, processes, "frozen") for processes in (1, 2))
    assert one["log"][0]["loss"] == pytest.approx(two["log"][0]["loss"], rel=1e-4)
    for key, tensor in one["state"].items():
        torch.testing.assert_close(tensor, two["state"][key], rtol=1e-3, atol=1e-4)


def test_running_statistics_are_those_of_all_processes(fits: dict[int, Path]) -> None:
    one, two = (result(fits, processes, "learning") for processes in (1, 2))
    assert one["log"][0]["loss"] == pytest.approx(two["log"][0]["loss"], rel=0.2)
    mean = "body.bn1.running_mean"
    mean = mean if mean in one["state"] else next(k for k in one["state"] if k.endswith("running_mean"))
    torch.testing.assert_close(one["state"][mean], two["state"][mean], rtol=0.1, atol=0.02)


def test_an_error_of_the_first_process_is_raised_in_all(fits: dict[int, Path]) -> None:
    assert [(fits[2] / f"error{rank}").read_text() for rank in (0, 1)] == ["disk full"] * 2


def test_coc_compress_with_two_processes_is_as_accurate_as_with_one(tmp_path: Path) -> None:
    recipe, one, two = write_recipe(tmp_path, RECIPE), tmp_path / "one", tmp_path / "two"
    assert main([str(recipe), "--out", str(one), "--threads", "1"]) == 0
    done = python(2, "-m", "coc_deploy.cli", str(recipe), "--out", str(two))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote") == 1
    assert sorted(path.relative_to(one) for path in one.rglob("*")) == sorted(
        path.relative_to(two) for path in two.rglob("*")
    )
    for a, b in zip(*(json.loads((run / "history.json").read_text()) for run in (one, two)), strict=True):
        assert a["stage"] == b["stage"] and a["macs"] == b["macs"]
        # 500 test images: two runs of other seeds differ by one or two points.
        assert b["accuracy"] == pytest.approx(a["accuracy"], abs=3)
