"""ncnn: float. The model is written in ncnn's own form, since its package holds no converter.

The form: `.param`, text, one layer a line (type, name, counts and names of inputs and outputs, parameters as
`number=value`), and `.bin`, the weights in the order of the layers. A blob may be read only once: a Split
layer copies it for several readers. https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from coc_runtime.errors import CocError

from ..subjects import Precision, Subject
from .base import Converted, Engine, Job, PeerRunner
from .float_input import with_float_input

MAGIC = 7767517
FLOAT32 = np.zeros(1, "<u4").tobytes()
"""The tag before weights: they are float32."""
SWITCHED_OFF = (
    "use_vulkan_compute",
    "use_fp16_packed",
    "use_fp16_storage",
    "use_fp16_arithmetic",
    "use_bf16_packed",
    "use_bf16_storage",
)
"""So that float means float32, as in the other engines."""
NO_INT8 = "int8 needs ncnn2int8 and ncnn2table, which ncnn's package does not hold"


class NcnnRunner(PeerRunner):
    """One image at a time: ncnn has no batches."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject, "ncnn")
        import ncnn

        self._ncnn, self._net = ncnn, ncnn.Net()
        self._net.opt.num_threads = subject.threads
        for option in SWITCHED_OFF:
            setattr(self._net.opt, option, False)
        weights = subject.path.with_suffix(".bin")
        if self._net.load_param(str(subject.path)) or self._net.load_model(str(weights)):
            raise CocError(f"{subject.name}: ncnn cannot load it")

    def _logits(self, images: np.ndarray) -> np.ndarray:
        return np.stack([self._one(image) for image in images])

    def _one(self, image: np.ndarray) -> np.ndarray:
        extractor = self._net.create_extractor()
        pixels = np.ascontiguousarray(image, dtype=np.float32)
        # A Mat over an array's memory makes ncnn crash in layers that work in place: it gets a copy.
        extractor.input("image", self._ncnn.Mat(pixels).clone())
        _, logits = extractor.extract("logits")
        return np.array(logits).reshape(-1)


class _Writer:
    """Layers and weights of the model so far."""

    def __init__(self, model: Any) -> None:
        from onnx import helper, numpy_helper

        self._values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self._attributes = helper.get_attribute_value
        self._nodes = list(model.graph.node)
        self._fused: set[str] = set()
        """outputs of ReLU nodes that a convolution computes itself"""
        self._readers = Counter(name for node in self._nodes for name in node.input)
        self._taken: Counter[str] = Counter()
        self.lines: list[str] = []
        self.blobs = 0
        self.weights: list[bytes] = []

    def write(self, shape: tuple[int, ...]) -> None:
        channels, height, width = shape
        self._line("Input", "image", [], "image", {0: width, 1: height, 2: channels})
        for node in self._nodes:
            rule = RULES.get(node.op_type)
            if rule is None:
                raise CocError(f"there is no rule for the operator {node.op_type} of node {node.name!r}")
            if node.output[0] not in self._fused:
                rule(self, node)

    def value(self, name: str) -> np.ndarray | None:
        """A weight of the model; None for what is computed."""
        return self._values.get(name)

    def integers(self, name: str) -> np.ndarray:
        """The stored numbers of an input that must not be computed."""
        value = self.value(name)
        if value is None:
            raise CocError(f"{name!r} must be stored, not computed")
        return value

    def attributes(self, node: Any) -> dict[str, Any]:
        return {entry.name: self._attributes(entry) for entry in node.attribute}

    def relu_after(self, node: Any) -> str | None:
        """The output of the ReLU that alone reads this node; it need not be written itself."""
        (output,) = node.output
        readers = [other for other in self._nodes if output in other.input]
        if len(readers) != 1 or readers[0].op_type != "Relu":
            return None
        self._fused.add(readers[0].output[0])
        return str(readers[0].output[0])

    def layer(self, kind: str, node: Any, parameters: dict[int, Any], output: str | None = None) -> None:
        """One layer that reads the computed inputs of a node."""
        inputs = [self._blob(name) for name in node.input if name and self.value(name) is None]
        self._line(kind, f"n{len(self.lines)}", inputs, output or node.output[0], parameters)

    def store(self, *arrays: np.ndarray) -> None:
        self.weights += [array.astype("<f4").tobytes() for array in arrays]

    def _blob(self, name: str) -> str:
        """A name under which a reader finds a blob; each reader has its own where there are several."""
        if self._readers[name] == 1:
            return name
        self._taken[name] += 1
        return f"{name}.{self._taken[name]}"

    def _line(self, kind: str, name: str, inputs: list[str], output: str, parameters: dict[int, Any]) -> None:
        words = [f"{number}={value}" for number, value in parameters.items()]
        self.lines.append(" ".join([kind, name, str(len(inputs)), "1", *inputs, output, *words]))
        self.blobs += 1
        readers = self._readers[output]
        if readers > 1:
            copies = [f"{output}.{k + 1}" for k in range(readers)]
            self.lines.append(" ".join(["Split", f"s{len(self.lines)}", "1", str(readers), output, *copies]))
            self.blobs += readers


