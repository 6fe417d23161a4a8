"""Write what follows from coc_runtime: runtime/native/coc_limits.h and tables of docs/format.md.

    python runtime/generate.py [--check]      --check: exit with 1 if a file is out of date

Tables of the page stand between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

import argparse
import ast
import re
import struct
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

from coc_runtime import coclayout, limits
from coc_runtime.coclayout import HEADER, Header
from coc_runtime.ops import KINDS
from coc_runtime.ops.row import EVERY, ROW, Row

ROOT = Path(__file__).resolve().parents[1]
LIMITS_H = ROOT / "runtime/native/coc_limits.h"
FORMAT = ROOT / "docs/format.md"
ELSEWHERE = {"MAX_EXITS", "MAX_THREADS"}
"""Limits that coc.h states, in words of its own."""
PYTHON_ONLY = "ONNX_"


def stated() -> Iterator[tuple[str, object, str]]:
    """Name, value and meaning of every limit, in order."""
    body = ast.parse(Path(str(limits.__file__)).read_text()).body
    for assignment, meaning in zip(body, body[1:], strict=False):
        if isinstance(assignment, ast.Assign):
            (name,) = assignment.targets
            assert isinstance(name, ast.Name)
            assert isinstance(meaning, ast.Expr) and isinstance(meaning.value, ast.Constant), name.id
            yield name.id, getattr(limits, name.id), " ".join(str(meaning.value.value).split())


def limits_h() -> str:
    lines = [
        "/* coc_limits.h - limits of graphs and files (internal; not limits.h, which is the C library's).",
        " *",
        " * Written by runtime/generate.py from runtime/coc_runtime/limits.py: change them there. */",
        *("#ifndef COC_LIMITS_H", "#define COC_LIMITS_H", "", "#include <stdint.h>", ""),
    ]
    for name, value, meaning in stated():
        if name not in ELSEWHERE and not name.startswith(PYTHON_ONLY):
            lines += textwrap.wrap(f"/* {meaning} */", 110, subsequent_indent=" * ")
            lines.append(f"#define COC_{_definition(name, value)}")
    return "\n".join([*lines, "", "#endif", ""])


def _definition(name: str, value: object) -> str:
    if isinstance(value, tuple):
        return f"{name}(bits) (" + " || ".join(f"(bits) == {each}" for each in value) + ")"
    if isinstance(value, float):
        return f"{name}_AS_BITS UINT32_C(0x{struct.pack('>f', value).hex()})"
    assert isinstance(value, int)
    return f"{name} {value}" if value < 1 << 31 else f"{name} INT64_C({value})"


def _number(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    assert isinstance(value, int)
    for offset in (0, 1):
        exponent = (value + offset).bit_length() - 1
        if value + offset == 1 << exponent and exponent > 16:
            return f"2^{exponent} - 1" if offset else f"2^{exponent}"
    return f"{value:,}"


def _table(rows: list[tuple[str, ...]]) -> str:
    head, *rest = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *rest])


def limits_table() -> str:
    rows: list[tuple[str, ...]] = [("limit", "value", "of")]
    for name, value, meaning in stated():
        if not name.startswith(PYTHON_ONLY) and name != "MAX_THREADS":
            rows.append((f"`{name}`", _number(value), meaning.rstrip(".")))
    return _table(rows)


TYPES = {"s": "u8", "B": "u8", "b": "i8", "H": "u16", "I": "u32"}


def _fields(layout: struct.Struct) -> Iterator[tuple[str, str]]:
    """Offset and type of every field of a little-endian structure."""
    codes, at = re.findall(r"(\d*)([sBbHI])", layout.format), 0
    for count, code in codes:
        repeated = 1 if code == "s" else int(count or 1)
        for _ in range(repeated):
            several = f"[{count}]" if code == "s" else ""
            yield str(at), TYPES[code] + several
            at += int(count or 1) if code == "s" else struct.calcsize("<" + code)


def header_table() -> str:
    most, channels = _number(limits.MAX_FILE_BYTES), _number(limits.MAX_CHANNELS)
    exponents = f"-{limits.MAX_EXPONENT} to {limits.MAX_EXPONENT}"
    rules = {
        "magic": (
            "magic",
            r"`89 43 4F 43 0D 0A 1A 0A` (`\x89COC\r\n\x1a\n`; like PNG's, it shows a transfer that "
            "changed line ends)",
        ),
        "version": ("version", f"1 to {coclayout.VERSION}, the oldest that has all kinds: see Versions"),
        "checksum": ("checksum", f"CRC-32 of the bytes {coclayout.CHECKED_FROM} to the end of the file"),
        "file_size": ("file size", f"bytes of the whole file, at most {most}"),
        "operators": ("N, operators", f"1 to {limits.MAX_OPERATORS}"),
        "segments": (
            "S, segments",
            f"1 to {limits.MAX_SEGMENTS} ({limits.MAX_EXITS} early exits and the final one), at most N",
        ),
        "channels": ("image channels", f"1 to {channels}"),
        "height": ("image height", "at least 1"),
        "width": ("image width", "at least 1"),
        "exponent": ("image exponent", exponents),
        "task": ("task: 0 classification, 1 regression", "0, 1"),
        "zero": ("zero", "0"),
        "description": (
            "D, description",
            f"bytes of the description, at most {_number(limits.MAX_DESCRIPTION)}",
        ),
        "zeros": ("zero", "0"),
    }
    rows: list[tuple[str, ...]] = [("offset", "type", "field", "rule")]
    for name, (offset, kind) in zip(Header._fields, _fields(HEADER), strict=True):
        rows.append((offset, kind, *rules[name]))
    return _table(rows)


def operator_table() -> str:
    """Fields of an operator; a rule of its own for logits is that of the linear layer."""
    bits = ", ".join(map(str, limits.WEIGHT_BITS))
    exponents = f"-{limits.MAX_EXPONENT} to {limits.MAX_EXPONENT}"
    kinds = sorted(KINDS)
    logits = ", ".join(str(kind) for kind in kinds if KINDS[kind].GIVES_LOGITS)
    pads = {
        side: f"< kernel {size}; of kind 1, < what it spans"
        for side, size in zip(("top", "left", "bottom", "right"), ("height", "width") * 2, strict=True)
    }
    rules = {
        "kind": ("kind", f"{kinds[0]} to {kinds[-1]}"),
        "weight_bits": ("weight bits", bits),
        "encoding": ("encoding: 0 odd, 1 symmetric", "0, 1"),
        "stride": ("stride, down where it is another across", "1 to 255"),
        "input": ("input, a tensor", "see Segments"),
        "second": (
            "second input, a tensor; of kind 1 dilation: down - 1 in the first byte, across - 1 in the other",
            f"see Segments; each 0 to {limits.MAX_DILATION - 1}, and 0 along a kernel of size 1",
        ),
        "kernel_height": ("kernel height", "1 to 255"),
        "kernel_width": ("kernel width", "1 to 255"),
        **{side: (f"pad {side}", rule) for side, rule in pads.items()},
        "groups": ("groups", "1 to 65,535"),
        "channels": ("output channels; of kind 9, tables", f"1 to {_number(limits.MAX_CHANNELS)}"),
        "bits": ("output bits", f"2 to {limits.MAX_BITS}; {limits.LOGIT_BITS} for kind {logits}"),
        "zero_point": ("output zero point", f"0 or 2^(bits-1); 0 for kind {logits}"),
        "exponent": ("output exponent", exponents),
        "across": ("stride across", "1 to 255, not that of offset 3; 0 if it is the same"),
    }
    rows: list[tuple[str, ...]] = [("offset", "type", "field", "rule", "kinds that use it")]
    for name, (offset, of) in zip(Row._fields, _fields(ROW), strict=True):
        using = [str(kind) for kind in kinds if name in EVERY | KINDS[kind].FIELDS]
        users = "all" if len(using) == len(kinds) else ", ".join(using) or "none"
        rows.append((offset, of, *rules[name], users))
    return _table(rows)


TABLES: dict[str, Callable[[], str]] = {
    "limits": limits_table,
    "header": header_table,
    "operator": operator_table,
}


def format_page(text: str) -> str:
    """The page with every table written anew."""

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        return f"<!-- generated: {name} -->\n{TABLES[name]()}\n<!-- end -->"

    return re.sub(r"<!-- generated: (\S+) -->\n.*?<!-- end -->", replace, text, flags=re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit with 1 if a file is out of date")
    options = parser.parse_args()
    wanted = {LIMITS_H: limits_h(), FORMAT: format_page(FORMAT.read_text())}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if options.check:
            print(f"{path.relative_to(ROOT)} is out of date: python runtime/generate.py")
        else:
            path.write_text(wanted[path])
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
