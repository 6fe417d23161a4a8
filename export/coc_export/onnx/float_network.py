"""A float network as ONNX, batch-norm folded: what benchmarks compare the compressed model with."""

import operator
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import fx, nn

from coc_deploy.calls import pair
from coc_deploy.models import ShortcutA
from coc_deploy.network import Network
from coc_runtime.errors import CocError

OPSET = 21
IR_VERSION = 10


class _Writer:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))

    def conv(self, node: fx.Node, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, output: str) -> None:
        """Convolution with the batch-norm behind it folded into weights and bias."""
        weight = conv.weight.detach().double().numpy()
        bias = np.zeros(len(weight)) if conv.bias is None else conv.bias.detach().double().numpy()
        if norm is not None:
            assert norm.running_var is not None and norm.running_mean is not None
            gain = (norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()).detach().numpy()
            weight = weight * gain[:, None, None, None]
            bias = norm.bias.detach().double().numpy() + (bias - norm.running_mean.double().numpy()) * gain
        pads = [int(p) for p in conv.padding] * 2
        names = [
            self.constant(f"{node.name}.weight", weight.astype(np.float32)),
            self.constant(f"{node.name}.bias", bias.astype(np.float32)),
        ]
        self.node(
            "Conv",
            [str(node.args[0]), *names],
            output,
            strides=list(conv.stride),
            pads=pads,
            group=conv.groups,
        )

    def norm(self, node: fx.Node, norm: nn.BatchNorm2d | nn.BatchNorm1d) -> None:
        """Batch-norm that no convolution precedes."""
        values = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        names = [
            self.constant(f"{node.name}.{key}", value.detach().numpy())
            for key, value in zip(("weight", "bias", "mean", "var"), values, strict=True)
            if value is not None
        ]
        self.node("BatchNormalization", [str(node.args[0]), *names], node.name, epsilon=norm.eps)

    def pool(self, node: fx.Node, pool: nn.MaxPool2d | nn.AvgPool2d) -> None:
        options: dict[str, Any] = {"kernel_shape": list(pair(pool.kernel_size))}
        options |= {"strides": list(pair(pool.stride)), "pads": list(pair(pool.padding)) * 2}
        options["ceil_mode"] = int(pool.ceil_mode)
        if isinstance(pool, nn.AvgPool2d):
            self.node("AveragePool", [str(node.args[0])], node.name, count_include_pad=1, **options)
        else:
            self.node("MaxPool", [str(node.args[0])], node.name, **options)

    def pad(self, node: fx.Node, module: nn.ZeroPad2d) -> None:
        left, right, top, bottom = module.padding
        pads = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
        self.node("Pad", [str(node.args[0]), self.constant(f"{node.name}.pads", pads)], node.name)

    def shortcut(self, node: fx.Node, module: ShortcutA) -> None:
        steps = np.array([module.stride, module.stride], np.int64)
        slices = [
            self.constant(f"{node.name}.start", np.zeros(2, np.int64)),
            self.constant(f"{node.name}.end", np.full(2, np.iinfo(np.int64).max)),
            self.constant(f"{node.name}.axes", np.array([2, 3], np.int64)),
            self.constant(f"{node.name}.step", steps),
        ]
        self.node("Slice", [str(node.args[0]), *slices], f"{node.name}.half")
        pads = np.array([0, module.front, 0, 0, 0, module.behind, 0, 0], np.int64)
        self.node("Pad", [f"{node.name}.half", self.constant(f"{node.name}.pads", pads)], node.name)


def write_float(network: Network) -> onnx.ModelProto:
    """uint8 `image` [N, C, H, W] in, `logits` [N, classes] out, everything float32 between.

    Raises CocError for a quantized network or one with exits, which have the integer export.
    """
    if network.quant is not None or network.exits is not None:
        raise CocError("the float export takes a model without quantization and exits")
    body = network.body.eval()
    modules = dict(body.named_modules())
    writer = _Writer()
    skipped: dict[str, str] = {}
    for node in body.graph.nodes:
        if node.name in skipped or node.op == "output":
            continue
        _write(node, modules, writer, skipped)
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


def _write(node: fx.Node, modules: dict[str, nn.Module], writer: _Writer, skipped: dict[str, str]) -> None:
    module = modules.get(str(node.target)) if node.op == "call_module" else None
    inputs = [str(source) for source in node.all_input_nodes]
    if node.op == "placeholder":
        writer.node("Cast", ["image"], "pixels", to=TensorProto.FLOAT)
        grey = writer.constant("grey", np.array(128, np.float32))
        writer.node("Sub", ["pixels", grey], "centred")
        writer.node("Mul", ["centred", writer.constant("unit", np.array(1 / 128, np.float32))], node.name)
    elif isinstance(module, nn.Conv2d):
        users = [(user, modules.get(str(user.target))) for user in node.users]
        norm, batch_norm = users[0] if len(users) == 1 else (node, None)
        if isinstance(batch_norm, nn.BatchNorm2d):
            skipped[norm.name] = node.name
            writer.conv(node, module, batch_norm, norm.name)
        else:
            writer.conv(node, module, None, node.name)
    elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
        writer.norm(node, module)
    elif isinstance(module, nn.ReLU):
        writer.node("Relu", inputs, node.name)
    elif isinstance(module, nn.ReLU6):
        low, high = (writer.constant(f"{node.name}.{v}", np.array(v, np.float32)) for v in (0, 6))
        writer.node("Clip", [*inputs, low, high], node.name)
    elif isinstance(module, ShortcutA):
        writer.shortcut(node, module)
    elif isinstance(module, nn.AdaptiveAvgPool2d):
        writer.node("GlobalAveragePool", inputs, node.name)
    elif isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        writer.pool(node, module)
    elif isinstance(module, nn.ZeroPad2d):
        writer.pad(node, module)
    elif isinstance(module, nn.Flatten):
        writer.node("Flatten", inputs, node.name)
    elif isinstance(module, nn.Dropout | nn.Dropout2d):
        writer.node("Identity", inputs, node.name)
    elif isinstance(module, nn.Linear):
        names = [writer.constant(f"{node.name}.weight", module.weight.detach().numpy())]
        if module.bias is not None:
            names.append(writer.constant(f"{node.name}.bias", module.bias.detach().numpy()))
        writer.node("Gemm", [inputs[0], *names], node.name, transB=1)
    elif node.op == "call_function" and node.target is operator.add:
        writer.node("Add", inputs * (3 - len(inputs)), node.name)
    elif node.op == "call_function" and node.target is torch.cat:
        parts = [str(source) for source in node.args[0]]  # type: ignore[union-attr]
        writer.node("Concat", parts, node.name, axis=1)
    else:
        kind = type(module).__name__ if module is not None else str(node.target)
        raise CocError(f"{node.name}: {kind} cannot be exported to float ONNX")
