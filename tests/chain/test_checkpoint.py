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


@pytest.mark.parametrize("version", [0, 2, None])
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
        ("architecture", {"name": "vgg", "width": 4, "shortcut": "B", "channels": 1, "classes": 10}),
        ("image_size", None),
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
