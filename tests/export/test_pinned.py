"""Artifacts are byte for byte those whose hashes pinned.json holds: see pinned.py."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import onnx
import pytest

import pinned
from coc_runtime import onnxfile


@cache
def pins() -> dict[str, str]:
    found: dict[str, str] = json.loads(pinned.PINS.read_text())
    return found


def agree(made: pinned.Made) -> int:
    """How many artifacts were compared with their hashes."""
    hashes = pinned.hashes(made)
    differing = [name for name, value in hashes.items() if pins().get(name) != value]
    assert not differing, differing
    return len(hashes)


def test_committed_models_give_the_same_artifacts() -> None:
    count = len(pinned.opsets())
    assert agree(pinned.examples()) == 2 * (count + 1 + 3 + 1)
    if onnx.defs.onnx_opset_version() >= max(onnxfile.IR_VERSIONS):
        assert count == len(onnxfile.IR_VERSIONS)


def test_random_graphs_give_the_same_artifacts() -> None:
    assert agree(pinned.corpus()) > 240


def test_networks_give_the_same_float_and_packed_files() -> None:
    assert agree(pinned.networks()) == 24


@pytest.mark.parametrize("name", ["cifar10-resnet20-1x8", "cifar10-resnet20-4x8"])
def test_the_hashes_of_the_examples_are_those_in_their_committed_reports(name: str) -> None:
    for report, artifact in (("model.coc.report.json", "coc"), ("model.report.json", "21.onnx")):
        stated = json.loads((pinned.EXAMPLES / name / report).read_text())
        assert stated["artifact_sha256"] == pins()[f"{name}.{artifact}"]


def test_another_process_gives_the_same_hashes() -> None:
    """With another hash seed and another number of threads."""
    code = "import pinned; print(sorted(pinned.hashes(pinned.networks()).items()))"
    path = os.pathsep.join([str(Path(pinned.__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(sorted(pinned.hashes(pinned.networks()).items()))
