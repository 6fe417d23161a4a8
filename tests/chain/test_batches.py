"""A pass takes as many images as its memory holds; what comes out does not depend on how many those are."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from coc_deploy import norms, qat
from coc_deploy.calibration import calibrate
from coc_deploy.network import ExitSpec, Network, batch_size, exit_logits, to_input
from coc_deploy.qat import ActQuant, Mode
from coc_deploy.quantizers import QuantSpec
from coc_deploy.state import Inputs
from coc_export import parity
from coc_runtime import CocError, batches, cocwrite
from coc_runtime.session import Session
from graphs import random_graph, random_images
from tiny import digits, float_network, quantized_network

ACTIVATION = 4 * 8 * 8
"""Numbers in the largest activation of `float_network`, its stem's output."""


def memory_for(images: int, monkeypatch: pytest.MonkeyPatch, activation: int = ACTIVATION) -> None:
    monkeypatch.setattr(batches, "MEMORY", images * 4 * batches.COPIES * activation)


def sizes_seen(network: Network) -> list[int]:
    """The numbers of images of all later passes."""
    seen: list[int] = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    return seen


def test_as_many_images_as_fit_but_one_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    memory_for(10, monkeypatch, 100)
    assert [batches.fitting(500, numbers) for numbers in (1, 100, 101, 1000, 1001)] == [500, 10, 9, 1, 1]
    images = np.arange(10).reshape(10, 1, 1, 1)
    cut = list(batches.cut(images, 4))
    assert [len(part) for part in cut] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(cut), images)


def test_the_largest_activation_counts_heads_included(monkeypatch: pytest.MonkeyPatch) -> None:
    memory_for(70, monkeypatch)
    network = float_network()
    assert batch_size(network) == 70 and batch_size(network, 9) == 9
    network.add_exits(ExitSpec(("layer1.0",), "conv", 160))  # at half the image's height and width
    assert batch_size(network) == 7
    monkeypatch.setattr(batches, "MEMORY", 1 << 40)
    assert batch_size(network) == 500


def test_logits_in_integer_mode_do_not_depend_on_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = quantized_network(head="conv"), digits("test").images[:100]
    whole = exit_logits(network, images)
    memory_for(7, monkeypatch)
    seen = sizes_seen(network)
    np.testing.assert_array_equal(exit_logits(network, images), whole)
    assert seen == [7] * 14 + [2]


@pytest.mark.parametrize("percentile", [50.0, 99.0, 99.9, 100.0])
@pytest.mark.parametrize("signed", [True, False])
def test_the_percentile_of_a_group_is_that_of_all_its_values_however_it_is_cut(
    percentile: float, signed: bool
) -> None:
    values = torch.from_numpy(np.random.default_rng(0).standard_normal((60, 3, 5, 5)).astype(np.float32))
    seen = (values.abs() if signed else values.clamp(0)).flatten()
    expected = float(seen.kthvalue(int(len(seen) * percentile / 100)).values)
    for size in (1, 7, 59, 60):
        act = ActQuant(8, signed, percentile=percentile)
        act.mode = Mode.OBSERVE
        act.begin(len(values))
        for part in values.split(size):
            act(part)
        act.end()
        assert act.peak == expected
    alone = ActQuant(8, signed, percentile=percentile)
    alone.mode = Mode.OBSERVE
    alone(values)
    assert alone.peak == expected


def ranges(network: Network, memory: int, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, list[int]]:
    """Peak and exponent of every activation after a calibration, and the sizes of its passes."""
    calibrated = copy.deepcopy(network)
    calibrated.quantize(QuantSpec(1, 8, 8))
    memory_for(memory, monkeypatch)
    seen = sizes_seen(calibrated)
    calibrate(calibrated, Inputs(digits("held-out").images, 50, 2))
    acts = [module for module in calibrated.modules() if isinstance(module, ActQuant)]
    return np.array([(act.peak, int(act.exponent)) for act in acts]), seen


def test_calibrated_ranges_do_not_depend_on_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    network = float_network(steps=3)
    whole, seen = ranges(network, 1000, monkeypatch)
    assert seen == [50, 50]
    observed = copy.deepcopy(network)
    observed.quantize(QuantSpec(1, 8, 8))
    qat.set_mode(observed.eval(), Mode.OBSERVE)
    for x in Inputs(digits("held-out").images, 50, 2):
        observed(x)
    acts = [module for module in observed.modules() if isinstance(module, ActQuant)]
    np.testing.assert_array_equal(whole[:, 0], [act.peak for act in acts])
    again, seen = ranges(network, 8, monkeypatch)
    assert max(seen) <= 8 and sum(seen) == 100
    np.testing.assert_allclose(again[:, 0], whole[:, 0], rtol=1e-5)  # a float network's sums
    np.testing.assert_array_equal(again[:, 1], whole[:, 1])
    assert len(set(whole[:, 1])) > 2


def test_statistics_are_renewed_within_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    network = float_network(steps=3)
    memory_for(20, monkeypatch)
    seen = sizes_seen(network)
    norms.renew(network, Inputs(digits("held-out").images, 50, 2))
    assert max(seen) <= 20 and sum(seen) == 100 and max(seen) - min(seen) <= 1


def test_inputs_are_made_when_they_are_asked_for() -> None:
    images = digits("held-out").images
    inputs = Inputs(images, 50, 8)
    assert [len(x) for x in inputs] == [50, 50, len(images) - 100]
    torch.testing.assert_close(inputs[-1], to_input(images[100:]), rtol=0, atol=0)
    assert len(Inputs(images, 50, 1)) == 1


def test_parity_looks_at_no_more_images_at_once_than_memory_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = random_graph(3, exits=1)
    images = random_images(graph, 23, 1)
    whole = Session.from_graph(graph).logits_per_exit(images)
    memory_for(5, monkeypatch, batches.largest(graph))
    seen: list[int] = []
    session = Session.from_graph(graph)
    inner = session.logits_per_exit
    monkeypatch.setattr(session, "logits_per_exit", lambda some: seen.append(len(some)) or inner(some))
    np.testing.assert_array_equal(parity.all_logits(session, images), whole)
    assert seen == [5, 5, 5, 5, 3]
    (tmp_path / "model.coc").write_bytes(cocwrite.dump(graph))
    np.testing.assert_array_equal(parity.all_logits(Session(tmp_path / "model.coc"), images), whole)


@pytest.mark.parametrize(
    "images",
    [np.full((2, 1, 8, 8), np.nan, np.float32), np.ma.masked_equal(np.zeros((2, 1, 8, 8), np.uint8), 0)],
    ids=["NaN", "masked"],
)
def test_a_network_takes_raw_pixels_only(images: np.ndarray) -> None:
    with pytest.raises(CocError, match="raw pixels|a plain NumPy array"):
        exit_logits(float_network(), images)
