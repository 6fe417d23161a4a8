"""A float network as ONNX, batch-norm folded: what benchmarks compare the compressed model with."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import fx, nn

from coc_deploy.frontend.modules import Activation, AsImage, Scale, Select, Shift, Slice, StochasticDepth
from coc_deploy.models import ShortcutA
from coc_deploy.network import Network
from coc_deploy.shapes import pair, shapes
from coc_runtime.errors import CocError
from coc_runtime.ops import AdaptiveAveragePool

from .float_functions import write_activation, write_constant, write_prelu
from .float_writer import FloatWriter

OPSET = 21
IR_VERSION = 10


def _write(writer: FloatWriter, node: fx.Node) -> None:
    """The ONNX nodes of a node of the body; CocError where there are none."""
    module = writer.module(node)
    if node.op == "output" or node.name in writer.folded:
        return
    if node.op == "placeholder":
        _image(writer, node)
    elif node.op == "call_function" and node.target in FUNCTIONS:
        FUNCTIONS[node.target](writer, node)
    elif (writes := next((MODULES[k] for k in type(module).__mro__ if k in MODULES), None)) is not None:
        writes(writer, node, module)
    else:
        kind = type(module).__name__ if module is not None else str(node.target)
        raise CocError(f"{node.name}: {kind} cannot be exported to float ONNX")


def _image(writer: FloatWriter, node: fx.Node) -> None:
    writer.node("Cast", ["image"], "pixels", to=TensorProto.FLOAT)
    grey = writer.constant("grey", np.array(128, np.float32))
    writer.node("Sub", ["pixels", grey], "centred")
    writer.node("Mul", ["centred", writer.constant("unit", np.array(1 / 128, np.float32))], node.name)


def _conv(writer: FloatWriter, node: fx.Node, conv: nn.Conv2d) -> None:
    """Convolution with the batch-norm behind it folded into weights and bias."""
    norm, output = writer.fold_norm(node)
    weight = conv.weight.detach().double().numpy()
    bias = np.zeros(len(weight)) if conv.bias is None else conv.bias.detach().double().numpy()
    if norm is not None:
        assert norm.running_var is not None and norm.running_mean is not None
        gain = (norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()).detach().numpy()
        weight = weight * gain[:, None, None, None]
        bias = norm.bias.detach().double().numpy() + (bias - norm.running_mean.double().numpy()) * gain
    pads = [int(p) for p in conv.padding] * 2
    names = [
        writer.constant(f"{node.name}.weight", weight.astype(np.float32)),
        writer.constant(f"{node.name}.bias", bias.astype(np.float32)),
    ]
    attributes = {"strides": list(conv.stride), "pads": pads, "group": conv.groups, **_dilations(conv)}
    writer.node("Conv", [str(node.args[0]), *names], output, **attributes)


def _norm(writer: FloatWriter, node: fx.Node, norm: nn.BatchNorm2d | nn.BatchNorm1d) -> None:
    """Batch-norm that no convolution precedes."""
    values = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    names = [
        writer.constant(f"{node.name}.{key}", value.detach().numpy())
        for key, value in zip(("weight", "bias", "mean", "var"), values, strict=True)
        if value is not None
    ]
    writer.node("BatchNormalization", [str(node.args[0]), *names], node.name, epsilon=norm.eps)


def _window(pool: nn.MaxPool2d | nn.AvgPool2d) -> dict[str, Any]:
    sizes = {"kernel_shape": list(pair(pool.kernel_size)), "strides": list(pair(pool.stride))}
    return {**sizes, "pads": list(pair(pool.padding)) * 2, "ceil_mode": int(pool.ceil_mode)}


def _average_pool(writer: FloatWriter, node: fx.Node, pool: nn.AvgPool2d) -> None:
    if pool.divisor_override:
        raise CocError(f"{node.name}: average pooling with a divisor cannot be exported to float ONNX")
    include = int(pool.count_include_pad)
    writer.node("AveragePool", [str(node.args[0])], node.name, count_include_pad=include, **_window(pool))


def _max_pool(writer: FloatWriter, node: fx.Node, pool: nn.MaxPool2d) -> None:
    writer.node("MaxPool", [str(node.args[0])], node.name, **_window(pool), **_dilations(pool))


def _dilations(module: nn.Conv2d | nn.MaxPool2d) -> dict[str, list[int]]:
    """The attribute, where it is not ONNX's default."""
    dilations = list(pair(module.dilation))
    return {} if dilations == [1, 1] else {"dilations": dilations}


def _adaptive_pool(writer: FloatWriter, node: fx.Node, pool: nn.AdaptiveAvgPool2d) -> None:
    if pair(pool.output_size) == (1, 1):
        writer.node("GlobalAveragePool", [str(node.args[0])], node.name)
        return
    _, height, width = writer.shapes[str(node.args[0])]
    grid = AdaptiveAveragePool("", "", "", pair(pool.output_size))
    rows, columns = (
        writer.constant(f"{node.name}.{side}", matrix / matrix.sum(1, keepdims=True))
        for side, matrix in zip(("rows", "columns"), grid.matrices(height, width), strict=True)
    )
    lines = writer.node("MatMul", [rows, str(node.args[0])], f"{node.name}.lines")
    turned = writer.node("Transpose", [lines], f"{node.name}.turned", perm=[0, 1, 3, 2])
    means = writer.node("MatMul", [columns, turned], f"{node.name}.means")
    writer.node("Transpose", [means], node.name, perm=[0, 1, 3, 2])


