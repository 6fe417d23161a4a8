"""BitOps of layers, of exits, and their expectation over measured exit shares."""

import numpy as np
import pytest

from coc_runtime import cost
from coc_runtime.cost import LayerCost
from graphs import random_graph

LAYERS = [LayerCost("stem", 1000, 30, 8, 8, 4), LayerCost("body", 2000, 60, 1, 4)]


def test_bitops_count_each_layer_at_its_own_bits_or_all_at_the_chains() -> None:
    assert cost.bitops(LAYERS) == 1000 * 64 + 2000 * 4
    assert cost.uniform_bitops(LAYERS, (1, 8)) == 3000 * 8
    assert cost.stored_bits(LAYERS) == 30 * 8 + 32 * 4 + 60


def test_expected_cost_charges_an_image_for_every_segment_up_to_its_exit() -> None:
    assert cost.expected([100, 30, 7], [0.5, 0.25, 0.25]) == 0.5 * 100 + 0.25 * 130 + 0.25 * 137
    assert cost.expected([100, 30, 7], [0, 0, 1]) == 137
    with pytest.raises(ValueError, match="shorter"):
        cost.expected([100, 30, 7], [0.5, 0.5])


def test_exit_bitops_are_the_running_sum_over_segments_heads_included() -> None:
    graph = random_graph(0, exits=2)
    segments = [cost.bitops(graph.segment_layers(k)) for k in range(3)]
    assert graph.exit_bitops() == np.cumsum(segments).tolist()
    assert [layer.name for layer in graph.segment_layers(1)][-1] == "segment1.head"
    assert sum(segments) == cost.bitops(graph.layers())
    shares = [0.2, 0.3, 0.5]
    assert cost.expected(segments, shares) == pytest.approx(np.dot(shares, graph.exit_bitops()))
