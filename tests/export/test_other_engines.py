"""Engines that are not ours run the exported files: with equal integers, or differences that are known."""

from pathlib import Path

import numpy as np
import pytest

from coc_deploy import checkpoint
from coc_export.lowering import lower
from coc_runtime import Session
from coc_runtime.graph import Graph
from conftest import TinyRun
from engines import ENGINES, FORMS, Count, Engine  # noqa: E402
from graphs import as_regression, depthwise_graph, random_graph, random_images, random_inception
from tiny import digits

EVALUATOR, TRACT, OPENVINO, UNTOUCHED = ENGINES
EXACT = (EVALUATOR, TRACT, UNTOUCHED)
GRAPHS = {
    "1x8": lambda: random_graph(11, 1, 8, exits=2),
    "2x8": lambda: random_graph(12, 2, 8, exits=1, channels=5, size=7),
    "4x8": lambda: random_graph(13, 4, 8, exits=3),
    "8x8": lambda: random_graph(14, 8, 8, exits=1),
    "1x4": lambda: random_graph(15, 1, 4, exits=1),
    "4x4": lambda: random_graph(16, 4, 4, exits=1, size=9),
    "no exits": lambda: random_graph(17, 1, 8, exits=0),
    "depthwise": lambda: depthwise_graph(1, 16),
    "pools and concatenations": lambda: random_inception(18, exits=2),
    "regression": lambda: as_regression(random_graph(19, exits=3, classes=2)),
}


def compared(engine: Engine, form: str, graph: Graph, images: np.ndarray) -> Count:
    pytest.importorskip(engine.package, reason=f"{engine.package} is not installed")
    count = FORMS[form](graph, images, engine)
    assert count.refused is None and count.images == len(images)
    return count


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")  # ONNX's MaxPool pads
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("engine", EXACT, ids=lambda engine: engine.name)
@pytest.mark.parametrize("name", GRAPHS)
def test_engines_that_leave_the_operators_alone_give_equal_logits_and_exits(
    name: str, engine: Engine, form: str
) -> None:
    graph = GRAPHS[name]()
    images = random_images(graph, 8)
    assert len(set(Session.from_graph(graph).run(images).exit)) > 1 or not graph.thresholds
    count = compared(engine, form, graph, images)
    assert (count.differing_logits, count.differing_exits, count.largest_difference) == (0, 0, 0)
    assert count.logits == 8 * graph.classes * (1 if form == "one file" else len(graph.segments))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_a_trained_network_keeps_its_labels_everywhere(engine: Engine, form: str, tiny_run: TinyRun) -> None:
    graph = lower(checkpoint.load(tiny_run.model), tiny_run.model)
    count = compared(engine, form, graph, digits("test").images[:40])
    if engine in EXACT:
        assert (count.differing_logits, count.differing_exits) == (0, 0)
    assert count.differing_labels <= 0.05 * count.logits / graph.classes


@pytest.mark.parametrize("form", FORMS)
def test_openvino_requantizes_in_its_own_way_and_the_count_shows_it(form: str) -> None:
    graph = GRAPHS["1x8"]()
    count = compared(OPENVINO, form, graph, random_images(graph, 8))
    assert 0 < count.differing_logits <= count.logits
    assert 0 < count.largest_difference < 0.5


def test_a_file_that_an_engine_refuses_is_reported_with_its_words() -> None:
    def load(*_: object) -> None:
        raise RuntimeError("\n no If here\nand more")

    graph = random_graph(11, exits=1)
    broken = Engine("broken", "onnx", {}, load)  # type: ignore[arg-type]
    for compare in FORMS.values():
        count = compare(graph, random_images(graph, 2), broken)
        assert (count.refused, count.logits) == ("no If here", 0)


@pytest.mark.parametrize("form", FORMS)
def test_differences_and_flipped_exits_are_counted(form: str) -> None:
    graph = random_graph(11, exits=1)
    calls = iter([0, 1, 1, 1, 1, 1])

    def load(model: object, folder: Path) -> object:
        run = EVALUATOR.load(model, folder)  # type: ignore[arg-type]

        def wrong(feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            logits, *rest = run(feeds)
            logits = logits.copy()
            logits[:, 3] += 50
            if form == "one file" and next(calls):
                rest[0] = 1 - rest[0]
            return [logits, *rest]

        return wrong

    images = random_images(graph, 6)
    taken = Session.from_graph(graph).run(images).exit
    count = FORMS[form](graph, images, Engine("wrong", "onnx", {}, load))  # type: ignore[arg-type]
    assert count.differing_logits == count.logits / graph.classes and count.largest_difference == 50
    assert count.differing_exits == (5 if form == "one file" else (taken == 1).sum())
    assert count.differing_labels > 0
