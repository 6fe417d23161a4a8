"""A float ONNX file as the original network: what it computes, its names, and refusals in a line."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.nn import functional as f

from coc_deploy import keys, recipe
from coc_deploy.cli import main
from coc_deploy.models import onnx_file
from coc_deploy.network import Network
from coc_deploy.stages import distill
from coc_runtime.errors import CocError
from tiny import write_recipe
from usernets import USER

SHAPE = (3, 16, 20)


class Gated(nn.Module):
    """A gate of channels, hard-swish, a slice, padding on one side, average pooling and a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.gate = nn.Conv2d(8, 8, 1)
        self.part = nn.Conv2d(4, 6, 3, groups=2)
        self.fc1 = nn.Linear(6, 7)
        self.fc2 = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = f.hardswish(self.bn(self.stem(x)))
        x = x * f.hardsigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        first, second = x.chunk(2, 1)
        x = f.avg_pool2d(self.part(f.pad(first * 0.5 + second, (0, 1, 1, 0))), 2)
        x = f.leaky_relu(self.fc1(x.amax((2, 3))), 0.2)
        return self.fc2(x).log_softmax(1)


def exported(module: nn.Module, path: Path, shape: tuple[int, ...] = SHAPE, *, dynamic: bool = True) -> Path:
    """The module as torch.onnx writes it; dynamic: with any number of images."""
    axes = {"dynamic_shapes": ({0: torch.export.Dim.DYNAMIC},)} if dynamic else {}
    images = torch.randn(2 if dynamic else 1, *shape)
    torch.onnx.export(module.eval(), (images,), path, dynamo=True, external_data=False, verbose=False, **axes)
    return path


def settled(module: nn.Module) -> nn.Module:
    torch.manual_seed(2)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.uniform_(norm.running_mean, -1, 1)
            nn.init.uniform_(norm.running_var, 0.5, 2)
    return module.eval()


@pytest.mark.parametrize("dynamic", [True, False], ids=["any batch", "one image"])
@pytest.mark.parametrize("name", ["gated", *USER])
def test_a_file_of_torch_gives_what_the_module_gives(name: str, dynamic: bool, tmp_path: Path) -> None:
    module, shape = (Gated(), SHAPE) if name == "gated" else (USER[name][0](), USER[name][1])
    settled(module)
    loaded = onnx_file.load(exported(module, tmp_path / "net.onnx", shape, dynamic=dynamic)).eval()
    images = torch.randn(3, *shape)
    with torch.no_grad():
        expected, found = module(images), loaded(images)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        network = Network.of(loaded, shape, expected.shape[1]).eval()
        (logits,) = network(images)
    torch.testing.assert_close(logits.log_softmax(1), expected.log_softmax(1), rtol=1e-4, atol=1e-5)


def one(
    op: str, *, inputs: int = 1, skipped: int = 0, weights: tuple[np.ndarray, ...] = (), **attributes: Any
) -> onnx.ModelProto:
    """A file of a single node that reads images [N, 4, 6, 6], some optional inputs left out, then weights."""
    names = [f"w{index}" for index in range(len(weights))]
    images = [f"x{index}" for index in range(inputs)]
    given = [*images, *[""] * skipped, *names]
    node = helper.make_node(op, given, ["y"], name="the_node", **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4, 6, 6]) for name in images],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.asarray(value), name)
            for name, value in zip(names, weights, strict=True)
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


NORM = tuple(np.float32(v) for v in ([1, 2, 3, 4], [0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], [1, 2, 1, 2]))
NEAREST = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
WINDOW = {"kernel_shape": [3, 3], "strides": [2, 2]}
UNEVEN = {"kernel_shape": [3, 2], "auto_pad": "SAME_UPPER", "count_include_pad": 1}

