"""A network under compression: a traced body, exit heads, and how far it is quantized."""

import copy
import dataclasses
import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from coc_runtime import batches, datasets
from coc_runtime.errors import CocError
from coc_runtime.promise import Kept

from . import body as bodies
from . import layer_bits, models, qat
from .body import Traced
from .convolution import Conv2d
from .frontend.trace import trace_network
from .given import trace_given
from .models import Architecture
from .qat import ActQuant, Mode
from .quantizers import QuantSpec
from .restored import modes_restored
from .rewriting import quantize_graph
from .shapes import shapes

HEAD_KINDS = ("conv", "linear")
MOST_IMAGES = 500
"""A pass takes at most so many images."""


@dataclass(frozen=True)
class ExitSpec:
    """Where the heads sit (names of modules of the body) and what they are."""

    positions: tuple[str, ...]
    head: str
    head_channels: int


def make_head(channels: int, classes: int, kind: str, head_channels: int) -> fx.GraphModule:
    """An exit: [3x3 convolution with stride 2, batch-norm, ReLU,] global average pooling, linear layer."""
    layers: dict[str, nn.Module] = {}
    if kind == "conv":
        layers["conv"] = Conv2d(channels, head_channels, 3, 2, 1, bias=False)
        layers["bn"] = nn.BatchNorm2d(head_channels)
        layers["relu"] = nn.ReLU()
        channels = head_channels
    layers |= {
        "avgpool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "fc": nn.Linear(channels, classes),
    }
    graph = fx.Graph()
    node = graph.placeholder("x")
    for name in layers:
        node = graph.call_module(name, (node,))
    graph.output(node)
    return fx.GraphModule(layers, graph)


@functools.lru_cache(maxsize=64)
def _described(arch: Architecture, shape: tuple[int, int, int]) -> dict[str, Any]:
    """What tracing makes of a network of the zoo, which depends on nothing but its name and sizes."""
    with torch.random.fork_rng(devices=[]):
        return bodies.describe(trace_network(models.build(arch), shape, arch.classes))


def traced(module: nn.Module, arch: Architecture, image_size: tuple[int, int]) -> Traced:
    """The canonical form of a network that `models.build` gave, with its weights.

    Raises CocError, naming the module, where the chain does not support what the user's model does.
    """
    shape = (arch.channels, *image_size)
    if models.is_user(arch.name):
        return trace_given(module, shape, arch.classes)
    description, state = copy.deepcopy(_described(arch, shape)), module.state_dict()
    with torch.device("meta"):
        result = bodies.rebuild(description, {f"body.{name}": t for name, t in state.items()})
    result.body.load_state_dict(state, assign=True)
    result.body.requires_grad_(True)
    return result


class Network(nn.Module):
    """forward: float32 [N, C, H, W] of (pixel - 128) / 128 -> list of logits [N, classes], last exit last."""

    def __init__(self, arch: Architecture, image_size: tuple[int, int], body: Traced | None = None) -> None:
        """A freshly initialised network, or one with the given float body.

        Raises CocError, naming the module, where the chain does not support what the user's model does.
        """
        super().__init__()
        if body is None:
            arch = models.resolved(arch)
            body = traced(models.build(arch), arch, image_size)
        self.arch = dataclasses.replace(arch, name=models.display(arch.name))
        self.image_size = image_size
        self.body = body.body
        self.positions, self.places, self.cuts = dict(body.positions), body.places, body.cuts
        self.notes = body.notes
        self.heads = nn.ModuleList()
        self.exits: ExitSpec | None = None
        self.quant: QuantSpec | None = None
        self.thresholds: tuple[float, ...] = ()
        self.kept: Kept | None = None
        """what the thresholds keep, where they were chosen in this process"""
        self.image = qat.image_quant()
        self._float: dict[str, Any] | None = None
        _return_tuple(self.body, [])

    @classmethod
    def of(
        cls, module: nn.Module, shape: tuple[int, int, int], classes: int, name: str = "user"
    ) -> "Network":
        """The network that a float module computes on images of `shape`; a copy of its weights."""
        body = trace_given(module, shape, classes)
        return cls(Architecture(name, 0, "B", shape[0], classes), shape[1:], body)

    def describe(self) -> dict[str, Any]:
        """The float body as plain data (of a quantized network: as it was before)."""
        if self._float is not None:
            return self._float
        return bodies.describe(Traced(self.body, self.positions, self.places, self.cuts))

    def forward(self, x: Tensor) -> list[Tensor]:
        *taps, final = self.body(x)
        return [head(tap) for head, tap in zip(self.heads, taps, strict=True)] + [final]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return (self.arch.channels, *self.image_size)

    def node(self, name: str) -> fx.Node:
        return next(node for node in self.body.graph.nodes if node.name == name)

    def add_exits(self, spec: ExitSpec) -> None:
        """Put an untrained head behind each position; a quantized network's heads are quantized at once."""
        if self.exits is not None:
            raise CocError("the network has exits already: an exit stage happens once")
        taps = [self._tap(position) for position in spec.positions]
        order = [node.name for node in self.body.graph.nodes]
        if sorted(taps, key=order.index) != taps or len(set(taps)) != len(taps):
            raise CocError(f"exit positions {list(spec.positions)} must follow each other in the network")
        with evaluating(self):
            sizes = shapes(self.body, self.input_shape)
        for tap in taps:
            shape = sizes[tap]
            head = self._head(shape, spec)
            if self.quant is not None:
                quantize_graph(head, self.quant.for_heads, self._act_of(tap), stem=False, shape=shape)
            self.heads.append(head)
        _return_tuple(self.body, taps)
        self.exits = spec

    def _head(self, shape: tuple[int, ...], spec: ExitSpec) -> fx.GraphModule:
        return make_head(shape[0], self.arch.classes, spec.head, spec.head_channels)

    def _tap(self, position: str) -> str:
        if position not in self.cuts:
            places = ", ".join(self.exit_places())
            raise CocError(f"exit position '{position}' is not the end of a block; blocks are {places}")
        return self.positions[position]

    def exit_places(self) -> list[str]:
        """Names of blocks (activations in plain networks) behind which one image-shaped tensor goes on.

        An exit may also sit at any other module that ends with such a tensor.
        """
        return list(self.places)

    def _act_of(self, name: str) -> ActQuant:
        unit = self.body.get_submodule(str(self.node(name).target))
        return unit.act  # type: ignore[return-value]

    def quantize(self, spec: QuantSpec) -> None:
        """Replace convolutions, additions, pooling and linear layers by quantized units."""
        if self.quant is not None:
            raise CocError("the network is quantized already")
        taps = [self.positions[p] for p in self.exits.positions] if self.exits else []
        sizes = shapes(self.body, self.input_shape)
        description = self.describe()
        renamed = quantize_graph(self.body, spec, self.image, stem=True, shape=self.input_shape)
        weighted = (qat.QConv, qat.QLinear)
        layer_bits.check_used(
            spec.layers, [n for n, m in self.body.named_modules() if isinstance(m, weighted)]
        )
        self.positions = {name: renamed.get(node, node) for name, node in self.positions.items()}
        self.quant, self._float = spec, description
        for head, tap in zip(self.heads, taps, strict=True):
            assert isinstance(head, fx.GraphModule)
            act = self._act_of(renamed[tap])
            quantize_graph(head, spec.for_heads, act, stem=False, shape=sizes[tap])

    def make_float(self, positions: dict[str, str]) -> None:
        """Note that body and heads are float again; positions: the nodes that its modules now end with."""
        self.positions, self.quant, self._float = positions, None, None


