"""Which networks of files of factories are traced, compute the same then, and can be quantized.

    python benchmarks/scripts/networks.py nets.py --json networks.json
    python benchmarks/scripts/networks.py nets.py --only resnet18 --json networks.json   # this one anew

A file has a tuple or list NAMES of functions that build networks, `model = "nets.py:resnet18"` of a recipe.
A network counts as traced if outputs and gradients are the same in evaluation and training mode, on random
images and with random weights (`coc_deploy.same`); as quantizable if every node then gets its quantized unit,
which is what `coc-compress --check` of a chain "Q" asks. Each has a process of its own, with a limit of time
and memory. Exit code 1 if one is traced and differs.
"""

import argparse
import json
import operator
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import fx

from coc_deploy import same
from coc_deploy.frontend.trace import trace_network
from coc_deploy.models import Architecture, build
from coc_deploy.models.user import load
from coc_deploy.network import Network
from coc_deploy.quantizers import QuantSpec
from coc_runtime import files
from coc_runtime.environment import environment
from coc_runtime.errors import CocError

CLASSES = 4
SIZE = 64
SIZES = {"inception_v3": 128, "alexnet": 224, "vgg11": 224, "vgg11_bn": 224}
"""Of networks that take no smaller images."""
BITS = QuantSpec(8, 8, 8)
FUNCTIONS = {operator.add: "Add", operator.mul: "Mul", torch.cat: "Concat"}


@dataclass(frozen=True)
class Outcome:
    """What became of a network.

    refused, differs, unquantized: the line that says why it is not traced, not the same, or has no integer
    form, or "". kinds: how many nodes of the float body are what. seconds: of tracing. megabytes: the most
    memory of the process.
    """

    name: str
    size: int
    seconds: float = 0.0
    refused: str = ""
    differs: str = ""
    unquantized: str = ""
    notes: tuple[str, ...] = ()
    kinds: dict[str, int] = field(default_factory=dict)
    megabytes: int = 0

    @property
    def state(self) -> str:
        if self.refused or self.differs:
            return "refused" if self.refused else "differs"
        return "traced" if self.unquantized else "quantizable"


def try_one(path: Path, name: str) -> Outcome:
    """Trace a network, compare it with itself, and quantize it."""
    size = SIZES.get(name, SIZE)
    arch = Architecture(f"{path}:{name}", 0, "B", 3, CLASSES)
    shape = (3, size, size)
    torch.manual_seed(0)
    started = time.perf_counter()
    try:
        module = build(arch)
        copied = same.copied(module)
        started = time.perf_counter()
        traced = trace_network(copied, shape, CLASSES)
    except CocError as error:
        return Outcome(name, size, time.perf_counter() - started, refused=str(error))
    seconds, kinds = time.perf_counter() - started, kinds_of(traced.body)
    differs = _fault(lambda: same.check(module, traced.body, shape, same.common(copied, traced.body)))
    unquantized = _fault(lambda: Network(arch, (size, size), traced).quantize(BITS))
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return Outcome(name, size, seconds, "", differs, unquantized, traced.notes, kinds, megabytes)


def _fault(run: Callable[[], None]) -> str:
    """The line with which it refuses, or ""."""
    try:
        run()
    except CocError as error:
        return str(error)
    return ""


def kinds_of(body: fx.GraphModule) -> dict[str, int]:
    """How many nodes are calls of which kind of module or function."""
    modules = dict(body.named_modules())
    found = Counter(
        type(modules[str(node.target)]).__name__ if node.op == "call_module" else FUNCTIONS[node.target]
        for node in body.graph.nodes
        if node.op in ("call_module", "call_function")
    )
    return dict(found.most_common())


def apart(path: Path, name: str, options: argparse.Namespace) -> Outcome:
    """What `try_one` gives in a process of its own, or that it took too much time or memory."""
    words = [sys.executable, __file__, str(path), "--one", name, "--gigabytes", str(options.gigabytes)]
    size = SIZES.get(name, SIZE)
    try:
        ended = subprocess.run(words, capture_output=True, text=True, timeout=options.seconds, check=False)
    except subprocess.TimeoutExpired:
        return Outcome(name, size, options.seconds, refused=f"takes longer than {options.seconds} s")
    if ended.returncode:
        last = ended.stderr.strip().splitlines()[-1:] or [f"exit code {ended.returncode}"]
        return Outcome(name, size, refused=f"fails: {last[0]}")
    return Outcome(**json.loads(ended.stdout.splitlines()[-1]))


def replaced(before: dict[str, Any], rows: dict[str, Any]) -> dict[str, Any]:
    """Earlier rows of every file with those of the same name replaced."""
    new = {(file, row["name"]): row for file, group in rows.items() for row in group}
    return {file: [new.get((file, row["name"]), row) for row in group] for file, group in before.items()}


def line(outcome: Outcome) -> str:
    said = outcome.refused or outcome.differs or outcome.unquantized
    said = said or " ".join(f"{kind}:{number}" for kind, number in outcome.kinds.items())
    notes = "".join(f" ({note})" for note in outcome.notes)
    seconds, megabytes = f"{outcome.seconds:.1f}s", f"{outcome.megabytes} MB"
    return f"{outcome.state:<12}{outcome.name:<28}{outcome.size:>4}{seconds:>8}{megabytes:>9}  {said}{notes}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.py")
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--seconds", type=int, default=600, help="limit of one network's time")
    parser.add_argument("--gigabytes", type=int, default=8, help="limit of one network's memory")
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--one", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        bytes_ = options.gigabytes << 30
        resource.setrlimit(resource.RLIMIT_DATA, (bytes_, bytes_))
        print(json.dumps(asdict(try_one(options.files[0], options.one))))
        return 0
    outcomes: dict[str, list[Outcome]] = {}
    for path in options.files:
        names = [name for name in load(path).NAMES if not options.only or name in options.only]
        outcomes[path.name] = []
        for name in names:
            outcomes[path.name].append(apart(path, name, options))
            print(line(outcomes[path.name][-1]), flush=True)
    every = [outcome for group in outcomes.values() for outcome in group]
    states = Counter(outcome.state for outcome in every)
    print(f"{len(every)} networks: {', '.join(f'{n} {state}' for state, n in states.items())}")
    if options.json:
        rows = {name: [asdict(outcome) for outcome in group] for name, group in outcomes.items()}
        if options.only and options.json.is_file():
            rows = replaced(json.loads(options.json.read_text())["networks"], rows)
        files.write_json(options.json, {"environment": environment(), "networks": rows})
    return 1 if states["differs"] else 0


if __name__ == "__main__":
    sys.exit(main())