def _convolution(writer: _Writer, node: Any) -> None:
    attributes = writer.attributes(node)
    weights = writer.value(node.input[1])
    bias = writer.value(node.input[2]) if len(node.input) > 2 else None
    if weights is None or weights.ndim != 4:
        raise CocError(f"node {node.name!r}: a convolution's weights must be stored, and of two dimensions")
    height, width = weights.shape[2:]
    (down, right), (dilate_y, dilate_x) = (attributes.get(key, [1, 1]) for key in ("strides", "dilations"))
    top, left, bottom, after = attributes.get("pads", [0, 0, 0, 0])
    group = attributes.get("group", 1)
    fused = writer.relu_after(node)
    parameters = {0: len(weights), 1: width, 11: height, 2: dilate_x, 12: dilate_y, 3: right, 13: down}
    parameters |= {4: left, 14: top, 15: after, 16: bottom, 5: int(bias is not None), 6: weights.size}
    parameters |= {7: group} if group > 1 else {}
    parameters |= {9: 1} if fused else {}
    writer.layer("ConvolutionDepthWise" if group > 1 else "Convolution", node, parameters, fused)
    writer.weights.append(FLOAT32)
    writer.store(weights, *([] if bias is None else [bias]))


def _linear(writer: _Writer, node: Any) -> None:
    attributes = writer.attributes(node)
    weights = writer.value(node.input[1])
    bias = writer.value(node.input[2]) if len(node.input) > 2 else None
    if (
        weights is None
        or attributes.get("transA")
        or {attributes.get(k, 1.0) for k in ("alpha", "beta")} != {1}
    ):
        raise CocError(f"node {node.name!r}: only a linear layer with stored weights is understood")
    if node.op_type == "MatMul" or not attributes.get("transB"):
        weights = weights.T
    parameters = {0: len(weights), 1: int(bias is not None), 2: weights.size}
    writer.layer("InnerProduct", node, parameters)
    writer.weights.append(FLOAT32)
    writer.store(np.ascontiguousarray(weights), *([] if bias is None else [bias]))


def _arithmetic(operation: int) -> Callable[[_Writer, Any], None]:
    """Addition, subtraction or multiplication of two blobs, or of a blob and a stored number."""

    def rule(writer: _Writer, node: Any) -> None:
        stored = [writer.value(name) for name in node.input]
        if stored[0] is not None or (stored[1] is not None and stored[1].size > 1):
            raise CocError(f"node {node.name!r}: {node.op_type} with a stored array is not understood")
        number = {} if stored[1] is None else {1: 1, 2: float(stored[1].reshape(()))}
        writer.layer("BinaryOp", node, {0: operation} | number)

    return rule