@contextmanager
def evaluating(network: Network) -> Iterator[Network]:
    """Evaluation mode inside the block, integer mode where quantized; the former modes afterwards."""
    modes = [(unit, unit.mode) for unit in network.modules() if isinstance(unit, qat.UNITS)]
    with modes_restored(network):
        network.eval()
        qat.set_mode(network, Mode.INTEGER)
        try:
            yield network
        finally:
            for unit, mode in modes:
                unit.set_mode(mode)  # type: ignore[operator]


def to_input(images: np.ndarray | Tensor) -> Tensor:
    """uint8 [N, C, H, W] as the network's input, float32 (pixel - 128) / 128, channels last.

    Raises CocError for other arrays, such as floats, which may hold NaN, and masked ones.
    """
    if isinstance(images, np.ndarray):
        datasets.check_images(images, "images")
    pixels = torch.as_tensor(images)
    assert pixels.dtype == torch.uint8
    return pixels.to(torch.float32, memory_format=torch.channels_last).sub_(128).div_(128)


def parts(x: Tensor, size: int, device: torch.device) -> Iterator[Tensor]:
    """Network input in equal parts of at most `size` images."""
    return (part.to(device) for part in x.chunk(math.ceil(len(x) / size)))


def batch_size(network: Network, most: int = MOST_IMAGES) -> int:
    """How many images a pass takes at once (see `coc_runtime.batches`): `most` of small ones."""
    body = shapes(network.body, network.input_shape)
    sizes = list(body.values())
    taps = [body[network.positions[p]] for p in network.exits.positions] if network.exits else []
    for head, tap in zip(network.heads, taps, strict=True):
        assert isinstance(head, fx.GraphModule)
        sizes += shapes(head, tap).values()
    return batches.fitting(most, max(math.prod(size) for size in sizes))


@torch.no_grad()
def exit_logits(network: Network, images: np.ndarray) -> np.ndarray:
    """Logits of every exit on uint8 images [N, C, H, W]: float32 [exits, N, classes], in integer mode."""
    device = next(network.parameters()).device
    with evaluating(network):
        found = [
            torch.stack(network(to_input(part).to(device))).cpu().numpy()
            for part in batches.cut(images, batch_size(network))
        ]
    return np.concatenate(found, axis=1)


def _return_tuple(body: fx.GraphModule, taps: list[str]) -> None:
    """Let the body return (tap 0, tap 1, ..., logits)."""
    nodes = {node.name: node for node in body.graph.nodes}
    output = nodes["output"]
    logits = output.args[0][-1] if isinstance(output.args[0], tuple) else output.args[0]
    output.args = ((*(nodes[tap] for tap in taps), logits),)
    body.recompile()


def resize(network: Network, state: dict[str, Tensor]) -> None:
    """Give every layer of a ResNet's float body the shape that a pruned state has for its weights."""
    modules = dict(network.body.named_modules())
    for node in network.body.graph.nodes:
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = state[f"body.{node.target}.weight"]
            if weight.dim() != module.weight.dim() or weight.shape[2:] != module.weight.shape[2:]:
                raise CocError(f"{node.target}: weights of shape {list(weight.shape)} do not fit")
            module.weight = nn.Parameter(torch.empty_like(weight))
        if isinstance(module, nn.Conv2d):
            module.out_channels, module.in_channels = (
                module.weight.shape[0],
                module.weight.shape[1] * module.groups,
            )
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
        elif isinstance(module, nn.BatchNorm2d):
            channels = modules[str(node.args[0].target)].out_channels
            parent, _, name = str(node.target).rpartition(".")
            setattr(network.body.get_submodule(parent), name, nn.BatchNorm2d(channels, module.eps))
