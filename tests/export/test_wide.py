"""Layers whose sums pass what float32 holds: the same integers from every back end."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from coc_deploy.network import Network
from coc_export.onnx.writer import write_onnx
from coc_runtime.graph import Graph
from coc_runtime.ops import Conv, Linear
from everywhere import assert_parity
from usernets import quantize, settled


class Net(nn.Module):
    """The network of PyTorch's MNIST example, word for word: pytorch/examples, mnist/main.py."""

    def __init__(self):  # type: ignore[no-untyped-def]
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, 1)
        self.conv2 = nn.Conv2d(32, 64, 3, 1)
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):  # type: ignore[no-untyped-def]
        x = self.conv1(x)
        x = F.relu(x)
        x = self.conv2(x)
        x = F.relu(x)
        x = F.max_pool2d(x, 2)
        x = self.dropout1(x)
        x = torch.flatten(x, 1)
        x = self.fc1(x)
        x = F.relu(x)
        x = self.dropout2(x)
        x = self.fc2(x)
        output = F.log_softmax(x, dim=1)
        return output


def wide_layers(graph: Graph) -> list[str]:
    """Names of the layers whose sums pass 2**24."""
    nodes = [node for segment in graph.segments for node in segment.nodes]
    return [n.name for n in nodes if isinstance(n, Conv | Linear) and n.is_wide(graph.tensors[n.inputs[0]])]


@pytest.mark.parametrize("bits", [(8, 8), (4, 8)])
def test_the_mnist_example_of_pytorch(bits: tuple[int, int], tmp_path: Path) -> None:
    graph = assert_parity(quantize(settled(Network.of(Net(), (1, 28, 28), 10)), bits), tmp_path)
    assert "fc1" in wide_layers(graph)


class Wide(nn.Module):
    """Sums of 2,100 large positive products, in a hidden layer and in the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.hidden = nn.Conv2d(3, 2100, 1), nn.Conv2d(2100, 2100, 1)
        self.fc = nn.Linear(2100, 10)
        for layer in (self.stem, self.hidden, self.fc):
            nn.init.uniform_(layer.weight, 0.6, 0.99)
        nn.init.constant_(self.stem.bias, 1.5)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.hidden(self.stem(x).relu()).relu().mean((2, 3)))


@pytest.mark.parametrize("bits", [(8, 8), (4, 8)])
def test_sums_that_float32_rounds(bits: tuple[int, int], tmp_path: Path) -> None:
    graph = assert_parity(quantize(Network.of(Wide(), (3, 2, 2), 10), bits), tmp_path)
    assert wide_layers(graph) == (["hidden", "fc"] if bits[0] == 8 else ["fc"])
    types = {node.op_type for node in write_onnx(graph).graph.node}
    assert ("QLinearConv" in types) == (bits[0] == 8)
    assert "MatMulInteger" in types and "Gemm" not in types
    (fc,) = (n for segment in graph.segments for n in segment.nodes if isinstance(n, Linear))
    assert np.abs(fc.weight.integers).sum(axis=1).max() * 128 > 1 << 24
