"""model.pt rebuilds every kind of network alone; what is not one is refused in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coc_deploy import checkpoint, recipe
from coc_deploy.checkpoint import Checkpoint
from coc_deploy.network import ExitSpec, Network, exit_logits
from coc_deploy.stages import prune, quantize
from coc_runtime.errors import CocError
from conftest import TinyRun
from tiny import digits, float_network, quantized_network, same_state
from usernets import FIXED, USER, ZOO, images, network
from usernets import quantize as quantize_user

VERSION_2 = Path(__file__).parents[1] / "model_version2.pt"


def pruned() -> Network:
    return prune.transform(float_network(width=8), recipe.parse({"p": {"ratio": 0.5}}))


def pruned_quantized() -> Network:
    return quantize.transform(pruned(), recipe.parse({"q": {"bits": "4x4"}}))


def float_exits() -> Network:
    network = float_network()
    network.add_exits(ExitSpec(("layer1.0", "layer2.0"), "conv", 6))
    network.thresholds = (0.5, 2.0)
    return network.eval()


KINDS: dict[str, Callable[[], Network]] = {
    "float": float_network,
    "shortcut A": lambda: float_network(shortcut="A", channels=3, size=(9, 12)),
    "pruned": pruned,
    "pruned, quantized": pruned_quantized,
    "quantized 1x8": quantized_network,
    "quantized 2x4 same": lambda: quantized_network((2, 4), "same"),
    "exits": float_exits,
    "quantized, exits": lambda: quantized_network((1, 8), head="conv"),
    "exits, quantized": lambda: quantized_network((4, 8), "same", "linear", exits_first=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_comes_back_with_the_same_logits(kind: str, tmp_path: Path) -> None:
    network, path = KINDS[kind](), tmp_path / "model.pt"
    checkpoint.save(path, Checkpoint(network, ({"stage": "x", "accuracy": 1.5},), {"data": "digits"}))
    assert torch.load(path, weights_only=True)["format"] == checkpoint.FORMAT
    loaded = checkpoint.load(path)
    assert loaded.history == ({"stage": "x", "accuracy": 1.5},) and loaded.meta == {"data": "digits"}
    again = loaded.network
    assert (again.arch, again.input_shape, again.quant, again.exits, again.thresholds) == (
        network.arch,
        network.input_shape,
        network.quant,
        network.exits,
        network.thresholds,
    )
    assert same_state(again.state_dict(), network.state_dict()) and not again.training
    images = digits("test").images[:100]
    if network.input_shape != (1, 8, 8):
        images = np.random.default_rng(0).integers(0, 256, (9, *network.input_shape), dtype=np.uint8)
    np.testing.assert_array_equal(exit_logits(again, images), exit_logits(network, images))


def test_saving_what_was_loaded_changes_nothing(tmp_path: Path) -> None:
    first, second = tmp_path / "a.pt", tmp_path / "b.pt"
    checkpoint.save(first, Checkpoint(quantized_network(head="conv")))
    checkpoint.save(second, checkpoint.load(first))
    a, b = (torch.load(path, weights_only=True) for path in (first, second))
    assert same_state(a.pop("state"), b.pop("state")) and a == b


@pytest.mark.parametrize("name", [*USER, *FIXED, *ZOO])
@pytest.mark.parametrize("bits", [None, (2, 4)])
def test_any_network_comes_back_without_its_source(
    name: str, bits: tuple[int, int] | None, tmp_path: Path
) -> None:
    found, path = network(name), tmp_path / "model.pt"
    if bits:
        quantize_user(found, bits)
    checkpoint.save(path, Checkpoint(found))
    again = checkpoint.load(path).network
    assert again.describe() == found.describe() and again.exit_places() == found.exit_places()
    assert same_state(again.state_dict(), found.state_dict())
    some = images(found.input_shape)
    np.testing.assert_array_equal(exit_logits(again, some), exit_logits(found, some))


def test_files_of_version_1_still_load(tmp_path: Path) -> None:
    """They held no body: a ResNet's architecture built it, pruned shapes came from the weights."""
    path = tmp_path / "model.pt"
    for build in KINDS.values():
        found = build()
        checkpoint.save(path, Checkpoint(found))
        data = torch.load(path, weights_only=True)
        del data["body"]
        torch.save(data | {"version": 1}, path)
        again = checkpoint.load(path).network
        assert same_state(again.state_dict(), found.state_dict())
        assert again.describe() == found.describe()


