"""Every family of the zoo and users' networks: the same integers from every back end, pruned or not."""

import itertools
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from coc_deploy.calibration import calibrate_heads
from coc_deploy.channels import remove_channels
from coc_deploy.dequantize import dequantized
from coc_deploy.network import ExitSpec, Network, to_input
from coc_export.onnx.float_network import write_float
from coc_runtime.graph import Graph
from coc_runtime.ops import (
    AdaptiveAveragePool,
    AveragePool,
    Concat,
    Conv,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    PixelAveragePool,
)
from everywhere import assert_parity, exported
from usernets import FIXED, USER, ZOO, images, network, quantize, settled

BITS = [(1, 8), (4, 8), (8, 8), (1, 4)]


@pytest.mark.parametrize(("name", "bits"), list(itertools.product([*USER, *FIXED, *ZOO], BITS)))
def test_every_back_end_computes_the_same(name: str, bits: tuple[int, int], tmp_path: Path) -> None:
    assert_parity(quantize(network(name), bits), tmp_path)


@pytest.mark.parametrize(
    ("name", "ratio"), [(name, 0.55) for name in [*USER, *ZOO]] + [("lenet", 0.9), ("blocks", 0.15)]
)
def test_pruned_to_irregular_channels_they_still_do(name: str, ratio: float, tmp_path: Path) -> None:
    pruned = network(name, seed=1)
    remove_channels(pruned, ratio)
    counts = {m.out_channels for m in pruned.body.modules() if isinstance(m, nn.Conv2d)}
    assert any(count % 2 for count in counts)
    assert_parity(quantize(settled(pruned), (4, 8)), tmp_path)


@pytest.mark.parametrize(
    ("name", "positions"),
    [
        ("blocks", ("blocks.0", "blocks.1")),  # behind max-pooling
        ("lenet", ("relu",)),
        ("dense", ("stem", "relu_2")),
        ("mobilenet_v2", ("features.1", "features.2")),  # a linear bottleneck, signed
    ],
)
@pytest.mark.parametrize("head", ["conv", "linear"])
def test_exits_behind_any_module(name: str, positions: tuple[str, ...], head: str, tmp_path: Path) -> None:
    spec = ExitSpec(positions, head, 3)
    before = network(name)
    before.add_exits(spec)
    before.thresholds = (0.12,) * len(positions)
    after = quantize(network(name), (1, 8))
    after.add_exits(spec)
    after.thresholds = (0.12,) * len(positions)
    calibrate_heads(after, [to_input(images(after.input_shape, 24, 3))])
    for quantized in (quantize(settled(before), (1, 8)), after):
        assert len(assert_parity(quantized, tmp_path).segments) == 1 + len(positions)


def test_layers_too_wide_for_eight_bits_are_exact_too(tmp_path: Path) -> None:
    """4,096 inputs of a convolution and 8,000 of the linear layer: coarser steps instead of a refusal."""
    torch.manual_seed(0)
    wide = nn.Sequential(
        *(nn.Conv2d(3, 256, 1), nn.ReLU(), nn.Conv2d(256, 320, 4), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(320 * 25, 10)),
    )
    found = settled(Network.of(wide, (3, 8, 8), 10))
    assert_parity(quantize(found, (8, 8)), tmp_path)


@pytest.mark.parametrize("bits", BITS)
def test_dilated_convolutions(bits: tuple[int, int], tmp_path: Path) -> None:
    """Whole, grouped, depthwise, of one row, behind a stride; and back to float modules."""
    torch.manual_seed(0)
    layers = (
        *(nn.Conv2d(3, 8, 3, padding=2, dilation=2), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, padding=3, dilation=3, groups=8), nn.ReLU()),
        *(nn.Conv2d(8, 8, (1, 3), padding=(0, 2), dilation=(7, 2), groups=2), nn.ReLU()),
        *(nn.Conv2d(8, 6, 3, 2, padding="valid", dilation=(1, 2)), nn.ReLU()),
    )
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))
    found = settled(Network.of(net, (3, 12, 11), 10))
    quantized = quantize(found, bits)
    graph = assert_parity(quantized, tmp_path)
    dilations = [node.dilation for node in graph.segments[0].nodes if isinstance(node, Conv)]
    assert dilations == [2, 3, (1, 2), (1, 2)]
    back = [m.dilation for m in dequantized(quantized).body.modules() if isinstance(m, nn.Conv2d)]
    assert back == [(2, 2), (3, 3), (1, 2), (1, 2)]


@pytest.mark.parametrize("behind", [nn.MaxPool2d(2, 1), nn.MaxPool2d(3, 2, 1), nn.ReLU()])
def test_padding_of_signed_numbers_is_a_layer(behind: nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(0)
    padded = (nn.Conv2d(3, 7, 3), nn.ZeroPad2d((0, 1, 2, 3)), behind, nn.Conv2d(7, 5, 3), nn.ReLU())
    net = nn.Sequential(*padded, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 10))
    found = settled(Network.of(net, (3, 10, 8), 10))
    assert kinds(assert_parity(quantize(found, (4, 8)), tmp_path))[:2] == ["Conv", "Conv"]


def kinds(graph: Graph) -> list[str]:
    return [type(node).__name__ for segment in graph.segments for node in segment.nodes]


