"""An operator is named by its declaration and by one file per target, and by no ladder anywhere else."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from coc_deploy.qat import UNITS
from coc_runtime.ops import OPS

ROOT = Path(__file__).parents[1]
NATIVE = ROOT / "runtime/native"
OPERATORS = {op.__name__ for op in OPS}
UNIT_NAMES = {unit.__name__ for unit in UNITS}
HOMES = ("runtime/coc_runtime/ops/", "export/coc_export/onnx/", "export/coc_export/lowering/")
"""Folders with a file per operator or family."""
BUILDERS = {"benchmarks/scripts/resnets.py"}
"""Files that make graphs of operators."""


def sources() -> list[Path]:
    folders = ("runtime", "export", "benchmarks", "coc_deploy")
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def imported_operators(tree: ast.AST) -> set[str]:
    """Operators that a file takes from coc_runtime.ops, by name or as an attribute of the package."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and re.search(r"(^|\.)ops(\.|$)", node.module or ""):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ops":
            found.add(node.attr)
    return found & OPERATORS


def test_operators_are_named_in_the_files_of_targets_alone() -> None:
    named = {
        path.relative_to(ROOT).as_posix(): imported_operators(ast.parse(path.read_text()))
        for path in sources()
    }
    wrong = [name for name, found in named.items() if found and not name.startswith(HOMES)]
    assert set(wrong) == BUILDERS
    assert all(any(found for name, found in named.items() if name.startswith(home)) for home in HOMES[1:])


def _last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def decisions(function: ast.AST) -> Iterator[tuple[str, set[str]]]:
    """(subject, names) of every question for the class of something: isinstance, type(x) is, match."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and _last(node.func) in ("isinstance", "issubclass"):
            yield ast.unparse(node.args[0]), {_last(part) for part in ast.walk(node.args[1])}  # type: ignore[arg-type]
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            names = {_last(part) for side in sides for part in ast.walk(side)}  # type: ignore[arg-type]
            yield ast.unparse(node.left), names
        elif isinstance(node, ast.Match):
            kinds = [
                part.cls for case in node.cases for part in ast.walk(case) if isinstance(part, ast.MatchClass)
            ]
            for kind in kinds:
                yield ast.unparse(node.subject), {_last(kind)}


def ladders(text: str, names: set[str], longest: int) -> list[str]:
    """Functions that ask one thing more than `longest` times whether it is of a class of `names`."""
    found = []
    functions = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.Lambda | ast.Module)
    ]
    for function in functions:
        asked: dict[str, int] = defaultdict(int)
        for subject, classes in decisions(function):
            asked[subject] += bool(classes & names)
        if max(asked.values(), default=0) > longest:
            found.append(getattr(function, "name", "<module>"))
    return found


LADDER = """
def lower(unit):
    if isinstance(unit, qat.QConv):
        return 1
    elif isinstance(unit, QAdd | QPool):
        return 2
