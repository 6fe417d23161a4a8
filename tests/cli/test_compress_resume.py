"""coc-compress killed by SIGKILL in the middle of stages and started again ends with the same model."""

import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from coc_deploy.cli import main
from tiny import same_state, write_recipe

TEXT = """\
chain = "DQ"
batch = 64
[original]
model = "resnet8"
width = 4
epochs = 1
[d]
model = "resnet8"
width = 4
epochs = 4
[q]
epochs = 4
folded_epochs = 2
"""
PATIENCE = 300


def kill_when_it_appears(command: list[str], progress: Path) -> None:
    """SIGKILL the command as soon as the file is there."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + PATIENCE
        while not progress.exists():
            assert process.poll() is None, f"ended before {progress} appeared"
            assert time.monotonic() < end
            time.sleep(0.002)
    finally:
        process.kill()
        process.wait()


def test_sigkill_in_two_stages_and_a_restart_give_the_undisturbed_model(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, TEXT)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([str(recipe), "--out", str(whole), "--threads", "1"]) == 0
    script = Path(sys.executable).with_name("coc-compress")
    command = [sys.executable, str(script), str(recipe), "--out", str(parts), "--threads", "1"]
    for stage in ("01-distill", "02-quantize"):
        kill_when_it_appears(command, parts / stage / "progress.pt")
        assert not (parts / stage / "result.json").exists(), "killed too late to show anything"
        assert not (parts / "model.pt").exists()
    assert main(command[2:]) == 0
    a, b = (torch.load(run / "model.pt", weights_only=True) for run in (whole, parts))
    assert same_state(a["state"], b["state"])
    epochs = [[r["epochs"] for r in json.loads((run / "history.json").read_text())] for run in (whole, parts)]
    assert [len(e) for e in epochs[0]] == [len(e) for e in epochs[1]] == [1, 4, 4]
