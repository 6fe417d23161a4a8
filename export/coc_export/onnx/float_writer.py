"""Nodes and constants of a float ONNX file as they are collected."""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from torch import fx, nn


class FloatWriter:
    """Collects the nodes of a body, whose names become those of values; shapes: of values, without batch."""

    def __init__(self, body: fx.GraphModule, shapes: dict[str, tuple[int, ...]]) -> None:
        self.shapes = shapes
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._modules = dict(body.named_modules())
        self.folded: set[str] = set()

    def constant(self, name: str, value: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def module(self, node: fx.Node) -> nn.Module | None:
        return self._modules.get(str(node.target)) if node.op == "call_module" else None

    def fold_norm(self, node: fx.Node) -> tuple[nn.BatchNorm2d | None, str]:
        """Batch-norm that alone reads a node's value and is not written by itself then; the value's name."""
        users = list(node.users)
        norm = self.module(users[0]) if len(users) == 1 else None
        if not isinstance(norm, nn.BatchNorm2d):
            return None, node.name
        self.folded.add(users[0].name)
        return norm, users[0].name