NODES = {
    "Clip": one("Clip", weights=(np.float32(-0.5), np.float32(0.7))),
    "HardSigmoid": one("HardSigmoid", alpha=0.3, beta=0.4),
    "LeakyRelu": one("LeakyRelu"),
    "PRelu": one("PRelu", weights=(numbers(4, 1, 1),)),
    "AveragePool": one("AveragePool", pads=[1, 1, 1, 1], **WINDOW),
    "AveragePool counted": one("AveragePool", **UNEVEN),
    "MaxPool": one("MaxPool", auto_pad="SAME_LOWER", **WINDOW),
    "MaxPool ceil": one("MaxPool", kernel_shape=[2, 2], strides=[4, 4], ceil_mode=1),
    "GlobalMaxPool": one("GlobalMaxPool"),
    "ReduceMean": one("ReduceMean", weights=(integers(2, 3),), keepdims=0),
    "Reshape": one("Reshape", weights=(integers(0, 2, -1, 6),)),
    "Transpose": one("Transpose", perm=[0, 2, 1, 3]),
    "Slice": one("Slice", weights=(integers(1), integers(99), integers(1), integers(2))),
    "Gather": one("Gather", weights=(integers(3, 0, -3),), axis=1),
    "Pad": one("Pad", weights=(integers(0, 0, 1, 0, 0, 0, 0, 2), np.float32(0.5))),
    "Pad edge": one("Pad", weights=(integers(0, 0, 1, 1, 0, 0, 1, 1),), mode="edge"),
    "Resize": one("Resize", skipped=1, weights=(np.float32([1, 1, 2, 2]),), **NEAREST),
    "DepthToSpace": one("DepthToSpace", blocksize=2),
    "SpaceToDepth": one("SpaceToDepth", blocksize=2),
    "Conv same": one("Conv", weights=(numbers(3, 4, 2, 3),), auto_pad="SAME_LOWER", strides=[1, 2]),
    "Conv uneven": one("Conv", weights=(numbers(4, 2, 3, 3), numbers(4)), pads=[0, 1, 2, 0], group=2),
    "ConvTranspose": one("ConvTranspose", weights=(numbers(4, 2, 2, 2),), strides=[2, 2]),
    "BatchNormalization": one("BatchNormalization", weights=NORM),
}


