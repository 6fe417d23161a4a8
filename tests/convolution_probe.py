"""Run by test_guarded_convolutions in a process of its own: trains every narrow convolution once.

Prints the channels before each network, so that the last line tells which one a crash is of.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from coc_deploy.calibration import calibrate
from coc_deploy.dequantize import dequantized
from coc_deploy.network import Network, to_input
from coc_deploy.qat import QConv
from coc_deploy.quantizers import QuantSpec
from coc_deploy.train import cross_entropy

SIZE, BATCH = 64, 2
"""Smaller ones leave AVX-512's kernel inside its buffer."""

Shape = tuple[int, int, int, int]
"""kernel, stride, padding, groups"""
PLAIN: list[Shape] = [(1, 1, 0, 1), (1, 2, 0, 1), (3, 1, 1, 1), (3, 2, 1, 1)]
OTHERS: list[Shape] = [(1, 2, 0, 4), (1, 2, 0, 2), (1, 2, 1, 1), (1, 3, 0, 1), (2, 2, 0, 1)]


class Branches(nn.Module):
    """A user's module: convolutions of all these shapes on the same narrow image."""

    def __init__(self, channels: int, shapes: list[Shape]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, 8, kernel, stride, padding, groups=groups)
            for kernel, stride, padding, groups in shapes
        )
        self.fc = nn.Linear(8 * len(shapes), 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        features = [functional.relu(branch(x)).mean((2, 3)) for branch in self.branches]
        return self.fc(torch.cat(features, 1))


def gradients(network: Network, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    network.train()
    network.zero_grad()
    cross_entropy(network(x), y).backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def compare(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Within float32's noise."""
    assert found.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name].double(), gradient, rtol=0, atol=1e-4 * largest, msg=str(name))


def check_float(network: Network, x: Tensor, y: Tensor) -> None:
    """Gradients against those in float64 and contiguous memory, which oneDNN has no part in."""
    wide = copy.deepcopy(network).to(memory_format=torch.contiguous_format).double()
    compare(gradients(network, x, y), gradients(wide, x.contiguous().double(), y))


def check_unit(unit: QConv) -> None:
    """The convolution of a quantized unit alone, since rounding would not be the same in float64."""
    channels = unit.weight.shape[1] * unit.groups
    inputs = torch.randn(BATCH, channels, SIZE, SIZE).to(memory_format=torch.channels_last).requires_grad_()
    output = unit.convolve(inputs, unit.weight)
    direction = torch.randn_like(output)
    found = torch.autograd.grad(output, (inputs, unit.weight), direction)
    wide = [t.detach().contiguous().double().requires_grad_() for t in (inputs, unit.weight)]
    expected = functional.conv2d(*wide, None, unit.stride, unit.pads[:2], 1, unit.groups)
    wanted = torch.autograd.grad(expected, wide, direction.contiguous().double())
    compare(dict(zip("xw", found, strict=True)), dict(zip("xw", wanted, strict=True)))


def train_once(channels: int, shapes: list[Shape]) -> None:
    network = Network.of(Branches(channels, shapes), (1, SIZE, SIZE), 10)
    network.to(memory_format=torch.channels_last)
    x = to_input(torch.randint(0, 256, (BATCH, 1, SIZE, SIZE), dtype=torch.uint8))
    y = torch.arange(BATCH)
    check_float(network, x, y)
    network.quantize(QuantSpec(4, 8, 8))
    calibrate(network, [x])
    gradients(network, x, y)
    for unit in network.body.modules():
        if isinstance(unit, QConv):
            check_unit(unit)
    check_float(dequantized(network), x, y)


def main() -> None:
    torch.set_num_threads(2)  # AVX-512's kernel writes beyond its buffer from the second thread on
    torch.manual_seed(0)
    for channels in range(1, 25):
        print(f"{channels} channels", flush=True)
        train_once(channels, PLAIN)
    for channels in (4, 12):
        print(f"{channels} channels, other shapes", flush=True)
        train_once(channels, OTHERS)
    print("done")


if __name__ == "__main__":
    main()
