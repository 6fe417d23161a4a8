"""The native back end of Session: the C extension through the same interface, equal to the reference."""

import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import corpus
from coc_runtime import CocError, Session, cocwrite
from coc_runtime.backends import native
from graphs import random_graph, random_images
from openers import usual_level
from specials import run_with_children

missing = native.why_missing()
built = pytest.mark.skipif(missing is not None, reason=str(missing))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "model.coc"
    file.write_bytes(cocwrite.dump(random_graph(5, exits=2)))
    return file


@built
def test_native_equals_reference(path: Path) -> None:
    expected_session = Session(path, backend="reference")
    images = random_images(expected_session.graph, 40)
    for threads in (1, 3):
        session = Session(path, backend="native", threads=threads)
        found, expected = session.run(images), expected_session.run(images)
        np.testing.assert_array_equal(found.logits, expected.logits)
        for name in ("label", "exit", "bitops"):
            array = getattr(found, name)
            np.testing.assert_array_equal(array, getattr(expected, name))
            assert array.dtype == np.int64
        np.testing.assert_array_equal(found.confidence, expected.confidence)
        np.testing.assert_array_equal(
            session.logits_per_exit(images), expected_session.logits_per_exit(images)
        )
        assert len(set(found.exit)) == 3


@built
def test_auto_takes_native_for_coc_files_and_tells(path: Path) -> None:
    session, reference = Session(path), Session(path, backend="reference")
    assert (session.info.backend, session.info.reason) == ("native", "the fastest for .coc files")
    for name in ("input_shape", "classes", "exits", "thresholds", "exit_bitops"):
        assert getattr(session.info, name) == getattr(reference.info, name)
    assert session.graph.exit_bitops() == reference.graph.exit_bitops()


def test_auto_takes_the_reference_where_the_extension_is_missing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "why_missing", lambda: "the C extension was not built")
    session = Session(path)
    assert (session.info.backend, session.info.reason) == ("reference", "the C extension was not built")
    with pytest.raises(CocError, match="backend native: the C extension was not built"):
        Session(path, backend="native")


@built
def test_thresholds_and_odd_images(path: Path) -> None:
    reference = Session(path, backend="reference", thresholds=[2.0, 0.0])
    session = Session(path, backend="native", thresholds=[2.0, 0.0])
    images = random_images(reference.graph, 9)
    assert set(session.run(images).exit) == {1}
    backwards = images[::-1, :, ::-1]
    np.testing.assert_array_equal(session.run(backwards).logits, reference.run(backwards).logits)
    assert session.run(images[:0]).logits.shape == (0, 10)
    assert session.logits_per_exit(images[:0]).shape == (3, 0, 10)
    for wrong in ([0.5], [0.5, -1.0], [0.5, float("nan")], "ab"):
        with pytest.raises(CocError, match="threshold"):
            Session(path, backend="native", thresholds=wrong)  # type: ignore[arg-type]


@built
def test_wrong_images_are_refused(path: Path) -> None:
    session = Session(path, backend="native")
    for images in (np.zeros((1, 3, 8, 9), np.uint8), np.zeros((3, 8, 8), np.uint8), np.zeros((1, 3, 8, 8))):
        with pytest.raises(CocError, match="expected uint8"):
            session.run(images)


@built
def test_threads_share_a_session(path: Path) -> None:
    session = Session(path, backend="native", threads=2)
    images = random_images(session.graph, 32)
    expected, failures = session.run(images), []

    def work() -> None:
        for _ in range(20):
            if not np.array_equal(session.run(images).logits, expected.logits):
                failures.append(threading.get_ident())

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


@built
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_runs_on(path: Path) -> None:
    session = Session(path, backend="native", threads=2)
    images = random_images(session.graph, 4)
    expected = session.run(images)
    child = os.fork()
    if child == 0:
        same = np.array_equal(session.run(images).logits, expected.logits)
        del session
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