def test_a_file_that_version_2_wrote_gives_the_logits_that_it_gave() -> None:
    """The quantized "dense" of usernets with an exit, as the code of that version wrote it."""
    found = checkpoint.load(VERSION_2)
    logits = exit_logits(found.network, images(found.network.input_shape))
    np.testing.assert_array_equal(logits, np.array(found.meta["logits"], np.float32))
    assert found.network.exits is not None and found.network.exits.positions == ("relu_2",)


Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body["modules"]["conv1"].update(kind="Bilinear"),
        lambda body: body["modules"]["conv1"].update(kind="__import__"),
        lambda body: body["modules"]["conv1"].update(out_channels=10**9),
        lambda body: body["modules"]["conv1"].update(kernel_size=[10**6, 10**6]),
        lambda body: body["modules"]["conv1"].update(stride=[-1, -1]),
        lambda body: body["modules"]["conv1"].update(groups=0),
        lambda body: body["modules"]["conv1"].update(padding=[10**6, 10**6]),
        lambda body: body["modules"]["conv1"].update(padding="same"),
        lambda body: body["modules"]["conv1"].update(device="cuda"),
        lambda body: body["modules"]["bn1"].update(num_features=10**9),
        lambda body: body["modules"]["fc"].update(out_features=10**9),
        lambda body: body["modules"].update({"__class__.x": {"kind": "ReLU"}}),
        lambda body: body["modules"].update({"forward": {"kind": "ReLU"}}),
        lambda body: body["nodes"][1].update(target="missing"),
        lambda body: body["nodes"][1].update(inputs=["later"]),
        lambda body: body["nodes"][1].update(kind="get_attr"),
        lambda body: body["nodes"][1].update(kind="call_method", target="__class__"),
        lambda body: body["nodes"][2].update(name="conv1"),
        lambda body: body["nodes"][2].update(name="a; b"),
        lambda body: body["nodes"].pop(),
        lambda body: body["positions"].update(conv1="nowhere"),
        lambda body: body["cuts"].append("nowhere"),
    ],
)
def test_a_body_that_was_tampered_with_is_told_in_one_line(change: Change, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(path, Checkpoint(float_network()))
    data = torch.load(path, weights_only=True)
    change(data["body"])
    torch.save(data, path)
    assert "damaged coc-deploy model" in refusal(path)


def refusal(path: Path) -> str:
    with pytest.raises(CocError) as error:
        checkpoint.load(path)
    message = str(error.value)
    assert str(path) in message and "\n" not in message
    return message


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    assert "no such file" in refusal(path)
    for content in (b"", b"hello", b"PK\x03\x04 broken"):
        path.write_bytes(content)
        assert "not a coc-deploy model" in refusal(path)
    for value in ([1, 2], {"weight": torch.zeros(3)}, torch.zeros(3), {"format": "other"}):
        torch.save(value, path)
        assert "not a coc-deploy model" in refusal(path)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "model.pt"

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (marker,))

    torch.save({"format": checkpoint.FORMAT, "state": Evil()}, path)
    assert "not a coc-deploy model" in refusal(path)
    assert not marker.exists()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_model_is_refused(share: float, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(path, Checkpoint(float_network()))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert "not a coc-deploy model" in refusal(path)


@pytest.mark.parametrize("version", [0, 4, None])
def test_another_version_is_named(version: int | None, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(path, Checkpoint(float_network()))
    torch.save({**torch.load(path, weights_only=True), "version": version}, path)
    assert f"format version {version}, this coc-deploy reads {checkpoint.VERSION}" in refusal(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("state", {}),
        ("state", None),
        ("architecture", {"name": "resnet8"}),
        ("body", None),
        ("body", {"nodes": [], "modules": {}, "positions": {}, "places": [], "cuts": []}),
        ("image_size", None),
        ("image_size", [10**6, 10**6]),
        ("image_size", [0, 8]),
        ("exits", {"positions": ["nowhere"], "head": "conv", "head_channels": 4}),
        ("quantization", {"bits": 1}),
        ("thresholds", None),
        ("history", None),
    ],
)
def test_damaged_entries_are_told_in_one_line(key: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(path, Checkpoint(float_network()))
    torch.save({**torch.load(path, weights_only=True), key: value}, path)
    assert "damaged coc-deploy model" in refusal(path)


@pytest.mark.parametrize("shape", [(), (4,), (4, 1), (5, 1, 3, 3)])
def test_a_weight_of_an_impossible_shape_is_told_in_one_line(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(path, Checkpoint(float_network()))
    data = torch.load(path, weights_only=True)
    data["state"]["body.conv1.weight"] = torch.zeros(shape)
    torch.save(data, path)
    assert "damaged coc-deploy model" in refusal(path)


def test_a_trained_quantized_model_holds_its_weights_in_two_bytes_without_loss(tiny_run: TinyRun) -> None:
    state = torch.load(tiny_run.model, weights_only=True)["state"]
    weights = [tensor for name, tensor in state.items() if name.endswith("weight") and tensor.dim() > 1]
    assert {tensor.dtype for tensor in weights} == {torch.float16}
    network = checkpoint.load(tiny_run.model).network
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[name].to(tensor.dtype)), name
