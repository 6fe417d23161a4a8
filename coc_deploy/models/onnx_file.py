"""A float ONNX file, from any framework, as a module of torch: `model = "net.onnx"`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import external_data_helper, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from coc_runtime import files
from coc_runtime.errors import CocError

from .onnx_operators import FUNCTIONS, LAYERS, Step, padded_input


class Function(nn.Module):
    """A node without weights."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step

    def forward(self, *given: Any) -> Any:
        return FUNCTIONS[self.step.op](self.step, *given)


class OnnxNetwork(nn.Module):
    """Runs the nodes of a graph in their order; every node is a submodule of its name.

    Values that depend on the images are tensors. All others, shapes above all, are arrays, which ONNX's
    reference evaluator computes.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        graph = model.graph
        self.opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.image, single = _image(graph, set(constants))
        self.logits = _logits(graph)
        self.constants: dict[str, Any] = {**constants, "": None}
        self.steps: list[tuple[Step, str]] = []
        for step in (Step(node, single) for node in graph.node):
            given = [self.constants.get(name) for name in step.inputs]
            if all(name in self.constants for name in step.inputs):
                self.constants.update(zip(step.outputs, self._evaluate(step, given), strict=False))
            else:
                self.steps.append((step, self._part(step)))

    def _part(self, step: Step) -> str:
        """The name of a node's submodule: a layer if its weights are constants, a function, or none."""
        held = [self.constants.get(name) for name in step.inputs]
        module: nn.Module | None = None
        weights = all(value is not None for value in held[1:])
        if step.op in LAYERS and held[0] is None and weights:
            module = LAYERS[step.op](step, held)
        elif step.op in FUNCTIONS:
            module = Function(step)
        if module is None:
            return ""
        name = "".join(letter if letter.isalnum() else "_" for letter in step.name).strip("_") or step.op
        while hasattr(self, name):
            name += "_"
        self.add_module(name, module)
        return name

    def forward(self, images: Tensor) -> Tensor:
        values: dict[str, Any] = {**self.constants, self.image: images}
        for step, part in self.steps:
            given = [values[name] for name in step.inputs]
            values.update(zip(step.outputs, self._run(step, part, given), strict=False))
        return values[self.logits]

    def _run(self, step: Step, part: str, given: list[Any]) -> Sequence[Any]:
        if step.op == "Shape":
            return (np.array(given[0].shape, np.int64)[step.get("start", 0) : step.get("end")],)
        if not any(isinstance(value, Tensor) for value in given):
            return self._evaluate(step, given)
        if not part:
            raise CocError(f"{step.name}: the ONNX operator {step.op} is not supported")
        module = self.get_submodule(part)
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            given = [padded_input(step, given[0], module.kernel_size)]
        result = module(*(given if isinstance(module, Function) else given[:1]))
        return result if isinstance(result, tuple | list) else (result,)

    def _evaluate(self, step: Step, given: list[Any]) -> Sequence[Any]:
        """The results of a node on arrays."""
        named = {name: value for name, value in zip(step.inputs, given, strict=True) if name}
        infos = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(np.asarray(v).dtype), None)
            for n, v in named.items()
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in step.outputs]
        graph = helper.make_graph([step.node], "node", infos, outputs)
        one = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        try:
            return list(ReferenceEvaluator(one).run(None, named))
        except Exception as error:
            detail = " ".join(str(error).split())[:200]
            raise CocError(f"{step.name}: {step.op} on constants fails: {detail}") from error


def _image(graph: onnx.GraphProto, constants: set[str]) -> tuple[str, bool]:
    """The graph's input, and whether it says that there is one image."""
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise CocError(f"has {len(inputs)} inputs, it must have one: float images")
    kind = inputs[0].type.tensor_type
    if kind.elem_type != onnx.TensorProto.FLOAT:
        raise CocError(f"input '{inputs[0].name}' holds no float32 numbers: give the float model")
    return inputs[0].name, bool(kind.shape.dim) and kind.shape.dim[0].dim_value == 1


def _logits(graph: onnx.GraphProto) -> str:
    if len(graph.output) != 1:
        raise CocError(f"has {len(graph.output)} outputs, it must have one: logits")
    return graph.output[0].name


def external(path: Path) -> list[Path]:
    """The files beside an ONNX file that hold its weights; none where it is no ONNX file."""
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # whatever reading bytes that are no ONNX file raises; `load` says so
        return []
    outside = [t for t in model.graph.initializer if external_data_helper.uses_external_data(t)]
    names = {external_data_helper.ExternalDataInfo(tensor).location for tensor in outside}
    return sorted(file for file in (path.parent / name for name in names) if file.is_file())


def load(path: Path) -> OnnxNetwork:
    """The network of an ONNX file; CocError where it is none or holds what is not supported."""
    files.require_regular(path, "'model' names an ONNX file")
    if not path.is_file():
        raise CocError(f"{path}: no such file; 'model' names it relative to the recipe")
    try:
        model = onnx.load(path)
        for output in model.graph.output:
            output.type.tensor_type.shape.SetInParent()  # tf2onnx leaves it out, which the checker refuses
        onnx.checker.check_model(model)
    except Exception as error:
        detail = " ".join(str(error).split())[:200]
        raise CocError(f"{path}: not an ONNX model: {detail}") from error
    try:
        with torch.random.fork_rng(devices=[]):
            return OnnxNetwork(model)
    except CocError as error:
        raise CocError(f"{path}: {error}") from error
