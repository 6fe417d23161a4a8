"""The runtime needs NumPy only: it imports and runs with everything else blocked."""

import subprocess
import sys

SCRIPT = """
import sys
for name in ("torch", "torchvision", "onnx", "torch_pruning", "onnxruntime", "PIL", "sklearn"):
    sys.modules[name] = None
import coc_runtime, coc_runtime.datasets
from graphs import random_graph, random_images
graph = random_graph(0, exits=2)
session = coc_runtime.Session.from_graph(graph)
result = session.run(random_images(graph, 20))
assert sorted(set(result.exit.tolist())) == [0, 1, 2], result.exit
print(coc_runtime.__version__, session.info.backend)
"""

LIGHT = """
import sys
import coc_runtime, coc_runtime.datasets
heavy = {"torch", "torchvision", "onnx", "torch_pruning", "onnxruntime", "PIL", "sklearn", "scipy"}
print(sorted(heavy & set(sys.modules)))
"""


def run(script: str) -> str:
    """Standard output of a script in a fresh interpreter with this one's import paths."""
    header = f"import sys; sys.path[:0] = {sys.path!r}\n"
    done = subprocess.run([sys.executable, "-c", header + script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_runtime_imports_and_runs_with_every_other_package_blocked() -> None:
    assert run(SCRIPT) == "0.1.0 reference"


def test_importing_the_runtime_imports_nothing_heavy() -> None:
    assert run(LIGHT) == "[]"
