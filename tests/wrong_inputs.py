"""The files that wrong_inputs.toml speaks of, and what commands answer.

`python tests/wrong_inputs.py` prints all inputs with their answers as a table.
"""

import contextlib
import io
import os
import pickle
import shlex
import sys
import tempfile
import tomllib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Wrong:
    """One input. say: a part of the line."""

    line: str
    say: str
    code: int = 2


@dataclass(frozen=True)
class Found:
    """What a command answered. code: None where it raised something."""

    code: int | None
    out: str
    err: str


def inputs() -> list[Wrong]:
    """All rows of wrong_inputs.toml."""
    groups = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
    return [
        Wrong(f"{group['command']} {line}".rstrip(), *rest)
        for group in groups.values()
        for line, *rest in group["rows"]
    ]


GOOD = """\
chain = "DPQE"
[original]
model = "resnet8"
width = 4
epochs = 1
[d]
model = "resnet8"
width = 4
epochs = 1
[p]
ratio = 0.5
round_to = 1
epochs = 1
[q]
epochs = 1
[e]
head_channels = 4
epochs = 1
"""
STUDIED = """\
[original]
model = "resnet8"
width = 4
epochs = 1
[study]
cases = 1
[study.grid]
p.ratio = [0.5]
"""


def prepare(place: Path) -> None:
    """Fill the folder that the rows speak of."""
    write_texts(place)
    write_data(place / "data")
    write_models(place)


def write_texts(place: Path) -> None:
    texts = {
        "good.toml": GOOD,
        "empty.toml": "",
        "comment.toml": "# later\n",
        "broken.toml": "chain DPQE\n",
        "twice.toml": 'chain = "D"\nchain = "P"\n',
        "deep.toml": f"x = {'[' * 9999}\n",
        "unknown.toml": 'chains = "DPQE"\n',
        "section.toml": "[x]\nratio = 0.5\n",
        "no-section.toml": "q = 3\n",
        "p2.toml": 'chain = "PP"\np2 = 3\n',
        "raises.py": "def number():\n    return []\ndef make():\n    raise ValueError('no luck\\ntoday')\n",
        "syntax.py": "def make(:\n",
        "text.pt": "hello",
        "text.onnx": "hello",
        "text.coc": "hello",
        "study.toml": STUDIED,
        "study-key.toml": "[study]\nseed = [1]\n",
        "study-seeds.toml": "[study]\nseeds = [-1]\n",
        "study-grid.toml": "[study.grid]\np.ratio = []\n",
        "study-value.toml": "[study.grid]\np.ratio = [2]\n",
        "study-of.toml": '[study.pairs]\nof = ["DD"]\n',
        "study-number.toml": "study = 3\n",
        "study-task.toml": 'task = "regression"\ndata = "rotated-digits"\n',
        "study-data.toml": f'data = "imagefolder:none"\n{STUDIED}',
        "taken.md": "my notes",
        "reported.report.json": "{}",
        "damaged/study.sqlite": "hello " * 1000,
        "empty.json": "",
        "deep.json": 99999 * "[",
        "list.json": "[]",
        "no-runs.json": '{"schema": 2, "runs": [{}]}',
    }
    for name, text in texts.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    (place / "utf16.toml").write_text(GOOD, encoding="utf-16")
    (place / "latin1.toml").write_bytes("# caf\u00e9\n".encode("latin-1"))
    for name in ("empty.pt", "empty.onnx", "empty.coc"):
        (place / name).touch()
    (place / "folder.onnx").mkdir()


