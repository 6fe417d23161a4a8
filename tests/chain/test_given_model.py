"""A chain that starts from another run's model.pt: taken as it is, ratios relative to the first original."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from coc_deploy import checkpoint
from coc_deploy.cli import main
from coc_deploy.network import exit_logits
from conftest import TinyRun
from tiny import digits, same_state, write_recipe

RECIPE = """\
chain = "E"
batch = 256
[original]
checkpoint = "model.pt"
[e]
positions = [0.4, 0.7]
head = "linear"
epochs = 1
max_drop = 5
"""


@pytest.fixture(scope="module")
def with_exits(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exits on the quantized model of the fixture's run."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "model.pt").write_bytes((tiny_run.out / "03-quantize/model.pt").read_bytes())
    assert main([str(write_recipe(folder, RECIPE)), "--out", str(folder / "run"), "--threads", "1"]) == 0
    return folder


def test_exits_are_added_and_the_body_is_left_as_it_was(with_exits: Path, tiny_run: TinyRun) -> None:
    before = torch.load(tiny_run.out / "03-quantize/model.pt", weights_only=True)["state"]
    after = torch.load(with_exits / "run/model.pt", weights_only=True)["state"]
    assert same_state(before, {name: value for name, value in after.items() if name in before})
    networks = [checkpoint.load(path / "model.pt").network for path in (with_exits, with_exits / "run")]
    images = digits("test").images
    last = [exit_logits(network, images)[-1] for network in networks]
    np.testing.assert_array_equal(*last)
    assert networks[1].exits is not None and len(networks[1].thresholds) == 2


def test_chain_and_ratios_go_on_from_the_models_own(with_exits: Path, tiny_run: TinyRun) -> None:
    result = checkpoint.load(with_exits / "run/model.pt")
    earlier = checkpoint.load(with_exits / "model.pt")
    assert result.meta["chain"] == "DPQE" and earlier.meta["chain"] == "DPQ"
    for key in ("original_bitops", "original_bits"):
        assert result.meta[key] == earlier.meta[key]
    original, exit_ = result.history
    for key in ("accuracy", "bitops_cr", "cr", "macs"):
        assert original[key] == pytest.approx(earlier.history[-1][key])
    assert original["epochs"] == [] and exit_["bitops_cr"] > 100
    report = (with_exits / "run/report.md").read_text()
    assert "# E on digits" in report


def test_the_models_content_is_part_of_the_key(
    with_exits: Path, tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(with_exits / "recipe.toml"), "--out", str(with_exits / "run"), "--threads", "1"]
    assert main(command) == 0
    other = tiny_run.out / "02-prune/model.pt"
    assert main([*command, "--set", f"original.checkpoint={other}"]) == 2
    assert "holds the result of another recipe" in capsys.readouterr().err


def test_any_other_stage_can_follow(with_exits: Path, tmp_path: Path) -> None:
    """A student inherits bits and exits that this recipe's chain does not speak of."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'chain = "PD"\nbatch = 512\n[original]\ncheckpoint = "{with_exits / "run/model.pt"}"\n'
        '[p]\nepochs = 1\nratio = 0.5\nround_to = 2\n[d]\nmodel = "resnet8"\nwidth = 8\nepochs = 1\n'
    )
    assert main([str(recipe), "--out", str(tmp_path / "run"), "--threads", "1"]) == 0
    result = checkpoint.load(tmp_path / "run/model.pt")
    assert result.meta["chain"] == "DPQEPD" and len(result.network.thresholds) == 2
    assert result.network.quant == checkpoint.load(with_exits / "run/model.pt").network.quant
    assert [r["stage"] for r in json.loads((tmp_path / "run/history.json").read_text())][0] == "original"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["original.checkpoint=run/model.pt"], "the network has exits already"),
        (["original.checkpoint=none.pt"], "none.pt: no such file"),
        (["original.checkpoint=recipe.toml"], "recipe.toml: not a coc-deploy model"),
    ],
)
def test_what_cannot_work_is_refused(
    changes: list[str],
    words: str,
    with_exits: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [part for change in changes for part in ("--set", change)]
    assert main([str(with_exits / "recipe.toml"), "--out", str(tmp_path / "run"), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_model_of_other_images_is_refused(
    with_exits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = checkpoint.load(with_exits / "model.pt")
    loaded.network.image_size = (12, 12)
    checkpoint.save(tmp_path / "other.pt", dataclasses.replace(loaded, images=None))
    options = ["--out", str(tmp_path / "run"), "--set", f"original.checkpoint={tmp_path / 'other.pt'}"]
    assert main([str(with_exits / "recipe.toml"), *options]) == 2
    assert "takes images of [1, 12, 12] in 10 classes, the data have [1, 8, 8]" in capsys.readouterr().err
