"""Any module as a graph of few kinds of nodes, and where exits may sit in it.

After `trace_network` every node is the image, a call of a module of `kinds.KINDS`, an addition, a
concatenation of channels, or the output. What cannot be brought to that form is refused by name.
"""

import inspect
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from coc_runtime.errors import CocError

from . import canonical
from .aliases import changes_its_input
from .calls import where
from .convolution import Conv2d
from .shortcuts import ShortcutA


@dataclass(frozen=True)
class Traced:
    """A float body and names in it.

    positions: module -> node that it ends with. places: names of blocks (leaf activations in plain
    networks) behind which one image goes on; cuts: all names of modules that end there.
    """

    body: fx.GraphModule
    positions: dict[str, str]
    places: tuple[str, ...]
    cuts: tuple[str, ...]


class _Proxy(fx.Proxy):
    """Records `x += y` as what it is for tensors, a change of x; torch.fx takes it for x = x + y."""

    def __iadd__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})


class _Tracer(fx.Tracer):
    """Notes which node each module's output comes from, and where it is when tracing fails."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[str, fx.Node] = {}
        self.inside = ""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Modules that compute what a class of torch.nn computes, subclasses included."""
        if isinstance(m, nn.Sequential | nn.ModuleList | nn.ModuleDict):
            return False
        return isinstance(m, ShortcutA) or _computes_as_torch(m)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        outer, self.inside = self.inside, self.path_of_module(m)
        result = super().call_module(m, forward, args, kwargs)
        if isinstance(result, fx.Proxy):
            self.outputs[self.inside] = result.node
        self.inside = outer
        return result


def _computes_as_torch(m: nn.Module) -> bool:
    """Whether neither the class nor the object has a method of its own for what torch.nn's class computes."""
    if isinstance(m, Conv2d):
        return True
    own = [name for name in ("forward", "_conv_forward") if hasattr(type(m), name)]
    torchs = all(getattr(type(m), name).__module__.startswith("torch.nn.") for name in own)
    return torchs and not any(name in vars(m) for name in own)


def _trace(module: nn.Module) -> tuple[fx.GraphModule, dict[str, fx.Node]]:
    """The module as torch.fx sees it, and the node that each of its submodules ends with."""
    tracer = _Tracer()
    parameters = inspect.signature(module.forward).parameters.values()
    various = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [p for p in parameters if p.default is p.empty and p.kind not in various]
    if len(required) != 1:
        raise CocError(f"{type(module).__name__}: forward must take one tensor of images")
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    try:
        graph = tracer.trace(module, defaults)
    except Exception as error:
        place = tracer.inside or type(module).__name__
        kind = type(module.get_submodule(tracer.inside)).__name__
        raise CocError(
            f"{place}: {kind} cannot be traced (no branches or loops that depend on values, no operations "
            f"outside torch): {' '.join(str(error).split())[:200]}"
        ) from error
    body = fx.GraphModule(tracer.root, graph)
    _forget_defaults(body)
    body.recompile()
    return body, tracer.outputs


def _forget_defaults(body: fx.GraphModule) -> None:
    """Remove the inputs that got their default, and torch.fx's assertions that they have it."""
    graph = body.graph
    for node in reversed(graph.nodes):
        if node.op == "call_function" and getattr(node.target, "__name__", "").startswith("_assert"):
            graph.erase_node(node)
    graph.eliminate_dead_code(lambda node: node.is_impure() or changes_its_input(node, body))
    for node in graph.find_nodes(op="placeholder")[1:]:
        if not node.users:
            graph.erase_node(node)


class _Recorder(fx.Interpreter):
    """Keeps the shape of every tensor and the value of everything else."""

    def __init__(self, body: fx.GraphModule) -> None:
        super().__init__(body)
        self.extra_traceback = False
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        try:
            result = super().run_node(n)
        except Exception as error:
            detail = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise CocError(f"{where(n)}: fails on images of this size: {detail}") from error
        self.values[n] = result.shape if isinstance(result, torch.Tensor) else result
        return result


def values(body: fx.GraphModule, shape: tuple[int, ...], batch: int = 1) -> dict[fx.Node, Any]:
    """Shape of every tensor (with the batch in front), and other values, for images of `shape`.

    Raises CocError, naming the module, where the body does not accept them.
    """
    training = {module: module.training for module in body.modules()}
    body.eval()
    try:
        with torch.no_grad():
            recorder = _Recorder(body)
            device = next((parameter.device for parameter in body.parameters()), None)
            recorder.run(torch.zeros(batch, *shape, device=device))
    finally:
        for module, was in training.items():
            module.training = was
    return recorder.values


