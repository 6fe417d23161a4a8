"""No training runs oneDNN's strided 1x1 convolution, whose backward pass writes beyond its buffer."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as f

from coc_deploy import convolution
from coc_deploy.convolution import convolve, guarded
from coc_deploy.counting import segment_layers
from coc_deploy.dequantize import dequantized
from coc_deploy.models import Architecture
from coc_deploy.models.narrow import narrowed
from coc_deploy.network import Network
from coc_deploy.sections import Prune
from coc_deploy.stages.prune import pruned
from coc_deploy.state import frozen
from coc_export.onnx.float_network import write_float
from tiny import float_network, quantized_network

TESTS = Path(__file__).parents[1]
LEVELS = (None, "AVX2")
"""Of instructions that oneDNN may use: all that the CPU has, or those of older ones."""


@pytest.mark.parametrize("level", LEVELS)
def test_narrow_convolutions_train_without_a_write_beyond_any_buffer(level: str | None) -> None:
    """Under glibc's checks of the heap, with the gradients of float64."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
        "LD_PRELOAD": "libc_malloc_debug.so.0",
        "GLIBC_TUNABLES": "glibc.malloc.check=3",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    if level is not None:
        environment["ONEDNN_MAX_CPU_ISA"] = level
    probe = [sys.executable, "-W", "ignore", str(TESTS / "convolution_probe.py")]
    done = subprocess.run(probe, capture_output=True, text=True, env=environment, timeout=900)
    lines = done.stdout.splitlines()
    assert (done.returncode, lines[-1:]) == (0, ["done"]), (done.returncode, lines[-2:], done.stderr[-500:])


def strided_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of 1x1 weights that reach torch with a stride, from now on."""
    found = []
    original = f.conv2d

    def conv2d(x, weight, bias=None, stride=1, *others):  # type: ignore[no-untyped-def]
        if weight.shape[2:] == (1, 1) and stride not in (1, (1, 1)):
            found.append(tuple(weight.shape))
        return original(x, weight, bias, stride, *others)

    monkeypatch.setattr(f, "conv2d", conv2d)
    return found


def test_no_network_of_the_chain_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The zoo's, a user's, what stages make of them, teachers; both ways through a quantized unit."""
    floats = float_network(width=8, seed=1)
    users = Network.of(
        nn.Sequential(nn.Conv2d(1, 3, 1, 2, 1), nn.Flatten(), nn.Linear(75, 10)), (1, 8, 8), 10
    )
    quantized = quantized_network((4, 8), head="conv")
    networks = [floats, users, pruned(floats, Prune(ratio=0.5, round_to=1)), narrowed(floats, 0.5)]
    networks += [quantized, dequantized(quantized), frozen(floats), frozen(quantized)]
    found = strided_calls(monkeypatch)
    for network in networks:
        assert guarded(network)
        for training in (True, False):
            network.train(training)
            network(torch.randn(2, 1, 8, 8).to(memory_format=torch.channels_last))
    assert found == []
    f.conv2d(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 1, 1), None, (2, 2))
    assert found == [(1, 2, 1, 1)]


def test_a_network_with_another_convolution_is_not_guarded() -> None:
    network = float_network()
    network.heads.append(nn.Conv2d(1, 1, 1))
    assert not guarded(network)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "groups"),
    [(1, 2, 0, 1), (1, 2, 1, 1), (1, 3, 2, 2), (1, 2, 0, 6), (3, 2, 1, 1), (1, 1, 0, 1)],
)
def test_results_are_those_of_torch(kernel: int, stride: int, padding: int, groups: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randint(-9, 10, shape, generator=generator).double()
        for shape in ((2, 6, 9, 8), (12, 6 // groups, kernel, kernel), (12,))
    )
    expected = f.conv2d(x, weight, bias, stride, padding, 1, groups)
    found = convolve(x, weight, bias, (stride, stride), (padding, padding), groups)
    assert torch.equal(found, expected)


def test_layers_and_costs_are_still_those_of_strided_convolutions() -> None:
    network = Network(Architecture("resnet8", 16, "B", 3, 10), (32, 32))
    strides: list[list[int]] = [
        list(attribute.ints)
        for node in write_float(network).graph.node
        for attribute in node.attribute
        if node.op_type == "Conv" and attribute.name == "strides"
    ]
    assert strides.count([2, 2]) == 4
    macs = {layer.name: layer.macs for layer in segment_layers(network)[0]}
    assert macs["layer2.0.downsample.0"] == 16 * 32 * 16 * 16


def test_batch_norm_is_folded_into_guarded_convolutions() -> None:
    network = float_network(width=8, steps=2)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
    body = copy.deepcopy(network.body)
    convolution.fold_batch_norm(body)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in body.modules()) and guarded(body)
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(body(x)[-1], network.body(x)[-1], rtol=1e-4, atol=1e-4)
