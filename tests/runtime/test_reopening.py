"""A session holds the bytes that it opened: it pickles, and what becomes of the file changes nothing."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from coc_export.onnx.writer import write_onnx
from coc_runtime import CocError, Session, cocwrite
from coc_runtime.backends import native
from coc_runtime.backends.reference import ReferenceBackend
from coc_runtime.graph import Graph
from graphs import random_graph, random_images
from specials import run_with_children

BACKENDS = [
    ("model.onnx", "onnxruntime"),
    ("model.onnx", "reference"),
    ("model.coc", "auto"),
    ("model.coc", "reference"),
    pytest.param(
        *("model.coc", "native"),
        marks=pytest.mark.skipif(native.why_missing() is not None, reason="the C extension is not built"),
    ),
]


def write(path: Path, graph: Graph) -> Path:
    packed = path.suffix == ".coc"
    path.write_bytes(cocwrite.dump(graph) if packed else write_onnx(graph).SerializeToString())
    return path


@pytest.fixture
def graph() -> Graph:
    return random_graph(7, exits=2)


@pytest.mark.parametrize(("name", "backend"), BACKENDS)
def test_a_pickled_session_runs_without_the_file_as_the_first_does(
    name: str, backend: str, graph: Graph, tmp_path: Path
) -> None:
    path = write(tmp_path / name, graph)
    session, images = Session(path, backend, threads=2, thresholds=[0.3, 0.9]), random_images(graph, 30)
    path.unlink()
    expected = session.run(images)
    for again in (pickle.loads(pickle.dumps(session)), copy.deepcopy(session), copy.copy(session)):
        assert again.info == session.info and again.info.thresholds == (0.3, 0.9)
        result = again.run(images)
        np.testing.assert_array_equal(result.logits, expected.logits)
        np.testing.assert_array_equal(result.exit, expected.exit)
        assert again.graph.exit_bitops() == session.graph.exit_bitops()
    if native.why_missing() is None and backend == "native":
        assert again._whole._runner is not session._whole._runner  # type: ignore[union-attr]


def test_a_graph_in_memory_pickles_with_its_session(graph: Graph) -> None:
    session, images = Session.from_graph(graph, thresholds=[0.2, 2]), random_images(graph, 20)
    again = pickle.loads(pickle.dumps(session))
    assert again.info == session.info
    np.testing.assert_array_equal(again.run(images).exit, session.run(images).exit)


def test_a_session_on_a_given_back_end_says_that_it_cannot_be_pickled(graph: Graph) -> None:
    class Mine(ReferenceBackend):
        name = "mine"

    with pytest.raises(CocError, match=r"given back end \(mine\) has no file to open again"):
        pickle.dumps(Session.from_graph(graph, backend=Mine(graph)))


@pytest.mark.parametrize(("name", "backend"), BACKENDS)
def test_spawned_processes_take_sessions(name: str, backend: str, graph: Graph, tmp_path: Path) -> None:
    session, images = Session(write(tmp_path / name, graph), backend), random_images(graph, 8)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        result = pool.apply_async(session.run, (images,)).get(timeout=120)
    np.testing.assert_array_equal(result.logits, session.run(images).logits)


@pytest.mark.parametrize(("name", "backend"), BACKENDS)
def test_a_file_that_is_replaced_changes_no_open_session(
    name: str, backend: str, graph: Graph, tmp_path: Path
) -> None:
    path = write(tmp_path / name, graph)
    session, images = Session(path, backend), random_images(graph, 12)
    write(path, random_graph(8, exits=1))
    expected = Session.from_graph(graph)
    assert len(session.graph.segments) == session.info.exits == 3
    np.testing.assert_array_equal(session.logits_per_exit(images), expected.logits_per_exit(images))
    np.testing.assert_array_equal(session.run(images).exit, expected.run(images).exit)


FORK = """\
import os, sys
import numpy as np
from coc_runtime import Session

session = Session(sys.argv[1], backend="onnxruntime", threads=int(sys.argv[2]))
images = np.random.default_rng(0).integers(0, 256, (20, *session.info.input_shape), np.uint8)
expected = session.run(images).logits
child = os.fork()
if child == 0:
    same = np.array_equal(session.run(images).logits, expected)
    same &= np.array_equal(session.run(images[:1]).logits, expected[:1])
    os._exit(0 if same else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.parametrize("threads", ["1", "3"])
def test_onnxruntime_runs_in_a_forked_process_that_ends_as_multiprocessings_do(
    threads: str, graph: Graph, tmp_path: Path
) -> None:
    path = write(tmp_path / "model.onnx", graph)
    words = [sys.executable, "-W", "ignore", "-c", FORK, str(path), threads]
    assert run_with_children(words) == (0, "")


POOL = """\
import multiprocessing, sys
import numpy as np
from coc_runtime import Session

def work(images):
    return session.run(images).label

session = Session(sys.argv[1], backend=sys.argv[2], threads=2)
images = np.random.default_rng(0).integers(0, 256, (20, *session.info.input_shape), np.uint8)
expected = session.run(images).label
with multiprocessing.get_context("fork").Pool(2) as pool:
    found = pool.map(work, [images[:7], images[7:]])
assert np.array_equal(np.concatenate(found), expected)
"""


@pytest.mark.parametrize(("name", "backend"), BACKENDS)
def test_forked_pools_share_a_session(name: str, backend: str, graph: Graph, tmp_path: Path) -> None:
    path = write(tmp_path / name, graph)
    words = [sys.executable, "-W", "ignore", "-c", POOL, str(path), backend]
    assert run_with_children(words) == (0, "")


def test_coc_files_do_not_bring_onnxruntime_and_its_threads(graph: Graph, tmp_path: Path) -> None:
    path = write(tmp_path / "model.coc", graph)
    code = "import sys, coc_runtime; coc_runtime.Session(sys.argv[1]); sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(path)], env=os.environ).returncode == 0
