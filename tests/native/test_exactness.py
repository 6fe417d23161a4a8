"""benchmarks/scripts/exactness.py on its smaller half: a small network on digits, six widths, every level."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import exactness
from coc_deploy.network import ExitSpec
from coc_deploy.sections import Model
from coc_runtime import arithmetic, cocwrite
from coc_runtime.backends import native
from coc_runtime.graph import Graph
from tiny import digits

pytestmark = pytest.mark.skipif(native.why_missing() is not None, reason=str(native.why_missing()))
CASE = exactness.Case(
    "digits", Model(model="resnet8", width=8), ExitSpec(("layer1.0", "layer2.0"), "conv", 8)
)


def compressed(bits: tuple[int, int], folder: Path) -> tuple[Graph, exactness.Answer]:
    """The network with two exits, and what the reference says of the test split."""
    graph = exactness.lowered(exactness.quantized(CASE, bits, digits("held-out").images), folder)
    with ThreadPoolExecutor(1) as pool:
        logits = exactness.reference(graph, digits("test").images, pool)
    graph = replace(graph, thresholds=exactness.thresholds(logits))
    exits = arithmetic.exits_taken(logits, graph.thresholds)
    return graph, exactness.Answer(logits, logits[exits, np.arange(len(exits))], exits)


@pytest.mark.parametrize("bits", exactness.WIDTHS, ids=lambda bits: "x".join(map(str, bits)))
def test_every_level_gives_every_logit_and_exit_of_the_reference(
    bits: tuple[int, int], tmp_path: Path
) -> None:
    graph, expected = compressed(bits, tmp_path)
    assert np.bincount(expected.exit, minlength=3).min() > 30
    with ThreadPoolExecutor(1) as pool:
        for level in native.levels():
            run = exactness.in_extension(cocwrite.dump(graph), level)
            counts = exactness.compared(run, digits("test").images, expected, pool)
            assert not exactness.wrong(counts), (level, counts)
            assert (counts["images"], counts["logits"]) == (497, 497 * 30)


def test_a_difference_is_counted(tmp_path: Path) -> None:
    _, expected = compressed((1, 8), tmp_path)
    images = digits("test").images[: exactness.CHUNK]
    logits, exits = expected.logits[:, : len(images)].copy(), expected.exit[: len(images)].copy()
    logits[2, 3, 4] = np.nextafter(logits[2, 3, 4], np.float32(9))
    exits[5] = (exits[5] + 1) % 3
    found = exactness.Answer(logits, expected.taken[: len(images)], exits)
    with ThreadPoolExecutor(1) as pool:
        counts = exactness.compared(lambda _: found, images, expected, pool)
    assert (counts["differing_logits"], counts["differing_exits"]) == (1, 1)
    assert exactness.wrong(counts)