def _pad(writer: FloatWriter, node: fx.Node, module: nn.ZeroPad2d) -> None:
    left, right, top, bottom = module.padding
    pads = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
    writer.node("Pad", [str(node.args[0]), writer.constant(f"{node.name}.pads", pads)], node.name)


def _shortcut(writer: FloatWriter, node: fx.Node, module: ShortcutA) -> None:
    steps = np.array([module.stride, module.stride], np.int64)
    slices = [
        writer.constant(f"{node.name}.start", np.zeros(2, np.int64)),
        writer.constant(f"{node.name}.end", np.full(2, np.iinfo(np.int64).max)),
        writer.constant(f"{node.name}.axes", np.array([2, 3], np.int64)),
        writer.constant(f"{node.name}.step", steps),
    ]
    writer.node("Slice", [str(node.args[0]), *slices], f"{node.name}.half")
    pads = np.array([0, module.front, 0, 0, 0, module.behind, 0, 0], np.int64)
    writer.node("Pad", [f"{node.name}.half", writer.constant(f"{node.name}.pads", pads)], node.name)


def _relu6(writer: FloatWriter, node: fx.Node, module: nn.ReLU6) -> None:
    low, high = (writer.constant(f"{node.name}.{v}", np.array(v, np.float32)) for v in (0, 6))
    writer.node("Clip", [str(node.args[0]), low, high], node.name)


def _linear(writer: FloatWriter, node: fx.Node, linear: nn.Linear) -> None:
    names = [writer.constant(f"{node.name}.weight", linear.weight.detach().numpy())]
    if linear.bias is not None:
        names.append(writer.constant(f"{node.name}.bias", linear.bias.detach().numpy()))
    writer.node("Gemm", [str(node.args[0]), *names], node.name, transB=1)


def _plainly(op: str) -> Callable[[FloatWriter, fx.Node, nn.Module], object]:
    """A node of one input without attributes."""
    return lambda writer, node, module: writer.node(op, [str(node.args[0])], node.name)


def _choice(writer: FloatWriter, node: fx.Node, module: nn.Module) -> None:
    """Channels in another order: what the module makes of their numbers."""
    numbers = torch.arange(writer.shapes[node.all_input_nodes[0].name][0], dtype=torch.float32)
    indices = module(numbers[None, :, None, None]).flatten().numpy().astype(np.int64)
    writer.node(
        "Gather", [str(node.args[0]), writer.constant(f"{node.name}.channels", indices)], node.name, axis=1
    )


def _as_image(writer: FloatWriter, node: fx.Node, module: AsImage) -> None:
    axes = writer.constant(f"{node.name}.axes", np.array([2, 3], np.int64))
    writer.node("Unsqueeze", [str(node.args[0]), axes], node.name)


def _both(op: str) -> Callable[[FloatWriter, fx.Node], object]:
    """A node of two inputs, which may be the same."""
    return lambda writer, node: writer.node(op, [str(source) for source in node.args], node.name)


def _concat(writer: FloatWriter, node: fx.Node) -> None:
    parts = [str(source) for source in node.args[0]]  # type: ignore[union-attr]
    writer.node("Concat", parts, node.name, axis=1)


MODULES: dict[type, Callable[[FloatWriter, fx.Node, Any], object]] = {
    nn.Conv2d: _conv,
    nn.BatchNorm2d: _norm,
    nn.BatchNorm1d: _norm,
    nn.ReLU: _plainly("Relu"),
    nn.ReLU6: _relu6,
    nn.PReLU: write_prelu,
    Activation: write_activation,
    Scale: write_constant,
    Shift: write_constant,
    AsImage: _as_image,
    Slice: _choice,
    Select: _choice,
    nn.ChannelShuffle: _choice,
    ShortcutA: _shortcut,
    nn.AdaptiveAvgPool2d: _adaptive_pool,
    nn.AvgPool2d: _average_pool,
    nn.MaxPool2d: _max_pool,
    nn.ZeroPad2d: _pad,
    nn.Flatten: _plainly("Flatten"),
    nn.Dropout: _plainly("Identity"),
    nn.Dropout2d: _plainly("Identity"),
    StochasticDepth: _plainly("Identity"),
    nn.Linear: _linear,
}
"""Writes a module of a body; the classes are the kinds of which bodies consist."""

FUNCTIONS: dict[Any, Callable[[FloatWriter, fx.Node], object]] = {
    operator.add: _both("Add"),
    operator.mul: _both("Mul"),
    torch.cat: _concat,
}


def write_float(network: Network) -> onnx.ModelProto:
    """uint8 `image` [N, C, H, W] in, `logits` [N, classes] out, everything float32 between.

    Raises CocError for a quantized network or one with exits, which have the integer export.
    """
    if network.quant is not None or network.exits is not None:
        raise CocError("the float export takes a model without quantization and exits")
    body = network.body.eval()
    writer = FloatWriter(body, shapes(body, network.input_shape))
    for node in body.graph.nodes:
        _write(writer, node)
    logits = str(body.graph.find_nodes(op="output")[0].args[0][-1])
    writer.node("Identity", [logits], "logits")
    graph = helper.make_graph(
        writer.nodes,
        "float",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", *network.input_shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", network.arch.classes])],
        writer.initializers,
    )
    model = helper.make_model(
        graph,
        producer_name="coc-deploy",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    onnx.checker.check_model(model, full_check=True)
    return model
