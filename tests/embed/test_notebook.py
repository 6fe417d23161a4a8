"""The notebook of examples/ runs from its first cell to its last, and says what it should."""

import sys
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient", reason="runs the notebook")
nbformat = pytest.importorskip("nbformat", reason="reads the notebook")
ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples/notebook/tutorial.ipynb"


def outputs(cell: dict) -> str:
    """What a cell printed."""
    return "".join(output.get("text", "") for output in cell.get("outputs", []))


def test_the_notebook_runs_and_ends_in_equal_integers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    printed = "\n".join(outputs(cell) for cell in notebook.cells if cell.cell_type == "code")
    assert printed.count("0 differing logits, 0 flipped exits") == 2, printed
    assert "exit " in printed and "model.coc" in printed


def test_the_committed_notebook_has_no_outputs() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in cells)
