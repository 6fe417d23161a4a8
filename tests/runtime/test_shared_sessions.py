"""Eight threads on one session get what one thread gets, on every back end.

benchmarks/scripts/embedding.py does the same for a minute on a trained network.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from coc_runtime import Result, Session, cocwrite
from coc_runtime.backends import native
from coc_runtime.graph import Graph
from graphs import as_regression, random_graph, random_images
from shared_session import cut, share  # noqa: E402

THREADS = 8
SECONDS = 1.0


def native_session(graph: Graph, folder: Path) -> Session:
    if native.why_missing() is not None:
        pytest.skip(str(native.why_missing()))
    (folder / "model.coc").write_bytes(cocwrite.dump(graph))
    return Session(folder / "model.coc", backend="native")


def onnxruntime_session(graph: Graph, folder: Path) -> Session:
    pytest.importorskip("onnxruntime", reason="the back end onnxruntime needs it")
    pytest.importorskip("onnx", reason="writing .onnx files needs it")
    from coc_export.onnx.writer import write_onnx

    (folder / "model.onnx").write_bytes(write_onnx(graph).SerializeToString())
    return Session(folder / "model.onnx", backend="onnxruntime")


def reference_session(graph: Graph, folder: Path) -> Session:
    return Session.from_graph(graph)


Open = Callable[[Graph, Path], Session]
BACKENDS = (native_session, onnxruntime_session, reference_session)


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("open_session", BACKENDS)
def test_eight_threads_get_what_one_thread_gets(tmp_path: Path, open_session: Open, task: str) -> None:
    graph = random_graph(31, exits=2)
    session = open_session(as_regression(graph) if task == "regression" else graph, tmp_path)
    images = random_images(graph, 60, seed=7)
    taken = set(session.run(images).exit.tolist())
    assert len(taken) > 1, "exits must vary, else threads that mix up images go unnoticed"
    done = share(session, images, THREADS, SECONDS)
    assert done.calls >= THREADS
    assert done.mismatches == 0


def test_results_that_threads_mix_up_are_counted() -> None:
    graph = random_graph(32, exits=1)
    session, images = Session.from_graph(graph), random_images(graph, 30, seed=2)
    found, calls = session.run, [0]

    def wrong_at_times(images: np.ndarray) -> Result:
        calls[0] += 1
        return found(images if calls[0] <= len(cut(images)) or calls[0] % 3 else images[::-1] ^ 255)

    session.run = wrong_at_times  # type: ignore[method-assign]
    assert share(session, images, 2, 0.2).mismatches > 0


def test_every_image_is_in_one_batch() -> None:
    images = np.arange(61)
    np.testing.assert_array_equal(np.concatenate(cut(images)), images)
