"""Chains as a tree: a node is one stage's result, named by a hash of everything that leads to it."""

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import coc_deploy
import coc_runtime

from .. import checkpoint
from ..chain import Data
from ..recipe import Recipe, hashed

WITHOUT_EFFECT = ("study", "cli.py", "report.py", "listing.py", "locking.py", "__pycache__")
"""Parts of coc_deploy that no stage's result depends on."""
USED_OF_RUNTIME = ("arithmetic.py", "cost.py", "datasets.py", "imagefiles.py", "quality.py")


@dataclass(frozen=True)
class Node:
    """One stage. path: keys of the original, of the stages between, and of this one. recipe: its chain ends
    with this stage (of the original it is the whole chain of some case)."""

    path: tuple[str, ...]
    recipe: Recipe

    @property
    def key(self) -> str:
        return self.path[-1]

    @property
    def parent(self) -> str | None:
        return self.path[-2] if len(self.path) > 1 else None

    @property
    def index(self) -> int:
        """Its place in the chain; 0 is the original."""
        return len(self.path) - 1

    @property
    def chain(self) -> str:
        return self.recipe.chain[: self.index]

    @property
    def epochs(self) -> int:
        """That this stage trains."""
        given = self.index == 0 and self.recipe.original.checkpoint
        return 0 if given else self.recipe.section(self.index).epochs


@dataclass(frozen=True)
class Identity:
    """What every key of a study holds beside the recipe: of the data's content and of the code."""

    data: str
    code: str

    def path(self, recipe: Recipe) -> tuple[Node, ...]:
        """The nodes of a recipe's chain, the original first."""
        keys: list[str] = []
        nodes = []
        for index in range(len(recipe.chain) + 1):
            keys.append(self._key(recipe, recipe.chain[:index]))
            chain = recipe.chain[:index] or recipe.chain
            nodes.append(Node(tuple(keys), dataclasses.replace(recipe, chain=chain)))
        return tuple(nodes)

    def _key(self, recipe: Recipe, stages: str) -> str:
        leading = recipe.leading_to(stages) | {"data": self.data, "code": self.code}
        if recipe.original.checkpoint:
            # A given network may be pruned, quantized or have exits: the sections of what it went through are
            # read, also where the chain so far does not name them.
            went_through = _chain_of(recipe.original.checkpoint).lower()
            leading["sections"] = {name: hashed(getattr(recipe, name)) for name in sorted(set(went_through))}
        text = json.dumps([stages, leading], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def unite(paths: Iterable[tuple[Node, ...]]) -> dict[str, Node]:
    """All nodes by their keys, each after its parent, the stages of a chain close to each other."""
    nodes: dict[str, Node] = {}
    children: dict[str | None, list[str]] = {None: []}
    for path in paths:
        for node in path:
            if node.key not in nodes:
                nodes[node.key] = node
                children.setdefault(node.parent, []).append(node.key)
    return {key: nodes[key] for root in children[None] for key in _below(root, children)}


def _below(key: str, children: Mapping[str | None, list[str]]) -> Iterator[str]:
    """A node and all that descend from it, depth first."""
    yield key
    for child in children.get(key, ()):
        yield from _below(child, children)


@cache
def code_version() -> str:
    """The package's version and a hash of the sources that results depend on."""
    deploy, runtime = (Path(package.__file__ or "").parent for package in (coc_deploy, coc_runtime))
    files = [path for path in sorted(deploy.rglob("*.py")) if not _without_effect(path.relative_to(deploy))]
    digest = hashlib.sha256()
    for path in files + [runtime / name for name in USED_OF_RUNTIME]:
        digest.update(path.name.encode() + path.read_bytes())
    return f"{coc_runtime.__version__}-{digest.hexdigest()[:12]}"


def _without_effect(path: Path) -> bool:
    return path.parts[0] in WITHOUT_EFFECT


@cache
def _chain_of(model: str) -> str:
    """The stages that a given model.pt went through."""
    return str(checkpoint.load(Path(model)).meta["chain"])


@cache
def load_data(spec: str) -> Data:
    """A data set, loaded once in this process."""
    return Data.load(spec)


@cache
def data_version(spec: str) -> str:
    """A hash of all images, labels and class names of a data set."""
    data = load_data(spec)
    digest = hashlib.sha256(json.dumps(data.training.classes).encode())
    for part in (data.training, data.calibration, data.test):
        digest.update(str((part.images.shape, part.labels.dtype)).encode())
        digest.update(part.images.tobytes() + part.labels.tobytes())
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Of what results were computed with."""
    import platform

    packages = ("torch", "torch-pruning", "numpy")
    return {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in packages}}
