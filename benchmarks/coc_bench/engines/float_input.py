"""Float ONNX models whose input takes floats: for engines that know no uint8 images."""

from pathlib import Path
from typing import Any

from coc_runtime.errors import CocError


def with_float_input(source: Path) -> Any:
    """The ONNX model (a ModelProto) without the Cast of its input `image`, which becomes float32.

    CocError where the package onnx is missing or the model does not begin with that Cast.
    """
    try:
        import onnx
    except ImportError as error:
        raise CocError(f"converting needs the package onnx ({error}): pip install onnx") from error
    model = onnx.load(str(source))
    graph = model.graph
    readers = [node for node in graph.node if "image" in node.input]
    if len(readers) != 1 or readers[0].op_type != "Cast":
        raise CocError(f"{source.name}: its input `image` does not go into a Cast")
    (cast,) = readers
    graph.node.remove(cast)
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name == cast.output[0]:
                node.input[position] = "image"
    kind = graph.input[0].type.tensor_type
    kind.elem_type = onnx.TensorProto.FLOAT
    kind.shape.dim[0].dim_value = 1
    return model
