"""Who may import whom: docs/adr and the layout rest on these rules, so they are read from the source."""

import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "coc_deploy": ROOT / "coc_deploy",
    "coc_export": ROOT / "export/coc_export",
    "coc_runtime": ROOT / "runtime/coc_runtime",
    "coc_bench": ROOT / "benchmarks/coc_bench",
}
MAY_IMPORT = {
    "coc_deploy": {"coc_runtime"},
    "coc_export": {"coc_deploy", "coc_runtime"},
    "coc_runtime": set(),
    "coc_bench": {"coc_runtime"},
}
SHARED_LOOK = {"coc_bench.page", "coc_bench.plots"}
"""The modules of coc_bench that coc_deploy may use, so that all reports look alike (docs/adr/0007)."""
LAZY_IN_RUNTIME = {
    "backends/ort.py": {"onnxruntime"},
    "datasets.py": {"PIL", "sklearn", "torchvision"},
    "imagefiles.py": {"PIL"},
}
"""Third-party modules other than NumPy that a file of coc_runtime may import inside functions."""
LAZY_IN_BENCH = {
    "engines/float_input.py": {"onnx"},
    "engines/mnn.py": {"MNN"},
    "engines/ncnn.py": {"ncnn", "onnx"},
    "engines/openvino.py": {"nncf", "openvino"},
    "engines/ort.py": {"onnxruntime"},
    "engines/ort_int8.py": {"onnxruntime"},
    "plots.py": {"cycler", "matplotlib"},
}
"""The same for files of coc_bench."""


@dataclass(frozen=True)
class Import:
    file: str
    line: int
    module: str
    lazy: bool
    """inside a function"""

    @property
    def top(self) -> str:
        return self.module.split(".")[0]

    def names(self, modules: set[str]) -> bool:
        """Whether this imports one of the modules, or something from it."""
        return any(self.module == name or self.module.startswith(f"{name}.") for name in modules)

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def imports(package: str) -> list[Import]:
    """Every import statement of a package's files, relative ones made absolute."""
    folder = PACKAGES[package]
    return [found for path in sorted(folder.rglob("*.py")) for found in _imports_of(package, folder, path)]


def _imports_of(package: str, folder: Path, path: Path) -> Iterator[Import]:
    file = path.relative_to(folder)
    parents = [package, *file.parts[:-1]]

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file.as_posix(), node.lineno, alias.name, lazy)
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(file.as_posix(), node.lineno, f"{stem}.{alias.name}", lazy)
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        never_runs = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in () if never_runs else ast.iter_child_nodes(node):
            yield from visit(child, inside)

    return visit(ast.parse(path.read_text(), str(path)), lazy=False)


def test_import_reader_sees_relative_and_lazy_imports() -> None:
    found = {(i.module, i.lazy) for i in imports("coc_runtime") if i.file == "session.py"}
    assert ("coc_runtime.errors.CocError", False) in found
    assert any(module.startswith("coc_runtime.backends") and lazy for module, lazy in found)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_those_below_them(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package}
    shared = SHARED_LOOK if package == "coc_deploy" else set()
    wrong = [
        str(i) for i in imports(package) if i.top in PACKAGES and i.top not in allowed and not i.names(shared)
    ]
    assert not wrong, wrong


def test_trainer_uses_no_part_of_the_runtime_that_executes() -> None:
    executing = ("coc_runtime.backends", "coc_runtime.session", "coc_runtime.Session")
    wrong = [str(i) for i in imports("coc_deploy") if i.module.startswith(executing)]
    assert not wrong, wrong


def test_runtime_needs_only_numpy_to_be_imported() -> None:
    outside = [i for i in imports("coc_runtime") if i.top not in sys.stdlib_module_names | {"coc_runtime"}]
    wrong = [
        str(i)
        for i in outside
        if i.top != "numpy" and not (i.lazy and i.top in LAZY_IN_RUNTIME.get(i.file, set()))
    ]
    assert not wrong, wrong


def test_bench_needs_only_numpy_to_be_imported() -> None:
    outside = [i for i in imports("coc_bench") if i.top not in sys.stdlib_module_names | set(PACKAGES)]
    wrong = [
        str(i)
        for i in outside
        if i.top != "numpy" and not (i.lazy and i.top in LAZY_IN_BENCH.get(i.file, set()))
    ]
    assert not wrong, wrong


def test_only_one_module_draws() -> None:
    drawing = [i for package in PACKAGES for i in imports(package) if i.top == "matplotlib"]
    assert drawing and not [str(i) for i in drawing if i.file != "plots.py"]


def test_runtime_and_bench_import_where_nothing_else_is_installed() -> None:
    blocked = ["torch", "torchvision", "onnx", "onnxruntime", "PIL", "sklearn", "matplotlib", "cycler"]
    blocked += ["coc_deploy", "coc_export"]
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({blocked}))\n"
        "import coc_runtime, coc_runtime.datasets, coc_bench.cli, coc_bench.page, coc_bench.plots\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_every_package_folder_is_in_the_wheel() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    present = {
        ".".join([name, *init.parent.relative_to(folder).parts])
        for name, folder in PACKAGES.items()
        for init in folder.rglob("__init__.py")
    }
    assert listed == present