FORKS = """\
import os, sys, threading
import numpy as np
from coc_runtime import Session

how, path = sys.argv[1:]
session = Session(path, backend="native", threads=3)
images = np.random.default_rng(0).integers(0, 256, (40, *session.info.input_shape), np.uint8)
expected = session.run(images).logits

def check():
    assert np.array_equal(session.run(images).logits, expected)

def wait_for(child):
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

if how == "busy":  # another thread is in the middle of a run
    stop = threading.Event()
    def work():
        while not stop.is_set():
            check()
    thread = threading.Thread(target=work)
    thread.start()
for _ in range(3):
    child = os.fork()
    if child == 0:
        if how == "grandchild":
            check()
            if (other := os.fork()) == 0:
                check()
                sys.exit(0)
            wait_for(other)
        if how not in ("unused", "freed"):
            check()
            check()
        if how == "freed":
            del session
        sys.exit(0)  # the interpreter frees what is left
    wait_for(child)
    check()
if how == "busy":
    stop.set()
    thread.join()
"""


@built
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("how", ["used", "unused", "freed", "grandchild", "busy"])
def test_threads_of_a_session_are_those_of_each_forked_process(how: str, path: Path) -> None:
    code, errors = run_with_children([sys.executable, "-W", "ignore", "-c", FORKS, how, str(path)])
    assert (code, errors) == (0, "")


@built
def test_malformed_files_are_refused_in_the_readers_words(tmp_path: Path) -> None:
    for name, data in corpus.corpus().items():
        if name.startswith("description-"):
            continue
        file = tmp_path / "bad.coc"
        file.write_bytes(data)
        with pytest.raises(CocError, match=r"bad\.coc.*: ") as caught:
            Session(file, backend="native" if data.startswith(b"\x89COC\r\n\x1a\n") else "auto")
        assert "\n" not in str(caught.value)


@built
def test_a_level_that_is_not_there_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COC_CPU", "mmx")
    known = ", ".join(native.levels())
    with pytest.raises(
        CocError, match=f"COC_CPU is 'mmx', not a level of kernels of .*: choose one of {known}$"
    ):
        Session(path, backend="native")
    monkeypatch.setenv("COC_CPU", "scalar")
    assert Session(path, backend="native").info.backend == "native"


@built
def test_levels_can_be_chosen_whatever_the_environment_says(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COC_CPU", "mmx")
    data, reference = path.read_bytes(), Session(path, backend="reference")
    images = random_images(reference.graph, 5)
    assert native.levels()[-1] == "scalar" and len(set(native.levels())) == len(native.levels())
    for level in native.levels():
        backend = native.NativeBackend(data, path, cpu=level)
        assert backend.cpu == level
        np.testing.assert_array_equal(backend.run(images)[0], reference.run(images).logits)
    for level in {"avx2", "avxvnni", "avx512", "neon", "a name longer than any of them"} - set(
        native.levels()
    ):
        with pytest.raises(CocError, match="level of kernels"):
            native.NativeBackend(data, path, cpu=level)
    monkeypatch.delenv("COC_CPU")
    assert native.NativeBackend(data, path).cpu == native.levels()[0]


@built
def test_a_session_tells_its_level(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Session(path).info.cpu_level == usual_level()
    assert Session(path, backend="reference").info.cpu_level is None
    monkeypatch.setenv("COC_CPU", "scalar")
    session = Session(path)
    monkeypatch.setenv("COC_CPU", "mmx")  # sessions of further threads keep the first one's level
    images, failures = random_images(session.graph, 400), []

    def work() -> None:
        try:
            session.run(images)
        except CocError as error:
            failures.append(error)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert session.info.cpu_level == "scalar" and not failures


@built
def test_options_are_checked(path: Path, tmp_path: Path) -> None:
    with pytest.raises(CocError, match="at most 64 threads"):
        Session(path, backend="native", threads=65)
    (tmp_path / "m.onnx").write_bytes(b"\x08\x0a")
    with pytest.raises(CocError, match=r"native runs \.coc files only"):
        Session(tmp_path / "m.onnx", backend="native")
