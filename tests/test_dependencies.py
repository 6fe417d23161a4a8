"""Who may import whom: docs/adr and the layout rest on these rules, so they are read from the source."""

import ast
import configparser
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from coc_deploy import keys

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "coc_deploy": ROOT / "coc_deploy",
    "coc_export": ROOT / "export/coc_export",
    "coc_runtime": ROOT / "runtime/coc_runtime",
    "coc_report": ROOT / "benchmarks/coc_report",
    "coc_bench": ROOT / "benchmarks/coc_bench",
    "coc_study": ROOT / "benchmarks/coc_study",
}
MAY_IMPORT: dict[str, set[str]] = {
    "coc_runtime": set(),
    "coc_report": {"coc_runtime"},
    "coc_deploy": {"coc_runtime", "coc_report"},
    "coc_bench": {"coc_runtime", "coc_report"},
    "coc_export": {"coc_runtime", "coc_deploy"},
    "coc_study": {"coc_runtime", "coc_report", "coc_deploy"},
}
"""coc_runtime <- coc_report <- coc_deploy, coc_bench; coc_deploy <- coc_export, coc_study (docs/adr/0010)."""
NAMED_ABOVE = {("coc_deploy", "cli.py", "coc_study.auto.command")}
"""Modules of a package above that a package imports by name, when they are asked for, and can do without."""
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
}
"""The same for files of coc_bench."""
LAZY_IN_REPORT = {
    "page.py": {"jinja2"},
    "plots.py": {"cycler", "matplotlib"},
}
"""And of coc_report."""
LAZY = {"coc_runtime": LAZY_IN_RUNTIME, "coc_bench": LAZY_IN_BENCH, "coc_report": LAZY_IN_REPORT}


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
    wrong = [str(i) for i in imports(package) if i.top in PACKAGES and i.top not in allowed]
    assert not wrong, wrong


def test_what_is_imported_by_name_is_in_the_list() -> None:
    """A string that names a module of a package that may not be imported."""
    found = set()
    for package, folder in PACKAGES.items():
        above = PACKAGES.keys() - MAY_IMPORT[package] - {package}
        name = re.compile(rf"({'|'.join(above)})(\.\w+)*") if above else re.compile(r"(?!)")
        for path in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                text = node.value if isinstance(node, ast.Constant) else None
                if isinstance(text, str) and name.fullmatch(text):
                    found.add((package, path.relative_to(folder).as_posix(), text))
    assert found == NAMED_ABOVE
    for _, _, module in found:
        assert importlib.util.find_spec(module) is not None


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Some modules that import each other in a circle, if there are any."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        for other in sorted(edges.get(module, ())):
            if found := visit(other, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(edges) if (found := visit(module, []))), [])


def test_a_circle_is_found_where_there_is_one() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"d"}}) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_of_a_package_import_each_other_in_a_circle(package: str) -> None:
    """Also where an import stands in a function: it would hide the circle, not open it."""
    folder, edges = PACKAGES[package], dict[str, set[str]]()
    modules = {
        _module(package, path.relative_to(folder))
        for path in folder.rglob("*")
        if path.suffix in (".py", ".pyi")
    }
    for found in imports(package):
        module = _module(package, Path(found.file))
        target = found.module if found.module in modules else found.module.rpartition(".")[0]
        if target in modules and target != module:
            edges.setdefault(module, set()).add(target)
    assert len(edges) > 1 and circle(edges) == []


def _module(package: str, file: Path) -> str:
    parts = [package, *file.with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_trainer_uses_no_part_of_the_runtime_that_executes() -> None:
    executing = ("coc_runtime.backends", "coc_runtime.session", "coc_runtime.Session")
    wrong = [str(i) for i in imports("coc_deploy") if i.module.startswith(executing)]
    assert not wrong, wrong


@pytest.mark.parametrize("package", LAZY)
def test_runtime_report_and_bench_need_only_numpy_to_be_imported(package: str) -> None:
    outside = [i for i in imports(package) if i.top not in sys.stdlib_module_names | set(PACKAGES)]
    wrong = [
        str(i)
        for i in outside
        if i.top != "numpy" and not (i.lazy and i.top in LAZY[package].get(i.file, set()))
    ]
    assert not wrong, wrong


def test_only_one_module_draws() -> None:
    drawing = [i for package in PACKAGES for i in imports(package) if i.top == "matplotlib"]
    assert drawing and not [str(i) for i in drawing if i.file != "plots.py"]


def test_only_one_module_makes_pages() -> None:
    making = [(package, i.file) for package in PACKAGES for i in imports(package) if i.top == "jinja2"]
    assert set(making) == {("coc_report", "page.py")}


@pytest.mark.parametrize("arguments", [["--help"], ["recipe.toml", "--check"]])
def test_a_plain_compress_imports_neither_study_nor_search_nor_benchmark(
    arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "recipe.toml").write_text('chain = "P"\n[auto]\np.ratio = [0.5]\n')
    code = (
        "import sys\n"
        "from coc_deploy.cli import main\n"
        "try:\n"
        f"    assert main({arguments}) == 0\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        "found = {name.partition('.')[0] for name in sys.modules} & {'coc_study', 'coc_bench', 'optuna'}\n"
        "assert not found, found\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_a_search_that_is_not_installed_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from coc_deploy import cli

    for name in [name for name in sys.modules if name.partition(".")[0] == "coc_study"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "coc_study", None)
    assert cli.main(["recipe.toml", "--out", "run", "--auto", "--max-drop", "1"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "pip install 'coc-deploy[auto]'" in error


def test_runtime_and_bench_import_where_nothing_else_is_installed() -> None:
    blocked = ["torch", "torchvision", "onnx", "onnxruntime", "PIL", "sklearn", "matplotlib", "cycler"]
    blocked += ["jinja2", "coc_deploy", "coc_export", "coc_study"]
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({blocked}))\n"
        "import coc_runtime, coc_runtime.datasets, coc_bench.cli, coc_bench.page, coc_report.plots\n"
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


WITHOUT_EFFECT_OF_RUNTIME = {"batches", "errors", "files", "graph", "ops", "text", "threads"}
"""Modules of coc_runtime that the trainer imports, itself or through others, and no result depends on: they
cut images into batches, check, write and tell; graphs are what is exported of a result."""


def test_keys_of_stages_hold_every_source_of_the_runtime_that_results_depend_on() -> None:
    of_runtime = imports("coc_runtime")

    def modules(found: list[Import]) -> set[str]:
        """Files and folders of coc_runtime that are imported."""
        there = {path.stem for path in PACKAGES["coc_runtime"].iterdir()}
        return there & {i.module.split(".")[1] for i in found if i.module.startswith("coc_runtime.")}

    deploy = [i for i in imports("coc_deploy") if not keys._without_effect(Path(i.file))]
    reached, todo = set(), modules(deploy)
    while todo - reached:
        name = (todo - reached).pop()
        reached.add(name)
        todo |= modules([i for i in of_runtime if Path(i.file).parts[0].removesuffix(".py") == name])
    used = {name.removesuffix(".py") for name in keys.USED_OF_RUNTIME}
    assert reached - WITHOUT_EFFECT_OF_RUNTIME == used
