"""Files that the tests of coc-bench read: artifacts, float models, image folders."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from coc_export.onnx.writer import write_onnx
from coc_runtime import cocwrite
from coc_runtime.session import Session
from graphs import random_graph, random_images

SIZE = 8
CLASSES = 10
PER_CLASS = 6


def artifact(path: Path, *, exits: int, seed: int = 3, classes: int = CLASSES) -> Path:
    """A compressed model with random weights for images [3, 8, 8], of the kind that the suffix says."""
    graph = random_graph(seed, exits=exits, size=SIZE, classes=classes)
    if path.suffix == ".coc":
        path.write_bytes(cocwrite.dump(graph))
    else:
        onnx.save(write_onnx(graph), str(path))
    return path


def float_model(path: Path, *, channels: int = 3, seed: int = 0) -> Path:
    """Convolution, ReLU, pooling and a linear layer on images [channels, 8, 8]: `image` to `logits`."""
    rng = np.random.default_rng(seed)
    weights = {
        "middle": np.float32(128),
        "unit": np.float32(1 / 128),
        "kernel": rng.standard_normal((16, channels, 3, 3)).astype(np.float32),
        "matrix": rng.standard_normal((16, CLASSES)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pixels", "middle"], ["centred"]),
        helper.make_node("Mul", ["centred", "unit"], ["values"]),
        helper.make_node("Conv", ["values", "kernel"], ["sums"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["sums"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["means"]),
        helper.make_node("Flatten", ["means"], ["features"]),
        helper.make_node("MatMul", ["features", "matrix"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "float",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", channels, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def image_folder(root: Path, graph_seed: int = 3) -> str:
    """The spec of an image folder whose test labels the artifact of this seed gets right for about half."""
    graph = random_graph(graph_seed, exits=2, size=SIZE, classes=CLASSES)
    for part, seed in (("train", 1), ("test", 2)):
        images = random_images(graph, CLASSES * PER_CLASS, seed)
        predicted = Session.from_graph(graph).run(images).label
        for index, image in enumerate(images):
            label = predicted[index] if index % 2 else index % CLASSES
            folder = root / part / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{index:03}.png")
    for label in range(CLASSES):  # Every class, so that class names sort into label order.
        folder = root / "train" / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[label].transpose(1, 2, 0)).save(folder / "extra.png")
    return f"imagefolder:{root}"
