"""MACs, BitOps and stored bits of a network, float or quantized, segment by segment."""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from coc_runtime.cost import FLOAT_BITS, LayerCost

from .frontend.modules import Scale, Shift
from .network import Network, evaluating
from .qat import QConv, QLinear


def segment_layers(network: Network) -> list[list[LayerCost]]:
    """Layers of each segment in order of execution: the body up to exit k, then the head of exit k."""
    taps = [node.name for node in network.body.graph.find_nodes(op="output")[0].args[0][:-1]]
    segments: list[list[LayerCost]] = [[]]
    values: dict[str, torch.Tensor] = {}
    with torch.no_grad(), evaluating(network):
        recorder = _Recorder(network.body, "", values)
        recorder.run(torch.zeros(1, *network.input_shape))
        for name, cost in recorder.costs:
            if cost is not None:
                segments[-1].append(cost)
            if name in taps:
                head = network.heads[len(segments) - 1]
                assert isinstance(head, fx.GraphModule)
                recorder_ = _Recorder(head, f"exit{len(segments) - 1}.", {})
                recorder_.run(values[name])
                segments[-1] += [cost for _, cost in recorder_.costs if cost is not None]
                segments.append([])
    return segments


LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
"""Float layers; what a batch-norm behind one stores is counted with it."""


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, prefix: str, values: dict[str, torch.Tensor]) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.layers = dict(module.named_modules())
        self.prefix, self.values = prefix, values
        self.costs: list[tuple[str, LayerCost | None]] = []

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.values[n.name] = result
        module = self.layers.get(str(n.target)) if n.op == "call_module" else None
        cost = None if module is None else self._cost(f"{self.prefix}{n.target}", n, module, result)
        self.costs.append((n.name, cost))
        return result

    def _cost(self, name: str, node: fx.Node, module: nn.Module, result: torch.Tensor) -> LayerCost | None:
        count = next((COSTS[kind] for kind in type(module).__mro__ if kind in COSTS), None)
        return None if count is None else count(self, name, node, module, result)

    def beside(self, node: fx.Node, module: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> int:
        """Numbers stored beside a float layer's weights: its bias and the batch-norms that read it."""
        norms = [self.layers.get(str(user.target)) for user in node.users]
        own = 0 if module.bias is None else module.bias.numel()
        kinds = nn.BatchNorm2d | nn.BatchNorm1d
        return own + sum(2 * norm.num_features for norm in norms if isinstance(norm, kinds))


def _quantized_conv(at: _Recorder, name: str, node: fx.Node, unit: QConv, result: torch.Tensor) -> LayerCost:
    weights, pixels = unit.weight.numel(), result.shape[2] * result.shape[3]
    bits = unit.sources[0].bits
    return LayerCost(name, weights * pixels, weights, unit.weight_bits, bits, 2 * result.shape[1])


def _quantized_linear(
    at: _Recorder, name: str, node: fx.Node, unit: QLinear, result: torch.Tensor
) -> LayerCost:
    weights, bits = unit.weight.numel(), unit.sources[0].bits
    return LayerCost(name, weights, weights, unit.weight_bits, bits, result.shape[1])


def _conv(at: _Recorder, name: str, node: fx.Node, conv: nn.Conv2d, result: torch.Tensor) -> LayerCost:
    weights, pixels = conv.weight.numel(), result.shape[2] * result.shape[3]
    return LayerCost(name, weights * pixels, weights, FLOAT_BITS, FLOAT_BITS, at.beside(node, conv))


def _conv_transpose(
    at: _Recorder, name: str, node: fx.Node, conv: nn.ConvTranspose2d, result: torch.Tensor
) -> LayerCost:
    """Every weight is multiplied with every pixel that comes in."""
    source = at.values[node.all_input_nodes[0].name]
    weights, pixels = conv.weight.numel(), source.shape[2] * source.shape[3]
    return LayerCost(name, weights * pixels, weights, FLOAT_BITS, FLOAT_BITS, at.beside(node, conv))


def _constant(
    at: _Recorder, name: str, node: fx.Node, module: nn.PReLU | Scale | Shift, result: torch.Tensor
) -> LayerCost:
    """Slopes and constants are stored, but cost nothing."""
    own = module.weight.numel() if isinstance(module, nn.PReLU) else module.constant.numel()
    return LayerCost(name, 0, 0, FLOAT_BITS, FLOAT_BITS, own)


def _linear(at: _Recorder, name: str, node: fx.Node, linear: nn.Linear, result: torch.Tensor) -> LayerCost:
    weights = linear.weight.numel()
    return LayerCost(name, weights, weights, FLOAT_BITS, FLOAT_BITS, at.beside(node, linear))


def _norm(
    at: _Recorder, name: str, node: fx.Node, norm: nn.BatchNorm2d | nn.BatchNorm1d, result: torch.Tensor
) -> LayerCost | None:
    """Batch-norm on its own is stored, but costs nothing; behind a layer it is stored with that."""
    before = at.layers.get(str(node.all_input_nodes[0].target))
    if isinstance(before, LAYERS):
        return None
    return LayerCost(name, 0, 0, FLOAT_BITS, FLOAT_BITS, 2 * norm.num_features)


COSTS: dict[type, Callable[[_Recorder, str, fx.Node, Any, torch.Tensor], LayerCost | None]] = {
    QConv: _quantized_conv,
    QLinear: _quantized_linear,
    nn.Conv2d: _conv,
    nn.ConvTranspose2d: _conv_transpose,
    nn.Linear: _linear,
    nn.BatchNorm2d: _norm,
    nn.BatchNorm1d: _norm,
    nn.PReLU: _constant,
    Scale: _constant,
    Shift: _constant,
}
"""What a module costs, by its class; other modules cost nothing."""


def cumulative_share(network: Network) -> dict[str, float]:
    """The share of BitOps spent before every place where an exit may sit."""
    with torch.no_grad(), evaluating(network):
        recorder = _Recorder(network.body, "", {})
        recorder.run(torch.zeros(1, *network.input_shape))
    spent, total = {}, 0
    for name, cost in recorder.costs:
        total += cost.bitops if cost else 0
        spent[name] = total
    return {place: spent[network.positions[place]] / total for place in network.exit_places()}