def write_data(root: Path) -> None:
    """Image folders of two classes, eight images each; most have something wrong about the last image."""
    folders = ("good", "sizes", "truncated", "jpeg", "text", "nothing", "fifo", "folder", "dangling", "real")
    for name in (*folders, "empty-class", "new-class", "no-test", "colour"):
        images(root / name, colour=name == "colour")
    images(root / "small", size=4)
    images(root / "one-class", classes=("a",))
    images(root / "one-image", count=1)
    (root / "no-train").mkdir()
    (root / "no-classes/train").mkdir(parents=True)
    (root / "no-test/test").rename(root / "no-test/elsewhere")
    (root / "new-class/test/b").rename(root / "new-class/test/c")
    for path in (root / "empty-class/train/b").iterdir():
        path.unlink()
    odd = {name: root / name / "train/b/3.png" for name in folders}
    for path in odd.values():
        path.unlink()
    save(odd["good"], 8)
    save(odd["sizes"], 9)
    save(odd["truncated"], 64)
    odd["truncated"].write_bytes(odd["truncated"].read_bytes()[:60])
    save(odd["jpeg"].with_suffix(".jpg"), 64)
    whole = odd["jpeg"].with_suffix(".jpg").read_bytes()
    odd["jpeg"].with_suffix(".jpg").write_bytes(whole[: len(whole) // 2])
    odd["text"].write_text("hello")
    odd["nothing"].touch()
    os.mkfifo(odd["fifo"])
    odd["folder"].mkdir()
    odd["dangling"].symlink_to("none.png")
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(odd["real"].with_suffix(".tif"))
    Image.new("L", (8, 8)).save(root.parent / "image.png")


def images(
    root: Path, classes: Sequence[str] = ("a", "b"), count: int = 4, size: int = 8, colour: bool = False
) -> None:
    for part in ("train", "test"):
        for name in classes:
            for index in range(count):
                save(root / part / name / f"{index}.png", size, colour)


def save(path: Path, size: int, colour: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size, size, 3) if colour else (size, size)
    Image.fromarray(np.random.default_rng(size).integers(0, 256, shape).astype(np.uint8)).save(path)


def write_models(place: Path) -> None:
    import torch

    from bench_files import artifact, float_model
    from coc_deploy import checkpoint
    from coc_deploy.checkpoint import FORMAT, VERSION, Checkpoint
    from tiny import float_network, quantized_network

    meta: dict[str, Any] = {"chain": "QE", "data": "digits", "classes": list("0123456789"), "seed": 0}
    meta |= {"chain_bits": [1, 8], "original_bitops": 10**9, "original_bits": 10**6, "versions": {}}
    checkpoint.save(place / "model.pt", Checkpoint(quantized_network(head="conv"), (), meta))
    checkpoint.save(place / "float.pt", Checkpoint(float_network(), (), meta))
    whole = (place / "model.pt").read_bytes()
    (place / "cut.pt").write_bytes(whole[: len(whole) // 2])
    torch.save({"weight": torch.zeros(3)}, place / "state.pt")
    torch.save({"format": FORMAT, "version": VERSION}, place / "hollow.pt")
    (place / "pickle.pt").write_bytes(pickle.dumps([1, 2]))
    onnx = artifact(place / "model.onnx", exits=1).read_bytes()
    (place / "reported.onnx").write_bytes(onnx)
    (place / "cut.onnx").write_bytes(onnx[: len(onnx) // 2])
    artifact(place / "four.onnx", exits=1, classes=4)
    coc = artifact(place / "model.coc", exits=1).read_bytes()
    (place / "cut.coc").write_bytes(coc[:-9])
    (place / "flipped.coc").write_bytes(coc[:-9] + bytes([coc[-9] ^ 1]) + coc[-8:])
    float_model(place / "float.onnx")
    float_model(place / "gray.onnx", channels=1)


def words(wrong: Wrong, place: Path, out: Path) -> list[str]:
    """The command line, its paths filled in."""
    return [word.replace("{out}", str(out)).replace("{}", str(place)) for word in shlex.split(wrong.line)]


def ask(command: Sequence[str]) -> Found:
    """Run a command in this process."""
    import coc_bench.cli
    import coc_deploy.cli
    import coc_export.cli
    import coc_study.cli

    mains = {
        "coc-compress": coc_deploy.cli.main,
        "coc-export": coc_export.cli.main,
        "coc-bench": coc_bench.cli.main,
        "coc-study": coc_study.cli.main,
    }
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), shown_warnings(err):
        try:
            code: int | None = mains[command[0]](command[1:])
        except SystemExit as stop:  # argparse
            code = stop.code if isinstance(stop.code, int) else None
    return Found(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def shown_warnings(err: io.StringIO) -> Iterator[None]:
    """Warnings as a user sees them, who has no pytest that collects them."""
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        for quiet in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", quiet)
        yield
    for warning in raised:
        err.write(f"{warning.category.__name__}: {warning.message}\n")


def faults(wrong: Wrong, found: Found) -> list[str]:
    """What is not as it should be about an answer."""
    name = wrong.line.split()[0]
    lines = found.err.splitlines()
    result = [] if found.code == wrong.code else [f"exit code {found.code}, not {wrong.code}"]
    if len(lines) != 1:
        result.append(f"{len(lines)} lines on stderr")
    if not any(line.startswith(f"{name}: error: ") for line in lines):
        result.append("no error is told")
    if wrong.say not in found.err:
        result.append(f"does not say {wrong.say!r}")
    return result


def main() -> int:
    """Print all inputs and their answers as a table; 1 if any is wrong."""
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "in")
        prepare(place)
        print("| input | code | line | |\n|---|---|---|---|")
        for number, wrong in enumerate(inputs()):
            found = ask(words(wrong, place, Path(folder, f"out{number}")))
            wanting = faults(wrong, found)
            bad += bool(wanting)
            line = " ".join(found.err.split()).replace(f"{place}/", "").replace(str(place), ".")
            cells = (
                wrong.line.replace("{}/", "").replace("{out}", "OUT"),
                found.code,
                line,
                "; ".join(wanting),
            )
            print("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    print(f"{number + 1} inputs, {bad} of them answered wrongly")
    return int(bad > 0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
