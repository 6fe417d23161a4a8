"""Which networks of files of factories are traced, if they compute the same then, and what they consist of.

    python benchmarks/scripts/networks.py nets.py --json networks.json
    python benchmarks/scripts/networks.py nets.py --only resnet18 densenet121

A file has a tuple or list NAMES of functions that build networks, `model = "nets.py:resnet18"` of a recipe.
A network counts as equal if outputs and gradients are the same in evaluation and training mode, on random
images and with random weights (`coc_deploy.same`). Exit code 1 if one is traced and differs.
"""

import argparse
import operator
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import fx

from coc_deploy import same
from coc_deploy.frontend.trace import trace_network
from coc_deploy.models import Architecture, build
from coc_deploy.models.user import load
from coc_runtime import files
from coc_runtime.environment import environment
from coc_runtime.errors import CocError

CLASSES = 4
SIZE = 64
SIZES = {"inception_v3": 128, "alexnet": 224, "vgg11": 224, "vgg11_bn": 224}
"""Of networks that take no smaller images."""
FUNCTIONS = {operator.add: "Add", operator.mul: "Mul", torch.cat: "Concat"}


@dataclass(frozen=True)
class Outcome:
    """refused, differs: the line that says why, or "". kinds: how many nodes of the body are what."""

    name: str
    size: int
    seconds: float
    refused: str = ""
    differs: str = ""
    notes: tuple[str, ...] = ()
    kinds: dict[str, int] = field(default_factory=dict)

    @property
    def state(self) -> str:
        return "refused" if self.refused else "differs" if self.differs else "equal"


def try_one(path: Path, name: str, size: int) -> Outcome:
    """Trace a network and compare it with itself."""
    shape = (3, size, size)
    torch.manual_seed(0)
    module = build(Architecture(f"{path}:{name}", 0, "B", 3, CLASSES))
    started = time.perf_counter()
    try:
        copied = same.copied(module)
        traced = trace_network(copied, shape, CLASSES)
    except CocError as error:
        return Outcome(name, size, time.perf_counter() - started, refused=str(error))
    seconds = time.perf_counter() - started
    differs = ""
    try:
        same.check(module, traced.body, shape, same.common(copied, traced.body))
    except CocError as error:
        differs = str(error)
    return Outcome(name, size, seconds, "", differs, traced.notes, kinds_of(traced.body))


def kinds_of(body: fx.GraphModule) -> dict[str, int]:
    """How many nodes are calls of which kind of module or function."""
    modules = dict(body.named_modules())
    found = Counter(
        type(modules[str(node.target)]).__name__ if node.op == "call_module" else FUNCTIONS[node.target]
        for node in body.graph.nodes
        if node.op in ("call_module", "call_function")
    )
    return dict(found.most_common())


def line(outcome: Outcome) -> str:
    said = outcome.refused or outcome.differs or " ".join(f"{k}:{n}" for k, n in outcome.kinds.items())
    notes = "".join(f" ({note})" for note in outcome.notes)
    return f"{outcome.state:<8}{outcome.name:<32}{outcome.size:>4}{outcome.seconds:>7.1f}s  {said}{notes}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.py")
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="OUT")
    options = parser.parse_args()
    outcomes: dict[str, list[Outcome]] = {}
    for path in options.files:
        names = [name for name in load(path).NAMES if not options.only or name in options.only]
        outcomes[path.name] = []
        for name in names:
            outcomes[path.name].append(try_one(path, name, SIZES.get(name, SIZE)))
            print(line(outcomes[path.name][-1]), flush=True)
    every = [outcome for group in outcomes.values() for outcome in group]
    states = Counter(outcome.state for outcome in every)
    print(f"{len(every)} networks: {', '.join(f'{n} {state}' for state, n in states.items())}")
    if options.json:
        rows = {name: [asdict(outcome) for outcome in group] for name, group in outcomes.items()}
        files.write_json(options.json, {"environment": environment(), "networks": rows})
    return 1 if states["differs"] else 0


if __name__ == "__main__":
    sys.exit(main())
