"""A network under compression: a traced body, exit heads, and how far it is quantized."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from coc_runtime.errors import CocError

from . import models, qat
from .models import Architecture, ShortcutA
from .qat import ActQuant, Mode
from .rewriting import QuantSpec, quantize_graph

HEAD_KINDS = ("conv", "linear")


@dataclass(frozen=True)
class ExitSpec:
    """Where the heads sit (names of modules of the body) and what they are."""

    positions: tuple[str, ...]
    head: str
    head_channels: int


class Head(nn.Module):
    """An exit: [3x3 convolution with stride 2, batch-norm, ReLU,] global average pooling, linear layer."""

    def __init__(self, channels: int, classes: int, kind: str, head_channels: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "conv":
            self.conv = nn.Conv2d(channels, head_channels, 3, 2, 1, bias=False)
            self.bn = nn.BatchNorm2d(head_channels)
            self.relu = nn.ReLU()
            channels = head_channels
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "conv":
            x = self.relu(self.bn(self.conv(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class _Tracer(fx.Tracer):
    """Notes which node each module's output comes from, so that exits can be placed by module name."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[str, str] = {}

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, ShortcutA) or super().is_leaf_module(module, name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        result = super().call_module(m, forward, args, kwargs)
        if isinstance(result, fx.Proxy):
            self.outputs[self.path_of_module(m)] = result.node.name
        return result


def trace(module: nn.Module) -> tuple[fx.GraphModule, dict[str, str]]:
    """The module as a graph, and the node that each of its submodules ends with."""
    tracer = _Tracer()
    graph = tracer.trace(module)
    return fx.GraphModule(tracer.root, graph), tracer.outputs


class Network(nn.Module):
    """forward: float32 [N, C, H, W] of (pixel - 128) / 128 -> list of logits [N, classes], last exit last."""

    def __init__(self, arch: Architecture, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.arch = arch
        self.image_size = image_size
        model = models.build(arch)
        self._blocks = {n for n, m in model.named_modules() if isinstance(m, models.BasicBlock)}
        self.body, self.positions = trace(model)
        self.heads = nn.ModuleList()
        self.exits: ExitSpec | None = None
        self.quant: QuantSpec | None = None
        self.thresholds: tuple[float, ...] = ()
        self.image = qat.image_quant()
        _return_tuple(self.body, [])

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
        widths = self._widths(taps)
        order = [node.name for node in self.body.graph.nodes]
        if sorted(taps, key=order.index) != taps or len(set(taps)) != len(taps):
            raise CocError(f"exit positions {list(spec.positions)} must follow each other in the network")
        for tap, channels in zip(taps, widths, strict=True):
            head, _ = trace(Head(channels, self.arch.classes, spec.head, spec.head_channels))
            if self.quant is not None:
                quantize_graph(head, self.quant, self._act_of(tap), stem=False)
            self.heads.append(head)
        _return_tuple(self.body, taps)
        self.exits = spec

    def _tap(self, position: str) -> str:
        if position not in self.exit_places():
            places = ", ".join(self.exit_places())
            raise CocError(f"exit position '{position}' is not the end of a block; blocks are {places}")
        return self.positions[position]

    def exit_places(self) -> list[str]:
        """Names of blocks (modules with modules inside) behind which one image-shaped tensor goes on."""
        return [
            name
            for name, node in self.positions.items()
            if name in self._blocks and _single_cut(self.body.graph, self.node(node))
        ]

    def _widths(self, taps: list[str]) -> list[int]:
        shapes: dict[str, torch.Size] = {}

        class Recorder(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                value = super().run_node(n)
                if n.name in taps:
                    shapes[n.name] = value.shape
                return value

        with torch.no_grad(), evaluating(self):
            Recorder(self.body).run(torch.zeros(1, *self.input_shape))
        return [shapes[tap][1] for tap in taps]

    def _act_of(self, name: str) -> ActQuant:
        unit = self.body.get_submodule(str(self.node(name).target))
        return unit.act  # type: ignore[return-value]

    def quantize(self, spec: QuantSpec) -> None:
        """Replace convolutions, additions, pooling and linear layers by quantized units."""
        if self.quant is not None:
            raise CocError("the network is quantized already")
        taps = [self.positions[p] for p in self.exits.positions] if self.exits else []
        renamed = quantize_graph(self.body, spec, self.image, stem=True)
        self.positions = {name: renamed.get(node, node) for name, node in self.positions.items()}
        self.quant = spec
        for head, tap in zip(self.heads, taps, strict=True):
            assert isinstance(head, fx.GraphModule)
            quantize_graph(head, spec, self._act_of(renamed[tap]), stem=False)


@contextmanager
def evaluating(network: Network) -> Iterator[Network]:
    """Evaluation mode inside the block, integer mode where quantized; the former modes afterwards."""
    training = {module: module.training for module in network.modules()}
    modes = {unit: unit.mode for unit in network.modules() if isinstance(unit, qat.QConv | qat.QLinear)}
    network.eval()
    qat.set_mode(network, Mode.INTEGER)
    try:
        yield network
    finally:
        for module, was in training.items():
            module.training = was
        qat.set_mode(network, Mode.TRAIN)
        for unit, mode in modes.items():
            unit.set_mode(mode)


def to_input(images: np.ndarray | Tensor) -> Tensor:
    """uint8 [N, C, H, W] as the network's input, float32 (pixel - 128) / 128, channels last."""
    pixels = torch.as_tensor(images)
    return pixels.to(torch.float32, memory_format=torch.channels_last).sub_(128).div_(128)


@torch.no_grad()
def exit_logits(network: Network, images: np.ndarray, batch: int = 500) -> np.ndarray:
    """Logits of every exit on uint8 images [N, C, H, W]: float32 [exits, N, classes], in integer mode."""
    with evaluating(network):
        parts = [
            torch.stack(network(to_input(images[i : i + batch]))).numpy()
            for i in range(0, len(images), batch)
        ]
    return np.concatenate(parts, axis=1)


def _return_tuple(body: fx.GraphModule, taps: list[str]) -> None:
    """Let the body return (tap 0, tap 1, ..., logits)."""
    nodes = {node.name: node for node in body.graph.nodes}
    output = nodes["output"]
    logits = output.args[0][-1] if isinstance(output.args[0], tuple) else output.args[0]
    output.args = ((*(nodes[tap] for tap in taps), logits),)
    body.recompile()


def _single_cut(graph: fx.Graph, tap: fx.Node) -> bool:
    """True if nothing behind the node reads anything before it."""
    nodes = list(graph.nodes)
    before = set(nodes[: nodes.index(tap)])
    return not any(
        source in before
        for node in nodes[nodes.index(tap) + 1 :]
        if node.op != "output"
        for source in node.all_input_nodes
    )


def resize(network: Network, state: dict[str, Tensor]) -> None:
    """Give every layer of a float body the shape that a pruned state has for its weights."""
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
