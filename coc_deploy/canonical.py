"""Brings a graph to few kinds of nodes: functions become modules, aliases vanish, the rest is refused."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from coc_runtime.errors import CocError

from .aliases import without_changes_in_place
from .calls import HARDTANH, OWNERS, POOLING, check_module, operation, pair, refuse, unknown, where
from .kinds import plain


def rewrite(
    body: fx.GraphModule, run: Callable[[], dict[fx.Node, Any]], classes: int | None
) -> dict[fx.Node, fx.Node]:
    """Canonical form in place; gives node -> node that carries its value on, for nodes that are gone.

    run: shapes of the body's tensors and its other values, called once modules are known to be
    supported. Raises CocError, naming the module, for what is not.
    """
    for node in body.graph.nodes:
        if node.op == "call_module":
            check_module(str(node.target), body.get_submodule(str(node.target)))
    return _Canonical(body, run()).rewrite(classes)


class _Canonical:
    def __init__(self, body: fx.GraphModule, values: dict[fx.Node, Any]) -> None:
        self.body, self.values = body, values
        self.moved: dict[fx.Node, fx.Node] = {}
        self.seen: set[str] = set()
        self.owners: dict[nn.Parameter, str] = {}

    def rewrite(self, classes: int | None) -> dict[fx.Node, fx.Node]:
        graph = self.body.graph
        without_changes_in_place(self.body, self.values)
        for node in list(graph.nodes):
            self._visit(node)
        graph.eliminate_dead_code()
        for node in list(graph.nodes):
            self._activation_first(node)
        self._check(classes)
        self.body.delete_all_unused_submodules()
        graph.lint()
        self.body.recompile()
        return {node: self._final(node) for node in self.moved}

    def _final(self, node: fx.Node) -> fx.Node:
        while node in self.moved:
            node = self.moved[node]
        return node

    def _visit(self, node: fx.Node) -> None:
        if node.op in ("placeholder", "output", "get_attr"):
            return
        if node.op == "call_module":
            self._module(node, self.body.get_submodule(str(node.target)))
        elif isinstance(self.values[node], torch.Size) or node.op == "call_method":
            kind = operation(node)
            if not node.args and "input" in node.kwargs:
                others = {name: value for name, value in node.kwargs.items() if name != "input"}
                node.args, node.kwargs = (node.kwargs["input"],), others
            if kind is not None:
                getattr(self, f"_{kind}")(node)

    # What a node becomes

    def _become(self, node: fx.Node, module: nn.Module, source: Any = None) -> None:
        """Make the node a call of the module, under a new name unless it was its own module."""
        name = str(node.target) if node.op == "call_module" and node.target not in self.seen else node.name
        while node.op != "call_module" and hasattr(self.body, name):
            name += "_"
        self.body.add_submodule(name, module)
        self.seen.add(name)
        node.op, node.target = "call_module", name
        node.args, node.kwargs = (node.args[0] if source is None else source,), {}

    def _same(self, node: fx.Node) -> None:
        source = self._input(node)
        node.replace_all_uses_with(source)
        self.moved[node] = source
        self.body.graph.erase_node(node)

    def _after(self, node: fx.Node, module: nn.Module) -> None:
        """Another module behind the node."""
        with self.body.graph.inserting_after(node):
            name = f"{node.name}_{type(module).__name__.lower()}"
            self.body.add_submodule(name, module)
            new = self.body.graph.call_module(name, (node,))
        node.replace_all_uses_with(new, lambda user: user is not new)
        self.values[new] = self.values[node]

    def _input(self, node: fx.Node) -> fx.Node:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        return source

    def _arguments(self, node: fx.Node, *names: str) -> dict[str, Any]:
        """Arguments behind the first, by name, with what nodes among them stood for."""
        given = dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
        return {
            name: fx.map_arg(value, lambda n: self.values[n])
            for name, value in given.items()
            if name in names and value is not None
        }

    # Modules

    def _module(self, node: fx.Node, module: nn.Module) -> None:
        name = str(node.target)
        node.args, node.kwargs = (node.all_input_nodes[0],), {}
        if isinstance(module, OWNERS):
            if name in self.seen:
                kind = next(cls.__name__ for cls in OWNERS if isinstance(module, cls))
                raise refuse(name, f"calling a {kind} twice", " (shared weights)")
            self.seen.add(name)
            self._owner(node, module)
            for tensor in module.parameters():
                if (other := self.owners.setdefault(tensor, name)) != name:
                    raise refuse(name, f"sharing weights with {other}", ": give it weights of its own")
            self.body.set_submodule(name, plain(module))
        elif isinstance(module, nn.ReLU | nn.ReLU6 | nn.Dropout | nn.Dropout2d):
            self._become(node, plain(module))
        elif isinstance(module, nn.MaxPool2d):
            self._pool_max(node, {k: getattr(module, k) for k in (*POOLING, "ceil_mode", "dilation")})
            if module.return_indices:
                raise refuse(name, "return_indices")
        elif isinstance(module, nn.AvgPool2d):
            keys = (*POOLING, "ceil_mode", "count_include_pad", "divisor_override")
            self._pool_average(node, {k: getattr(module, k) for k in keys})
        elif isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
            self._adaptive(node, module.output_size, isinstance(module, nn.AdaptiveMaxPool2d))
        elif isinstance(module, nn.Flatten):
            self._reshape(node)
        elif isinstance(module, nn.ConstantPad2d):
            self._padding(node, module.padding, module.value)
        elif isinstance(module, nn.Softmax | nn.LogSoftmax):
            self._softmax(node)
        elif isinstance(module, nn.Identity):
            self._same(node)

    def _owner(self, node: fx.Node, module: nn.Module) -> None:
        name, shape = str(node.target), self.values[self._input(node)]
        if isinstance(module, nn.Linear | nn.BatchNorm1d) and len(shape) != 2:
            raise refuse(name, f"{type(module).__name__} on {len(shape) - 1} dimensions", ": flatten first")
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d) and not module.affine:
            module.affine = True
            module.weight = nn.Parameter(torch.ones(module.num_features))
            module.bias = nn.Parameter(torch.zeros(module.num_features))
        if isinstance(module, nn.Conv2d) and isinstance(module.padding, str):
            total = [k - 1 if module.padding == "same" else 0 for k in module.kernel_size]
            module.padding = (total[0] // 2, total[1] // 2)
            odd = (0, total[1] % 2, 0, total[0] % 2)
            if any(odd):
                top, left = module.padding
                module.padding = (0, 0)
                source = self._input(node)
                with self.body.graph.inserting_before(node):
                    pads = (left, left + odd[1], top, top + odd[3])
                    self.body.add_submodule(f"{node.name}_pad", nn.ZeroPad2d(pads))
                    node.args = (self.body.graph.call_module(f"{node.name}_pad", (source,)),)

    # Functions

    def _relu(self, node: fx.Node) -> None:
        self._become(node, nn.ReLU())

    def _relu6(self, node: fx.Node) -> None:
        self._become(node, nn.ReLU6())

    def _clamp(self, node: fx.Node) -> None:
        names = ("min_val", "max_val") if node.target in HARDTANH else ("min", "max")
        given = self._arguments(node, *names)
        limits = (given.get(names[0]), given.get(names[1]))
        if limits not in ((0, 6), (0, None)):
            raise refuse(where(node), f"clamp to {limits}", ": use ReLU or ReLU6")
        self._become(node, nn.ReLU6() if limits[1] == 6 else nn.ReLU())

    # `without_changes_in_place` has seen to what they change.
    _relu_, _clamp_ = _relu, _clamp

    def _dropout(self, node: fx.Node) -> None:
        given = self._arguments(node, "p", "training", "inplace")
        image = node.target is functional.dropout2d
        self._become(node, (nn.Dropout2d if image else nn.Dropout)(given.get("p", 0.5)))

    def _max_pool2d(self, node: fx.Node) -> None:
        self._pool_max(node, self._arguments(node, *POOLING, "dilation", "ceil_mode", "return_indices"))

    def _avg_pool2d(self, node: fx.Node) -> None:
        names = (*POOLING, "ceil_mode", "count_include_pad", "divisor_override")
        self._pool_average(node, self._arguments(node, *names))

    def _adaptive_avg_pool2d(self, node: fx.Node) -> None:
        self._adaptive(node, self._arguments(node, "output_size")["output_size"], False)

    def _adaptive_max_pool2d(self, node: fx.Node) -> None:
        self._adaptive(node, self._arguments(node, "output_size")["output_size"], True)

    def _window(self, node: fx.Node, given: dict[str, Any]) -> tuple[tuple[int, int], int, tuple[int, int]]:
        kernel = pair(given["kernel_size"])
        stride = pair(given["stride"]) if given.get("stride") else kernel
        padding = pair(given.get("padding", 0))
        steps = {
            s
            for s, size in zip(stride, self.values[node][2:], strict=True)
            if size > 1  # the step of a single window does not matter
        }
        if len(steps) > 1:
            raise refuse(where(node), f"pooling with stride {stride}", ": use one for both directions")
        return kernel, steps.pop() if steps else stride[0], padding

    def _pool_max(self, node: fx.Node, given: dict[str, Any]) -> None:
        if pair(given.get("dilation", 1)) != (1, 1):
            raise refuse(where(node), "dilated pooling", ": use dilation 1")
        ceil = bool(given.get("ceil_mode", False))
        self._become(node, nn.MaxPool2d(*self._window(node, given), ceil_mode=ceil))

    def _pool_average(self, node: fx.Node, given: dict[str, Any]) -> None:
        kernel, stride, padding = self._window(node, given)
        if given.get("divisor_override"):
            raise refuse(where(node), "divisor_override")
        if any(padding) and not given.get("count_include_pad", True):
            raise refuse(where(node), "average pooling without count_include_pad", ": set it to True")
        if given.get("ceil_mode", False):
            sizes = self.values[self._input(node)][2:]
            last = [(size + 2 * p - k) % stride for size, p, k in zip(sizes, padding, kernel, strict=True)]
            if any(last):
                raise refuse(where(node), "average pooling with ceil_mode", ": its border windows differ")
        self._become(node, nn.AvgPool2d(kernel, stride, padding))

    def _adaptive(self, node: fx.Node, output: Any, maximum: bool) -> None:
        sizes = tuple(self.values[self._input(node)][2:])
        wanted = tuple(self.values[node][2:])
        if wanted == sizes and sizes != (1, 1):
            self._same(node)
        elif wanted == (1, 1) and not maximum:
            self._become(node, nn.AdaptiveAvgPool2d(1))
        elif any(size % out for size, out in zip(sizes, wanted, strict=True)):
            raise refuse(
                where(node),
                f"adaptive pooling of {sizes[0]}x{sizes[1]} to {wanted[0]}x{wanted[1]}",
                ": windows differ in size, choose a size that divides",
            )
        else:
            kernel = (sizes[0] // wanted[0], sizes[1] // wanted[1])
            given = {"kernel_size": kernel, "stride": kernel}
            (self._pool_max if maximum else self._pool_average)(node, given)

    def _mean(self, node: fx.Node) -> None:
        given = self._arguments(node, "dim", "keepdim")
        dims = given.get("dim", ())
        dims = {d % 4 for d in (dims if isinstance(dims, tuple | list) else (dims,))}
        if len(self.values[self._input(node)]) != 4 or dims != {2, 3}:
            raise refuse(where(node), "mean over other dimensions than height and width together")
        keep = given.get("keepdim", False)
        self._become(node, nn.AdaptiveAvgPool2d(1))
        if not keep:
            self._after(node, nn.Flatten())

    def _reshape(self, node: fx.Node) -> None:
        source = self._input(node)
        while operation(source) == "reshape":  # squeeze(3).squeeze(2)
            source = self._input(source)
        before, after = tuple(self.values[source]), tuple(self.values[node])
        if before == after:
            node.args = (source, *node.args[1:])
            self._same(node)
        elif len(before) == 4 and len(after) == 2 and before[0] == after[0]:
            self._become(node, nn.Flatten(), source)
        elif node.op == "call_module" or len(after) != 3:
            raise refuse(where(node), f"reshaping {before[1:]} to {after[1:]}", ": only flattening is")

    def _pad(self, node: fx.Node) -> None:
        given = self._arguments(node, "pad", "mode", "value")
        if given.get("mode", "constant") != "constant":
            raise refuse(where(node), f"padding mode '{given['mode']}'", ": use zeros")
        self._padding(node, given["pad"], given.get("value", 0))

    def _padding(self, node: fx.Node, pads: Any, value: Any) -> None:
        pads = tuple(int(p) for p in (pads if isinstance(pads, tuple | list) else (pads,) * 4))
        pads = pads + (0,) * (4 - len(pads))
        if not any(pads):
            self._same(node)
        elif any(pads[4:]) or min(pads) < 0 or value:
            raise refuse(where(node), f"padding {pads} with {value}", ": only images are padded, with zeros")
        else:
            self._become(node, nn.ZeroPad2d(pads[:4]))

    def _cat(self, node: fx.Node) -> None:
        parts = node.args[0] if node.args else node.kwargs["tensors"]
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
        rank = len(self.values[node])
        if not isinstance(parts, tuple | list) or not isinstance(dim, int) or dim % rank != 1:
            raise refuse(where(node), "concatenation of anything but channels")
        if len(parts) == 1:
            node.args = (parts[0],)
            self._same(node)
            return
        node.op, node.target, node.args, node.kwargs = "call_function", torch.cat, (list(parts), 1), {}

    def _add(self, node: fx.Node) -> None:
        args = [*node.args, *(node.kwargs[k] for k in ("input", "other") if k in node.kwargs)]
        if node.kwargs.get("alpha", 1) != 1 or len(args) != 2:
            raise refuse(where(node), "addition with alpha")
        if not all(isinstance(a, fx.Node) for a in args):
            raise refuse(where(node), "addition of a constant")
        left, right = (self.values[a] for a in args)  # type: ignore[index]
        if left != right:
            raise refuse(where(node), f"addition of shapes {list(left[1:])} and {list(right[1:])}", "")
        node.op, node.target, node.args, node.kwargs = "call_function", operator.add, tuple(args), {}

    _add_ = _add

    def _softmax(self, node: fx.Node) -> None:
        """Leave out a softmax at the end: it changes neither the class nor, inside the loss, the gradient."""
        if any(user.op != "output" for user in node.users):
            raise refuse(where(node), "softmax inside the network")
        self._same(node)

    # The whole graph

    def _activation_first(self, node: fx.Node) -> None:
        """ReLU commutes with max-pooling, dropout and flattening: put it right behind what it clips."""
        modules = dict(self.body.named_modules())

        def kind(n: fx.Node) -> nn.Module | None:
            return modules.get(str(n.target)) if n.op == "call_module" else None

        if not isinstance(kind(node), nn.ReLU | nn.ReLU6):
            return
        commuting = (nn.MaxPool2d, nn.Dropout, nn.Dropout2d, nn.Flatten)
        first = last = self._input(node)
        while isinstance(kind(first), commuting) and len(first.users) == 1:
            first = self._input(first)
        if first is last or len(last.users) != 1:
            return
        second = next(user for user in first.users if _leads(user, last, commuting, kind))
        node.replace_all_uses_with(last)
        second.replace_input_with(first, node)
        node.args = (first,)
        second.prepend(node)
        self.moved[node] = last

    def _check(self, classes: int | None) -> None:
        modules = dict(self.body.named_modules())
        graph = self.body.graph
        for node in graph.nodes:
            if node.op in ("placeholder", "output", "call_module"):
                continue
            if node.op == "get_attr":
                raise refuse(where(node), f"reading the parameter '{node.target}' directly")
            if node.target not in (operator.add, torch.cat):
                name = getattr(node.target, "__name__", str(node.target))
                raise unknown(where(node), name)
        result = graph.find_nodes(op="output")[0].args[0]
        if not isinstance(result, fx.Node):
            raise CocError("the network must return one tensor of logits")
        last = modules.get(str(result.target)) if result.op == "call_module" else None
        if not isinstance(last, nn.Linear) or len(result.users) != 1:
            raise CocError(f"{where(result)}: the network's output must come from a Linear layer")
        if classes is not None and last.out_features != classes:
            given = f"{last.out_features} logits, the data has {classes} classes"
            raise CocError(f"{where(result)}: gives {given}")


def _leads(node: fx.Node, end: fx.Node, kinds: tuple, kind: Callable[[fx.Node], nn.Module | None]) -> bool:
    """Whether a chain of single-user modules of these kinds goes from node to end."""
    while node is not end and isinstance(kind(node), kinds) and len(node.users) == 1:
        node = next(iter(node.users))
    return node is end