@pytest.mark.parametrize("name", NODES)
def test_a_node_computes_what_onnx_runtime_computes(name: str, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    onnx.save(NODES[name], tmp_path / "one.onnx")
    images = np.random.default_rng(1).normal(size=(2, 4, 6, 6)).astype(np.float32)
    session = ort.InferenceSession(tmp_path / "one.onnx", providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x0": images})
    found = onnx_file.load(tmp_path / "one.onnx").eval()(torch.from_numpy(images)).detach().numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (one("Add", inputs=2), "has 2 inputs, it must have one: float images"),
        (one("LpNormalization", axis=1), "the_node: the ONNX operator LpNormalization is not supported"),
        (one("Conv", weights=(numbers(3, 4, 3),), kernel_shape=[3]), "fails on images of this size"),
        (one("Flatten", axis=2), "the_node: Flatten with axis 2 is not supported"),
        (one("Resize", skipped=1, weights=(np.float32([1, 1, 2, 2]),), mode="cubic"), "with mode 'cubic'"),
        (one("AveragePool", auto_pad="SAME_UPPER", kernel_shape=[2, 2]), "padding that is not counted"),
        (one("LayerNormalization", weights=(numbers(6),)), "the ONNX operator LayerNormalization"),
        (one("Softmax", axis=2), "the_node: softmax inside the network is not supported"),
    ],
)
def test_what_is_not_supported_is_refused_by_node(model: onnx.ModelProto, words: str, tmp_path: Path) -> None:
    onnx.save(model, tmp_path / "one.onnx")
    with pytest.raises(CocError) as error:
        Network.of(onnx_file.load(tmp_path / "one.onnx"), (4, 6, 6), 4)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert "onnx_operators.py" not in str(error.value), "a line of ours is no help"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no onnx", "net.onnx: not an ONNX model"),
        (b"", "net.onnx: not an ONNX model"),
        (None, "net.onnx: no such file; 'model' names it relative to the recipe"),
    ],
)
def test_what_is_no_onnx_file_is_refused(data: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(CocError, match=words):
        onnx_file.load(path)


RECIPE = """\
chain = "P"
data = "digits"
[original]
model = "net.onnx"
"""


def digits_net() -> nn.Module:
    layers = (nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    return nn.Sequential(*layers)


def test_a_recipe_takes_a_file_with_its_weights_and_trains_gently(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = digits_net()
    exported(module, tmp_path / "net.onnx", (1, 8, 8))
    path = write_recipe(tmp_path, RECIPE)
    chosen = recipe.load(path, [])
    assert (chosen.original.epochs, chosen.original.lr) == (3, 0.01)
    assert recipe.load(path, ["original.lr=0.2"]).original.lr == 0.2
    network = distill.build(chosen.original, 1, 10, (8, 8)).eval()
    pixels = torch.rand(4, 1, 8, 8).mul(256).floor()
    with torch.no_grad():
        expected = module.eval()(pixels / 127.5 - 1)  # pixels of 0 to 1, of mean and deviation 0.5
        torch.testing.assert_close(network((pixels - 128) / 128)[0], expected, rtol=1e-4, atol=1e-5)
    assert main([str(path), "--check"]) == 0
    assert "net.onnx" in capsys.readouterr().out


@pytest.mark.parametrize("outside", [False, True], ids=["inside", "weights in a file beside"])
def test_other_weights_are_another_original(outside: bool, tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        path = exported(digits_net(), tmp_path / "net.onnx", (1, 8, 8))
        if outside:
            model = onnx.load(path)
            onnx.save(model, path, save_as_external_data=True, location="net.data", size_threshold=0)
            assert onnx_file.external(path) == [tmp_path / "net.data"]
        onnx_file.load(path)
        chosen = recipe.load(write_recipe(tmp_path, RECIPE), [])
        found.append(keys.settings(chosen, "")["original"]["model"])
        (tmp_path / "net.data").unlink(missing_ok=True)
    assert found[0] != found[1]


def classifier() -> Path:
    """The text-direction classifier of rapidocr-onnxruntime, which PaddlePaddle exported."""
    spec = importlib.util.find_spec("rapidocr_onnxruntime")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("needs rapidocr-onnxruntime")
    return Path(spec.submodule_search_locations[0]) / "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"


def text_lines() -> tuple[np.ndarray, np.ndarray]:
    """Rendered lines as the classifier wants them, float32 [N, 3, 48, 192] in -1 to 1; which are turned."""
    font = ImageFont.load_default(34)
    images, turned = [], []
    for text in (
        "Invoice 2041",
        "Exact integers",
        "open daily",
        "Quick brown",
        "No. 37 b",
        "latency",
        "Gate 12",
    ):
        image = Image.new("RGB", (192, 48), "white")
        ImageDraw.Draw(image).text((4, 2), text, "black", font)
        for turn in (False, True):
            images.append(np.asarray(image.rotate(180) if turn else image).transpose(2, 0, 1))
            turned.append(turn)
    return (np.stack(images) / np.float32(127.5) - 1).astype(np.float32), np.array(turned)


def test_the_classifier_of_text_directions_is_traced_as_it_is() -> None:
    ort, path = pytest.importorskip("onnxruntime"), classifier()
    images, turned = text_lines()
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {session.get_inputs()[0].name: images})
    network = Network.of(onnx_file.load(path), (3, 48, 192), 2).eval()
    with torch.no_grad():
        (logits,) = network(torch.from_numpy(images))
    np.testing.assert_allclose(logits.softmax(1).numpy(), expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(logits.argmax(1).numpy() == 1, turned)
