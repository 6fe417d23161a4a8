"""The convolution that everything here trains with: a strided 1x1 one never reaches torch (docs/adr/0008)."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torch.overrides import TorchFunctionMode

Pair = tuple[int, int]


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    groups: int = 1,
    dilation: Pair = (1, 1),
) -> Tensor:
    """`functional.conv2d` of x [N, C, H, W]; one of 1x1 windows with a stride convolves only the pixels that
    it reads, with stride 1.

    The backward pass of oneDNN's strided 1x1 kernel writes beyond its buffer.
    """
    if weight.shape[2:] == (1, 1) and stride != (1, 1):
        if any(padding):
            height, width = padding
            x, padding = functional.pad(x, (width, width, height, height)), (0, 0)
        x, stride = x[:, :, :: stride[0], :: stride[1]], (1, 1)
    return functional.conv2d(x, weight, bias, stride, padding, dilation, groups)


class Conv2d(nn.Conv2d):
    """torch.nn.Conv2d with padding in numbers, computed by `convolve`."""

    stride: Pair
    padding: Pair
    dilation: Pair

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return convolve(input, weight, bias, self.stride, self.padding, self.groups, self.dilation)


class Guarded(TorchFunctionMode):
    """Inside of the block every two-dimensional convolution of torch's is computed by `convolve`."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func is functional.conv2d:
            names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
            named = dict(zip(names, args, strict=False)) | given
            padding = named.get("padding", 0)
            if named["weight"].shape[2:] == (1, 1) and not isinstance(padding, str):
                stride, groups = _pair(named.get("stride", 1)), named.get("groups", 1)
                x, weight, bias = named["input"], named["weight"], named.get("bias")
                return convolve(x, weight, bias, stride, _pair(padding), groups)
        return func(*args, **given)


def _pair(value: int | Sequence[int]) -> Pair:
    numbers = [value] if isinstance(value, int) else list(value)
    return numbers[0], numbers[-1]


def guarded(network: nn.Module) -> bool:
    """Whether every convolution in it is computed by `convolve`."""
    return all(isinstance(m, Conv2d) for m in network.modules() if isinstance(m, nn.Conv2d))


def fold_batch_norm(body: fx.GraphModule) -> None:
    """Put every batch-norm into the convolution or linear layer that it alone reads, in place; all are in
    evaluation mode."""
    modules = dict(body.named_modules())
    for node in list(body.graph.nodes):
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d):
            continue
        (source,) = node.all_input_nodes
        layer = modules.get(str(source.target)) if source.op == "call_module" else None
        if not isinstance(layer, nn.Conv2d | nn.Linear) or len(source.users) > 1:
            continue
        folded = (
            fuse_conv_bn_eval(layer, norm)
            if isinstance(layer, nn.Conv2d)
            else fuse_linear_bn_eval(layer, norm)
        )
        body.set_submodule(str(source.target), folded)
        node.replace_all_uses_with(source)
        body.graph.erase_node(node)
    body.delete_all_unused_submodules()
    body.recompile()