def _pool(maximum: bool) -> Callable[[_Writer, Any], None]:
    def rule(writer: _Writer, node: Any) -> None:
        attributes = writer.attributes(node)
        (height, width), (down, right) = attributes["kernel_shape"], attributes.get("strides", [1, 1])
        top, left, bottom, after = attributes.get("pads", [0, 0, 0, 0])
        if attributes.get("ceil_mode"):
            raise CocError(f"node {node.name!r}: {node.op_type} with ceil_mode is not understood")
        parameters = {0: 0 if maximum else 1, 1: width, 11: height, 2: right, 12: down, 3: left, 13: top}
        parameters |= {14: after, 15: bottom, 5: 1}
        parameters |= {} if maximum else {6: int(attributes.get("count_include_pad", 0))}
        writer.layer("Pooling", node, parameters)

    return rule


def _clip(writer: _Writer, node: Any) -> None:
    bounds = [writer.value(name) for name in node.input[1:]]
    low, high = (float(bound.reshape(())) for bound in bounds if bound is not None)
    writer.layer("Clip", node, {0: low, 1: high})


def _slice(writer: _Writer, node: Any) -> None:
    """Every n-th row and column: a pooling of windows of one pixel."""
    starts, ends, axes, steps = (writer.integers(name) for name in node.input[1:])
    if list(starts) != [0, 0] or list(axes) != [2, 3] or min(ends) < 1 << 31 or min(steps) < 1:
        raise CocError(f"node {node.name!r}: only a Slice of every n-th row and column is understood")
    down, right = (int(step) for step in steps)
    writer.layer("Pooling", node, {0: 0, 1: 1, 11: 1, 2: right, 12: down, 5: 1})


def _pad(writer: _Writer, node: Any) -> None:
    pads = [int(pad) for pad in writer.integers(node.input[1])]
    if len(pads) != 8 or pads[0] or pads[4] or len(node.input) > 2 or writer.attributes(node):
        raise CocError(f"node {node.name!r}: only a Pad of images with zeros is understood")
    _, front, top, left, _, behind, bottom, right = pads
    writer.layer("Padding", node, {0: top, 1: bottom, 2: left, 3: right, 7: front, 8: behind})


def _normalization(writer: _Writer, node: Any) -> None:
    scale, bias, mean, variance = (writer.value(name) for name in node.input[1:5])
    if scale is None or bias is None or mean is None or variance is None:
        raise CocError(f"node {node.name!r}: a batch normalization's statistics must be stored")
    epsilon = writer.attributes(node).get("epsilon", 1e-5)
    writer.layer("BatchNorm", node, {0: scale.size, 1: epsilon})
    writer.store(scale, mean, variance, bias)


def _concat(writer: _Writer, node: Any) -> None:
    if writer.attributes(node)["axis"] != 1:
        raise CocError(f"node {node.name!r}: only channels can be concatenated")
    writer.layer("Concat", node, {0: 0})


RULES: dict[str, Callable[[_Writer, Any], None]] = {
    "Conv": _convolution,
    "Gemm": _linear,
    "MatMul": _linear,
    "Add": _arithmetic(0),
    "Sub": _arithmetic(1),
    "Mul": _arithmetic(2),
    "MaxPool": _pool(True),
    "AveragePool": _pool(False),
    "GlobalAveragePool": lambda writer, node: writer.layer("Pooling", node, {0: 1, 4: 1}),
    "Relu": lambda writer, node: writer.layer("ReLU", node, {}),
    "BatchNormalization": _normalization,
    "Slice": _slice,
    "Pad": _pad,
    "Clip": _clip,
    "Concat": _concat,
    "Flatten": lambda writer, node: writer.layer("Flatten", node, {}),
    "Identity": lambda writer, node: writer.layer("Noop", node, {}),
}
"""How each operator of a float model is written."""


def _convert(job: Job) -> Converted:
    if job.precision is Precision.INT8:
        raise CocError(NO_INT8)
    writer = _Writer(with_float_input(job.source))
    writer.write(job.calibration.shape[1:])
    target = job.folder / "model.param"
    target.write_text("\n".join([str(MAGIC), f"{len(writer.lines)} {writer.blobs}", *writer.lines, ""]))
    target.with_suffix(".bin").write_bytes(b"".join(writer.weights))
    return Converted(target, {"converter": "coc-bench's own", "float_type": "f32"})


ENGINE = Engine("ncnn", "ncnn", "ncnn", _convert, NcnnRunner)
