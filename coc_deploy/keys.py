"""The key of a stage: a hash of everything that its result depends on, and of no path.

Runs, studies and searches name a stage's folder by it, so that all of them can share one store.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import coc_runtime
from coc_runtime import files
from coc_runtime.arithmetic import Task
from coc_runtime.errors import CocError

from . import checkpoint, models
from .models import user
from .recipe import CARRIED_IMAGES, Recipe

WITHOUT_EFFECT = (
    "__main__.py",
    "api.py",
    "cli.py",
    "run_report.py",
    "listing.py",
    "locking.py",
    "run_folder.py",
    "store.py",
    "__pycache__",
)
"""Parts of coc_deploy that no stage's result depends on."""
USED_OF_RUNTIME = (
    "arithmetic.py",
    "cost.py",
    "datasets.py",
    "guarantee.py",
    "imagefiles.py",
    "limits.py",
    "promise.py",
    "quality.py",
    "thresholds.py",
)
"""Parts of coc_runtime that results depend on; a test compares them with what is imported."""
WANTED = {
    "weights": "a state dict",
    "checkpoint": "a model.pt of coc-compress",
    "model": "file.py:factory or net.onnx",
}
"""What a key of a section that names a file should name."""


@dataclass(frozen=True)
class Node:
    """One stage. path: keys of the original, of the stages between, and of this one. recipe: its chain ends
    with this stage (of the original it is the whole chain of some case). basis: what its key is a hash of."""

    path: tuple[str, ...]
    recipe: Recipe
    basis: Mapping[str, Any] = field(compare=False)

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
    """What every key holds beside the recipe: the versions of the data's content and of the code."""

    data: str
    code: str

    def path(self, recipe: Recipe) -> tuple[Node, ...]:
        """The nodes of a recipe's chain, the original first."""
        keys: list[str] = []
        nodes = []
        for index in range(len(recipe.chain) + 1):
            chain = recipe.chain[:index]
            basis = {
                "chain": chain,
                "settings": settings(recipe, chain),
                "data": self.data,
                "code": self.code,
            }
            text = json.dumps(basis, sort_keys=True)
            keys.append(hashlib.sha256(text.encode()).hexdigest()[:16])
            nodes.append(Node(tuple(keys), dataclasses.replace(recipe, chain=chain or recipe.chain), basis))
        return tuple(nodes)


def settings(recipe: Recipe, stages: str) -> dict[str, Any]:
    """The settings that the result of a prefix of the chain ("" is the original) depends on, files by their
    content."""
    used: dict[str, Any] = {
        name: getattr(recipe, name) for name in ("seed", "batch", "precision", "pad", "flip")
    }
    # Of the data's name the kind alone: it chooses the usual augmentation.
    used["data"] = recipe.data.partition(":")[0]
    if recipe.task != Task.CLASSIFICATION.value:
        used["task"] = recipe.task
    if recipe.epoch_share != 1:
        used["epoch_share"] = recipe.epoch_share
    if recipe.carried_images != CARRIED_IMAGES:
        used["carried_images"] = recipe.carried_images
    prefix = recipe if not stages else dataclasses.replace(recipe, chain=stages)
    for index in range(len(stages) + 1):
        used[prefix.section_name(index)] = _hashed(prefix.section(index))
    if recipe.original.checkpoint:
        # A given network may be pruned, quantized or have exits: the sections of what it went through are
        # read, also where the chain so far does not name them.
        went_through = _of_file(recipe.original.checkpoint, "checkpoint", _chain_of).lower()
        used["given"] = {name: _hashed(getattr(recipe, name)) for name in sorted(set(went_through))}
    return used


def _hashed(section: Any) -> dict[str, Any]:
    """What of a section goes into a stage's key: its values, and the content of the files it names."""
    config = dataclasses.asdict(section)
    for key in ("weights", "checkpoint"):
        if config.get(key):
            config[key] = _of_file(config[key], key, _digest)
    if models.is_user(config.get("model", "")):
        path, separator, factory = user.parts(config["model"])
        config["model"] = f"{_of_file(path, 'model', _digest_of_source)}{separator}{factory}"
    later = [f for f in dataclasses.fields(section) if f.metadata.get("later")]
    usual = {f.name: {} if f.default is dataclasses.MISSING else f.default for f in later}
    return {k: v for k, v in config.items() if k not in usual or usual[k] != v}


def _of_file(path: str, key: str, read: Any) -> str:
    """What `read` finds in the file that a section names under this key; CocError where it is not there."""
    files.require_regular(Path(path), f"set '{key}' to {WANTED[key]}")
    try:
        state = Path(path).stat()
        return str(read(path, state.st_mtime_ns, state.st_size))
    except OSError as error:
        raise CocError(f"{path}: cannot be read ({error.strerror}); set '{key}' to {WANTED[key]}") from error


# The time and the size are parameters of these three, so that a file that is changed is read again.


@cache
def _digest(path: str, changed: int, size: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@cache
def _chain_of(path: str, changed: int, size: int) -> str:
    """The stages that a given model.pt went through."""
    return str(checkpoint.load(Path(path)).meta.get("chain", ""))


def _digest_of_source(path: str, changed: int, size: int) -> str:
    """The digest of a user's file and of what it takes from its own folder."""
    digest = hashlib.sha256(Path(path).read_bytes())
    for name, file in user.imported(Path(path)).items():
        digest.update(name.encode() + file.read_bytes())
    return digest.hexdigest()


@cache
def code_version() -> str:
    """The package's version and a hash of the sources that results depend on."""
    deploy, runtime = Path(__file__).parent, Path(coc_runtime.__file__ or "").parent
    sources = [path for path in sorted(deploy.rglob("*.py")) if not _without_effect(path.relative_to(deploy))]
    digest = hashlib.sha256()
    for path in sources + [runtime / name for name in USED_OF_RUNTIME]:
        digest.update(path.name.encode() + path.read_bytes())
    return f"{coc_runtime.__version__}-{digest.hexdigest()[:12]}"


def _without_effect(path: Path) -> bool:
    return path.parts[0] in WITHOUT_EFFECT
