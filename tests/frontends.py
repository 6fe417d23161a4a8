"""What tests of the front end share: tracing a module, and comparing the body with it in both modes."""

import copy
from collections import Counter

import torch
from torch import Tensor, nn

from coc_deploy import body as bodies
from coc_deploy.body import Traced
from coc_deploy.frontend.trace import trace_network

SHAPE = (3, 12, 12)
CLASSES = 5


class Net(nn.Module):
    """A convolution, what the case does, and a linear layer behind the mean."""

    def __init__(self, middle: nn.Module | None = None, channels: int = 8, out: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1)
        self.middle = middle or nn.Identity()
        self.fc = nn.Linear(out or channels, CLASSES)

    def inside(self, x: Tensor) -> Tensor:
        return self.middle(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.inside(self.conv(x)).mean((2, 3)))


def settle(module: nn.Module, shape: tuple[int, ...] = SHAPE) -> nn.Module:
    """Give batch-norms statistics and weights that are not those of a new one."""
    generator = torch.Generator().manual_seed(5)
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in (
                (norm.running_mean, -1, 1),
                (norm.running_var, 0.5, 2),
                (norm.weight, 0.5, 2),
                (norm.bias, -1, 1),
            ):
                if tensor is not None:
                    tensor.data.uniform_(low, high, generator=generator)
    return module


def traced(module: nn.Module, shape: tuple[int, int, int] = SHAPE, classes: int | None = CLASSES) -> Traced:
    """The canonical form of a copy, after a file's round trip, in which it must compute the same."""
    result = trace_network(_copy(module), shape, classes)
    state = result.body.state_dict()
    again = bodies.rebuild(bodies.describe(result), {f"body.{name}": value for name, value in state.items()})
    again.body.load_state_dict(state)
    x = images(shape)
    for body in (result.body, again.body):
        body.eval()
    assert torch.equal(result.body(x), again.body(x))
    return result


def _copy(module: nn.Module) -> nn.Module:
    """The module itself if it holds a weight that a hook computes: that cannot be copied."""
    computed = any(hasattr(inside, "weight_g") for inside in module.modules())
    return module if computed else copy.deepcopy(module)


def images(shape: tuple[int, ...] = SHAPE, count: int = 3) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(3))


def same(
    module: nn.Module,
    shape: tuple[int, int, int] = SHAPE,
    *,
    training: bool = True,
    softmax: bool = False,
    gradient: bool = True,
) -> Traced:
    """The traced module, which gives the module's logits and gradients in evaluation and training mode.

    training: whether to compare in training mode. softmax: whether the module ends in one. gradient: whether
    to compare that.
    """
    settle(module)
    result = traced(module, shape)
    for mode in (False, True) if training else (False,):
        expected, found = (_run(net, shape, mode, softmax) for net in (module, result.body))
        for name, value in expected.items() if gradient else [("logits", expected["logits"])]:
            scale = float(value.abs().max()) or 1.0
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=2e-5 * scale, msg=name)
    return result


def _run(net: nn.Module, shape: tuple[int, ...], mode: bool, softmax: bool) -> dict[str, Tensor]:
    copied = _copy(net).train(mode)
    x = images(shape).requires_grad_(True)
    torch.manual_seed(11)
    result = copied(x)
    logits = result if isinstance(result, Tensor) else result[0]
    if softmax:
        logits = logits.softmax(1)
    (logits * torch.linspace(-1, 1, logits.numel()).reshape(logits.shape)).sum().backward()
    assert x.grad is not None
    return {"logits": logits.detach(), "gradient": x.grad}


def kinds(found: Traced) -> list[str]:
    """What the nodes of a body are, in order, names of classes and functions."""
    return [
        type(found.body.get_submodule(str(node.target))).__name__
        if node.op == "call_module"
        else node.target.__name__  # type: ignore[union-attr]
        for node in found.body.graph.nodes
        if node.op.startswith("call")
    ]


def count(found: Traced) -> Counter[str]:
    return Counter(kinds(found))
