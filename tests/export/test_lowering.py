"""The integer graph computes what torch's integer mode computes, and costs what the trainer counts."""

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from coc_deploy.checkpoint import Checkpoint
from coc_deploy.counting import segment_layers
from coc_deploy.network import Network, exit_logits
from coc_deploy.qat import QConv, QLinear
from coc_export.lowering import lower
from coc_runtime.errors import CocError
from coc_runtime.graph import Graph
from coc_runtime.ops import Conv, Linear
from coc_runtime.session import Session
from tiny import digits, float_network, quantized_network

META = {"chain": "QE", "data": "digits", "chain_bits": [1, 8], "original_bitops": 1, "original_bits": 1}
BITS = [(1, 8), (2, 8), (4, 8), (8, 8), (1, 4), (4, 4)]
HEADS = [None, "conv", "linear"]
CASES = list(itertools.product(BITS, ("8", "same"), HEADS))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    path.write_bytes(b"the checkpoint")
    return path


def lowered(network: Network, source: Path) -> Graph:
    return lower(Checkpoint(network, ({"accuracy": 12.5},), dict(META)), source)


@pytest.mark.parametrize(("bits", "first_last", "head"), CASES)
def test_reference_and_torch_agree_on_every_logit_and_cost(
    bits: tuple[int, int], first_last: str, head: str | None, source: Path
) -> None:
    """Negative and zero batch-norm weights included; heads before and after quantization."""
    network = quantized_network(bits, first_last, head, seed=sum(bits), exits_first=head == "linear")
    graph = lowered(network, source)
    images = digits("test").images
    expected = exit_logits(network, images)
    found = Session.from_graph(graph).logits_per_exit(images)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(expected)) > 100, "logits that hardly vary would prove nothing"
    assert [graph.segment_layers(k) for k in range(len(graph.segments))] == segment_layers(network)


@pytest.mark.parametrize("batch", [1, 7, 124])
@pytest.mark.parametrize("threads", [1, 2])
def test_integer_mode_does_not_depend_on_batch_or_threads(
    batch: int, threads: int, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Algorithms that torch picks by batch (Winograd, for one) would not be exact."""
    network = quantized_network((4, 8), "8", "conv")
    images = digits("test").images[: 4 * batch if threads > 1 else 497]
    expected = Session.from_graph(lowered(network, source)).logits_per_exit(images)
    monkeypatch.setattr("coc_deploy.network.batch_size", lambda _: batch)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        np.testing.assert_array_equal(exit_logits(network, images), expected)
    finally:
        torch.set_num_threads(before)


def test_black_white_and_random_images_agree_too(source: Path) -> None:
    network = quantized_network((1, 8), "8", "conv")
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    images[0], images[1], images[2:10] = 0, 255, images[2:10] // 128 * 255
    found = Session.from_graph(lowered(network, source)).logits_per_exit(images)
    np.testing.assert_array_equal(found, exit_logits(network, images))


def test_weights_of_the_graph_are_those_of_the_units(source: Path) -> None:
    network = quantized_network((2, 8), "8", "conv")
    nodes = {n.name: n for s in lowered(network, source).segments for n in s.nodes}
    units = {**dict(network.body.named_modules())}
    for k, head in enumerate(network.heads):
        units |= {f"exit{k}.{name}": module for name, module in head.named_modules()}
    checked = 0
    for name, unit in units.items():
        if isinstance(unit, QConv | QLinear):
            node = nodes[name]
            assert isinstance(node, Conv | Linear)
            np.testing.assert_array_equal(node.weight.integers, unit.fold()[0])
            assert node.weight.bits == unit.weight_bits
            checked += 1
    assert checked == 10 + 4


def test_segments_end_with_the_heads_and_carry_what_they_read(source: Path) -> None:
    network = quantized_network((1, 8), "8", "conv")
    graph = lowered(network, source)
    assert len(graph.segments) == 3 and graph.thresholds == network.thresholds
    for k, segment in enumerate(graph.segments[:-1]):
        head = [node for node in segment.nodes if node.name.startswith(f"exit{k}.")]
        assert head[0].inputs == (segment.carry,) and head[-1].output == segment.logits
    assert not any(node.name.startswith("exit") for node in graph.segments[-1].nodes)


def test_meta_holds_the_hash_of_the_file_and_the_accuracy(source: Path) -> None:
    meta = lowered(quantized_network(), source).meta
    assert meta["source_sha256"] == hashlib.sha256(b"the checkpoint").hexdigest()
    assert meta["accuracy"] == 12.5 and meta["data"] == "digits"


def test_a_float_network_is_refused_with_what_to_do(source: Path) -> None:
    with pytest.raises(CocError, match=r"model\.pt: the model is not quantized; add Q .* --float"):
        lowered(float_network(), source)


@pytest.mark.parametrize("module", [nn.Sigmoid(), nn.ReLU(), nn.MaxPool2d(2)])
@pytest.mark.parametrize("place", ["layer2.0.conv1", "fc"])
def test_an_unsupported_module_is_named(module: nn.Module, place: str, source: Path) -> None:
    network = quantized_network()
    network.body.add_submodule(place, module)
    with pytest.raises(CocError) as error:
        lowered(network, source)
    message = str(error.value)
    assert message.startswith(f"{place}: {type(module).__name__} cannot be exported; supported: convolution")


def test_an_unsupported_module_in_a_head_is_named(source: Path) -> None:
    network = quantized_network(head="linear")
    network.heads[1].add_submodule("fc", nn.Identity())  # type: ignore[operator]
    with pytest.raises(CocError, match=r"exit1\.fc: Identity cannot be exported"):
        lowered(network, source)
