"""The float export computes what torch computes, within rounding."""

import numpy as np
import onnxruntime
import pytest

from coc_deploy import recipe
from coc_deploy.channels import remove_channels
from coc_deploy.network import ExitSpec, Network
from coc_deploy.stages import prune
from coc_export.onnx.float_network import write_float
from coc_runtime.errors import CocError
from tiny import digits, float_network, plain_forward, quantized_network, spoil_gammas
from usernets import FIXED, USER, ZOO, images, network, settled


def run(network: Network, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(write_float(network).SerializeToString())
    return np.asarray(session.run(["logits"], {"image": images})[0])


@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize(("channels", "size"), [(1, (8, 8)), (3, (9, 12)), (3, (32, 32))])
def test_logits_are_torchs_within_rounding(shortcut: str, channels: int, size: tuple[int, int]) -> None:
    network = float_network(shortcut=shortcut, channels=channels, size=size)
    spoil_gammas(network)
    images = np.random.default_rng(1).integers(0, 256, (6, channels, *size), dtype=np.uint8)
    expected = plain_forward(network, images)
    np.testing.assert_allclose(run(network, images), expected, atol=1e-5 * np.abs(expected).max() + 1e-6)


def test_a_trained_and_pruned_network_classifies_the_test_split_alike() -> None:
    network = float_network(width=8, steps=18)
    network = prune.transform(network, recipe.parse({"p": {"ratio": 0.25, "round_to": 2}}))
    images = digits("test").images
    expected = plain_forward(network, images)
    found = run(network, images)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))


@pytest.mark.parametrize("name", [*USER, *FIXED, *ZOO])
@pytest.mark.parametrize("pruned", [False, True])
def test_any_networks_logits_are_torchs_within_rounding(name: str, pruned: bool) -> None:
    found = network(name)
    if pruned and name not in FIXED:
        remove_channels(found, 0.4)
        settled(found)
    spoil_gammas(found)
    some = images(found.input_shape)
    expected = plain_forward(found, some)
    np.testing.assert_allclose(run(found, some), expected, atol=1e-5 * np.abs(expected).max() + 1e-6)


def test_quantized_networks_and_those_with_exits_are_refused() -> None:
    with_exits = float_network()
    with_exits.add_exits(ExitSpec(("layer1.0",), "linear", 4))
    for other in (with_exits, quantized_network()):
        with pytest.raises(CocError, match="without quantization and exits"):
            write_float(other)