def shapes(body: fx.GraphModule, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Shape without batch of every tensor of a canonical body, by node name."""
    found = values(body, shape)
    return {n.name: tuple(v[1:]) for n, v in found.items() if isinstance(v, torch.Size)}


def trace_network(module: nn.Module, shape: tuple[int, int, int], classes: int | None = None) -> Traced:
    """A float module that maps images [N, *shape] to logits [N, classes], in canonical form.

    Raises CocError, naming the module, for what the chain does not support.
    """
    containers = {
        name
        for name, m in module.named_modules()
        if next(m.children(), None) is not None and not isinstance(m, nn.Sequential | nn.ModuleList)
    }
    body, outputs = _trace(module)
    moved = canonical.rewrite(body, lambda: values(body, shape, batch=2), classes)
    alive = set(body.graph.nodes)
    positions = {name: moved.get(node, node) for name, node in outputs.items()}
    positions |= {str(n.target): n for n in body.graph.nodes if n.op == "call_module"}
    found = {name: node for name, node in positions.items() if node in alive}
    places, cuts = _places(body, found, containers, shapes(body, shape))
    return Traced(body, {name: node.name for name, node in found.items()}, places, cuts)


def _places(
    body: fx.GraphModule,
    positions: dict[str, fx.Node],
    containers: set[str],
    sizes: dict[str, tuple[int, ...]],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    cut = [node for node in _single_cuts(body.graph) if _separate(node, body) and len(sizes[node.name]) == 3]
    names = {node: [name for name, end in positions.items() if end is node] for node in cut}
    blocks = [max((n for n in names[node] if n in containers), key=len, default=None) for node in cut]
    activations = [
        str(node.target)
        for node in cut
        if node.op == "call_module" and isinstance(body.get_submodule(str(node.target)), nn.ReLU | nn.ReLU6)
    ]
    chosen = [name for name in blocks if name is not None] or activations
    return tuple(chosen), tuple(name for node in cut for name in names[node])


def _single_cuts(graph: fx.Graph) -> list[fx.Node]:
    """Nodes behind which nothing reads anything before them."""
    nodes = list(graph.nodes)
    index = {node: i for i, node in enumerate(nodes)}
    result, latest = [], 0
    for i, node in enumerate(nodes):
        if node.op in ("call_module", "call_function") and latest <= i:
            result.append(node)
        readers = [index[user] for user in node.users if user.op != "output"]
        latest = max([latest, *readers])
    return result


def _separate(node: fx.Node, body: fx.GraphModule) -> bool:
    """Whether quantization keeps the node's value: it is not part of a unit that goes on behind it."""

    def kind(n: fx.Node) -> nn.Module | None:
        return body.get_submodule(str(n.target)) if n.op == "call_module" else None

    users = [user for user in node.users if user.op != "output"]
    if isinstance(kind(node), nn.ZeroPad2d) or len(users) != 1:
        return len(users) > 1 and not isinstance(kind(node), nn.ZeroPad2d)
    norm = isinstance(kind(users[0]), nn.BatchNorm2d) and isinstance(kind(node), nn.Conv2d)
    return not (norm or isinstance(kind(users[0]), nn.ReLU | nn.ReLU6))


def first_convolutions(model: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d | None]]:
    """The convolutions that read the image, each with its batch-norm; the modules are the model's own.

    Raises CocError if anything else reads the image.
    """
    body = model if isinstance(model, fx.GraphModule) else _trace(model)[0]
    modules = dict(body.named_modules())
    result = []
    pending = list(body.graph.find_nodes(op="placeholder")[0].users)
    while pending:
        node = pending.pop()
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.ZeroPad2d):
            pending += list(node.users)
            continue
        if not isinstance(module, nn.Conv2d):
            raise CocError(
                f"{where(node)}: reads the image; mean and std can be folded into convolutions only"
            )
        users = [modules.get(str(user.target)) for user in node.users]
        norm = users[0] if len(users) == 1 and isinstance(users[0], nn.BatchNorm2d) else None
        result.append((module, norm))
    return result
