"""Every order of the four stages and the repeats: each runs, exports with parity 0, costs what it should."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

from coc_deploy import checkpoint, cli, state
from coc_deploy.counting import segment_layers
from coc_deploy.network import Network, exit_logits
from coc_deploy.qat import QConv
from coc_export import cli as export
from coc_runtime import cost, promise
from coc_runtime.promise import Promise
from tiny import digits, write_recipe

ORDERS = ["".join(order) for order in itertools.permutations("DPQE")]
OTHERS = ["PP", "QQ", "DD", "PD", "QD", "ED", "QP", "EP", "EQ", "DPQED", "QEPQ"]
RECIPE = """\
batch = 512
[original]
model = "resnet8"
width = 8
epochs = 1
[d]
model = "resnet8"
width = 8
epochs = 1
[p]
ratio = 0.5
round_to = 2
epochs = 1
[q]
bits = "1x8"
epochs = 1
[q2]
bits = "4x8"
[e]
positions = [0.4, 0.7]
head_channels = 4
epochs = 1
max_drop = 20
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("orders")


def run(runs: Path, chain: str, *changes: str) -> Path:
    """A finished run of the chain, which takes over what it shares with those before."""
    out = runs / "-".join((chain, *changes))
    recipe = write_recipe(runs, RECIPE)
    options = [part for change in (f"chain={chain}", *changes) for part in ("--set", change)]
    assert (
        cli.main([str(recipe), "--out", str(out), "--threads", "1", *options, "--store", str(runs / "store")])
        == 0
    )
    return out


def widths(network: Network) -> dict[str, int]:
    """Output channels of the body's convolutions, float or quantized."""
    kinds = (nn.Conv2d, QConv)
    return {n: m.weight.shape[0] for n, m in network.body.named_modules() if isinstance(m, kinds)}


@pytest.mark.parametrize("chain", [*ORDERS, *OTHERS])
def test_every_order_runs_and_exports_with_equal_integers(chain: str, runs: Path, tmp_path: Path) -> None:
    out = run(runs, chain)
    loaded = checkpoint.load(out / "model.pt")
    network = loaded.network
    assert loaded.meta["chain"] == chain
    assert [record["stage"][0].upper() for record in loaded.history[1:]] == list(chain)
    assert (network.exits is not None) == ("E" in chain) and len(network.thresholds) == 2 * ("E" in chain)
    assert widths(network)["conv1"] == 8 // 2 ** chain.count("P"), "a student is pruned as its teacher"
    assert (network.quant and network.quant.weight_bits) == {0: None, 1: 1, 2: 4}[chain.count("Q")]
    if "Q" not in chain:
        return
    options = ["--out", str(tmp_path / "model.onnx"), "--images", "40"]
    assert export.main([str(out / "model.pt"), *options]) == 0
    parity = json.loads((tmp_path / "model.report.json").read_text())["parity"]
    assert (parity["differing_logits"], parity["flipped_exits"]) == (0, 0)
    assert len(parity["pairs"]) == 15, "torch, reference, ONNX Runtime in four ways"


def test_bitops_of_pruning_after_quantization_are_those_counted_by_hand(runs: Path) -> None:
    """ResNet-8 on 8x8 images, 4, 8 and 16 channels, 1-bit weights, stem and linear layer 8 bits, all inputs
    8 bits: the same as for quantization after pruning."""
    stem, linear = 9 * 1 * 4 * 64, 16 * 10
    layer1 = 2 * (9 * 4 * 4 * 64)
    layer2 = 9 * 4 * 8 * 16 + 9 * 8 * 8 * 16 + 4 * 8 * 16
    layer3 = 9 * 8 * 16 * 4 + 9 * 16 * 16 * 4 + 8 * 16 * 4
    assert layer1 == 18432 and layer2 == layer3 == 14336
    bitops = (layer1 + layer2 + layer3) * 1 * 8 + (stem + linear) * 8 * 8
    assert bitops == 534_528
    for chain in ("QP", "PQ"):
        record = checkpoint.load(run(runs, chain) / "model.pt").history[-1]
        assert (record["expected_bitops"], record["macs"]) == (bitops, 49_568)


def test_bitops_with_exits_that_were_pruned_and_quantized_again_are_those_counted_by_hand(runs: Path) -> None:
    """QEPQ, 4-bit weights at the end: heads of 4 channels are pruned to 2, behind layer1.0 and layer2.0."""
    first = 9 * 1 * 4 * 64 * 8 * 8 + 18_432 * 4 * 8 + 9 * 4 * 2 * 16 * 4 * 8 + 2 * 10 * 8 * 8
    second = first + 14_336 * 4 * 8 + 9 * 8 * 2 * 4 * 4 * 8 + 2 * 10 * 8 * 8
    last = second + 14_336 * 4 * 8 + 16 * 10 * 8 * 8
    assert (first, second, last) == (775_424, 1_253_888, 1_722_880)
    record = checkpoint.load(run(runs, "QEPQ") / "model.pt").history[-1]
    expected = np.dot(record["exit_share"], [first, second, last])
    assert record["expected_bitops"] == pytest.approx(expected)


def test_a_later_stage_chooses_thresholds_anew_on_the_held_out_images(runs: Path) -> None:
    network = checkpoint.load(run(runs, "EP") / "model.pt").network
    held_out = digits("held-out")
    segments = np.cumsum([cost.bitops(layers) for layers in segment_layers(network)])
    logits = exit_logits(network, held_out.images)
    found = promise.choose(logits, held_out.labels, segments.tolist(), Promise(20, 0.9))
    assert found.early and network.thresholds == found.thresholds


def test_thresholds_of_the_recipe_are_kept_by_later_stages(runs: Path) -> None:
    out = run(runs, "EQ", "e.thresholds=[0.25, 0.5]")
    history = checkpoint.load(out / "model.pt").history
    assert [record["thresholds"] for record in history] == [[], [0.25, 0.5], [0.25, 0.5]]


def test_the_time_that_later_stages_may_take_is_told(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = itertools.count(step=40)
    monkeypatch.setattr(state, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    run(runs, "PP", "p.epochs=3", "p2.epochs=6", "original.epochs=1")
    lines = [line for line in capsys.readouterr().out.splitlines() if "remain in the chain" in line]
    assert lines == ["  after prune 6 epochs remain in the chain, at most about 4 min at this pace"] * 2


def test_a_student_that_learns_from_a_quantized_network_is_a_good_one(tmp_path: Path) -> None:
    """Its ranges follow it, so that it learns from random weights."""
    longer = ["batch=64", "original.epochs=4", "q.epochs=4", "d.epochs=6"]
    record = checkpoint.load(run(tmp_path, "QD", *longer) / "model.pt").history[-1]
    assert record["accuracy"] > 70, "chance is 10 %"