def test_hidden_linear_layers_become_convolutions(tmp_path: Path) -> None:
    _, graph = exported(quantize(network("lenet"), (4, 8)), tmp_path)
    nodes = {node.name: node for node in graph.segments[0].nodes}
    first, second = nodes["fc1"], nodes["fc2"]
    assert isinstance(first, Conv) and first.weight.codes.shape == (24, 13, 7, 7)
    assert isinstance(second, Conv) and second.weight.codes.shape == (16, 24, 1, 1)
    assert kinds(graph) == [
        *("Conv", "MaxPool", "Conv", "AveragePool", "Conv", "Conv", "Flatten", "Linear"),
    ]
    assert nodes["conv1"].weight.bits == 8 and second.weight.bits == 4  # type: ignore[union-attr]


def test_padding_on_two_sides_is_part_of_the_convolution(tmp_path: Path) -> None:
    _, graph = exported(quantize(network("resnet8_mlperf"), (4, 8)), tmp_path)
    pads = {node.name: node.pads for node in graph.segments[0].nodes if isinstance(node, Conv)}
    assert pads["conv3"] == pads["conv6"] == (0, 0, 1, 1) and pads["conv5"] == (0, 0, 0, 0)
    assert "Pad" not in " ".join(kinds(graph))


def test_concatenations_are_chained_and_keep_the_codes_joined_before(tmp_path: Path) -> None:
    _, graph = exported(quantize(network("dense"), (4, 8)), tmp_path)
    joins = [node for node in graph.segments[0].nodes if isinstance(node, Concat)]
    assert [node.name for node in joins] == ["cat", "cat_1", "cat_2.1", "cat_2.2", "cat_2"]
    types = [graph.tensors[node.output] for node in joins[2:]]
    assert len({(t.bits, t.zero_point, t.exponent) for t in types}) == 1


def test_pools_keep_their_windows(tmp_path: Path) -> None:
    _, graph = exported(quantize(network("dense"), (4, 8)), tmp_path)
    pools = [n for n in graph.segments[0].nodes if isinstance(n, MaxPool | AveragePool)]
    assert (pools[0].kernel, pools[0].stride, pools[0].pads) == ((3, 3), 2, (0, 0, 0, 0))
    assert {p.kernel for p in pools[1:]} >= {(2, 2)}
    assert isinstance(graph.segments[0].nodes[-2], GlobalAveragePool)
    _, graph = exported(quantize(network("plain"), (4, 8)), tmp_path)
    (pool, mean) = [n for n in graph.segments[0].nodes if isinstance(n, AveragePool)]
    assert (pool.kernel, pool.stride, pool.pads) == ((3, 3), 2, (1, 1, 1, 1))
    assert mean.kernel == (12, 10) and isinstance(graph.segments[0].nodes[-2], Flatten)


def test_operands_of_an_addition_never_lie_too_far_apart(tmp_path: Path) -> None:
    """A branch whose values are tiny beside the other's."""
    unequal = network("plain")
    with torch.no_grad():
        unequal.body.get_submodule("conv3").weight.mul_(1e-6)  # type: ignore[operator, union-attr]
        unequal.body.get_submodule("conv3").bias.mul_(1e-6)  # type: ignore[operator, union-attr]
    assert_parity(quantize(unequal, (4, 8)), tmp_path)


class _Pooled(nn.Module):
    """A pool between two convolutions, behind zero padding on two sides."""

    def __init__(self, pool: nn.Module, relu: bool) -> None:
        super().__init__()
        self.conv, self.pad, self.pool = nn.Conv2d(3, 5, 3), nn.ZeroPad2d((0, 1, 2, 0)), pool
        self.relu = nn.ReLU() if relu else nn.Identity()
        self.behind, self.fc = nn.Conv2d(5, 6, 1), nn.Linear(6, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.pad(self.relu(self.conv(x))))
        return self.fc(self.behind(x).mean((2, 3)))


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(
    "pool",
    [
        nn.AdaptiveAvgPool2d((7, 5)),
        nn.AdaptiveAvgPool2d((30, 17)),
        nn.AdaptiveAvgPool2d((1, 4)),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d((2, 3), 3, ceil_mode=True),
        nn.AvgPool2d((5, 3), (2, 3), (2, 1), ceil_mode=True, count_include_pad=False),
        nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False),
    ],
)
def test_pools_whose_windows_differ(pool: nn.Module, relu: bool, tmp_path: Path) -> None:
    shape = (3, 14, 12)
    given = settled(Network.of(_Pooled(pool, relu), shape, 10))
    some = to_input(images(shape, 4))
    with torch.no_grad():
        expected = given.eval()(some)[0]
    quantized = quantize(given, (8, 8))
    graph = assert_parity(quantized, tmp_path)
    assert any(isinstance(n, PixelAveragePool | AdaptiveAveragePool) for s in graph.segments for n in s.nodes)
    again = dequantized(quantized)
    with torch.no_grad():
        found = again.eval()(some)[0]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    written = onnxruntime.InferenceSession(write_float(again).SerializeToString())
    (logits,) = written.run(None, {"image": images(shape, 4)})
    np.testing.assert_allclose(logits, found.numpy(), rtol=1e-3, atol=1e-3)