"""


def test_ladders_are_found() -> None:
    assert ladders(LADDER, UNIT_NAMES, 1) == ["<module>", "lower"] and not ladders(LADDER, UNIT_NAMES, 2)
    assert ladders("def f(x):\n return x.kind is Conv", OPERATORS, 0)
    assert ladders("def f(x):\n return type(x) in (ops.Conv, ops.Add)", OPERATORS, 0)
    assert ladders("def f(x):\n match x:\n  case Flatten(): return 1", OPERATORS, 0)
    assert not ladders("def f(x):\n return TABLE[type(x)](x)", OPERATORS | UNIT_NAMES, 0)


@pytest.mark.parametrize(
    ("folder", "longest"), [("runtime", 0), ("export", 0), ("benchmarks", 0), ("coc_deploy", 2)]
)
def test_nothing_asks_for_the_class_of_an_operator_or_climbs_a_ladder_of_units(
    folder: str, longest: int
) -> None:
    """Training may ask a unit of torch whether it is of a family; operators are not asked at all."""
    wrong = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        text, name = path.read_text(), path.relative_to(ROOT).as_posix()
        asks = imported_operators(ast.parse(text)) or name.startswith(HOMES[0])
        wrong += [(name, found) for found in (ladders(text, OPERATORS, 0) if asks else [])]
        wrong += [(name, found) for found in ladders(text, UNIT_NAMES, longest) if found != "<module>"]
    assert not wrong


def without_comments(path: Path) -> str:
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(), flags=re.DOTALL)


def c_files() -> list[Path]:
    return sorted(NATIVE.rglob("*.[ch]"))


def test_no_c_file_but_an_operators_own_and_the_list_names_it() -> None:
    symbols = re.findall(r"^COC_OPERATOR\(\d+, (\w+),", (NATIVE / "ops/list.h").read_text(), re.MULTILINE)
    assert len(symbols) == len(OPS)
    for symbol in symbols:
        naming = [
            path.name for path in c_files() if re.search(rf"\bcoc_op_{symbol}\b", without_comments(path))
        ]
        assert naming == [f"{symbol}.c"]


def test_no_c_file_branches_on_the_kind_of_an_operator() -> None:
    branch = re.compile(r"switch \([^;{]*->(kind|op)\b|->kind\s*[=!<>]=|[=!]=\s*&coc_op_")
    wrong = [path.name for path in c_files() if branch.search(without_comments(path))]
    assert not wrong
    assert branch.search("switch (node->kind) {") and branch.search("if (node->kind == 3)")


PUBLIC = "coc.h"
"""The interface of the whole core, which several files implement."""


def functions(text: str, end: str) -> Iterator[str]:
    """Names of the functions for other files that C text declares (end ";") or defines (end "{")."""
    statement = ""
    for line in text.splitlines():
        if re.match(r"[A-Za-z_]", line):
            statement = line
        elif statement:
            statement += f" {line.strip()}"
        if statement.endswith((";", "{")):
            found = re.match(r"(?!static|typedef|extern)[\w *]*?\b(coc_\w+)\(", statement)
            if found and statement.endswith(end):
                yield found.group(1)
            statement = ""


def definers(folder: Path) -> dict[str, set[str]]:
    """Header -> the C files that define functions that it declares."""
    texts = {path.relative_to(folder).as_posix(): without_comments(path) for path in folder.rglob("*.[ch]")}
    defined = {
        found: name for name, text in texts.items() if name.endswith(".c") for found in functions(text, "{")
    }
    headers = {name: text for name, text in texts.items() if name.endswith(".h") and name != PUBLIC}
    return {
        name: {defined[found] for found in functions(text, ";") if found in defined}
        for name, text in headers.items()
    }


def units(folder: Path) -> dict[str, set[str]]:
    """Unit -> units whose headers it includes. A unit is a header with the C file that defines its functions,
    or a file alone; it has the name of the C file."""
    owner = {header: (*sorted(files), header)[0] for header, files in definers(folder).items()}
    found: dict[str, set[str]] = defaultdict(set)
    for path in folder.rglob("*.[ch]"):
        name = path.relative_to(folder).as_posix()
        unit = owner.get(name, name)
        for header in re.findall(r'^#include "([^"]+)"', path.read_text(), re.MULTILINE):
            assert (folder / header).exists(), (name, header)
            found[unit].add(owner.get(header, header))
        found[unit].discard(unit)
    return dict(found)


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Units that include each other in a round; none if there is no round."""
    done: set[str] = set()

    def visit(unit: str, path: list[str]) -> list[str]:
        if unit in path:
            return [*path[path.index(unit) :], unit]
        if unit in done:
            return []
        for other in sorted(graph.get(unit, ())):
            if round_ := visit(other, [*path, unit]):
                return round_
        done.add(unit)
        return []

    return next((found for unit in sorted(graph) if (found := visit(unit, []))), [])


def test_circles_are_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_functions_of_a_header_stand_in_one_file() -> None:
    found = definers(NATIVE)
    assert found["reader.h"] == {"reader.c"} and found["levels.h"] == {"cpu.c"}
    assert not {header: files for header, files in found.items() if len(files) > 1}


def test_files_of_the_c_core_form_no_circle() -> None:
    graph = units(NATIVE)
    assert {"check.c", "place.c", "ops/table.c"} <= graph["reader.c"] and "reader.c" in graph["open.c"]
    assert circle(graph) == []
