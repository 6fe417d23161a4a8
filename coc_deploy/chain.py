"""Runs a chain: rehearse its structure, then stage by stage into folders that a killed run continues from."""

import dataclasses
import json
import platform
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coc_runtime import cost, datasets, files
from coc_runtime.cost import LayerCost
from coc_runtime.datasets import Dataset
from coc_runtime.errors import CocError

from . import checkpoint, thresholds, train
from .checkpoint import Checkpoint
from .counting import segment_layers
from .network import Network, exit_logits
from .recipe import Recipe
from .stages import NAMES, STAGES, distill
from .state import Context, State

Show = Callable[[dict[str, Any]], None]

AUGMENT = {"digits": train.Augment(1, False), "cifar10": train.Augment(4, True)}
"""The usual augmentation; image folders are treated like CIFAR-10."""


@dataclasses.dataclass(frozen=True)
class Data:
    """The three parts of a data set: calibration is held out of the training split."""

    training: Dataset
    calibration: Dataset
    test: Dataset

    @classmethod
    def load(cls, spec: str) -> "Data":
        return cls(*(datasets.load(spec, split) for split in ("train", "calibration", "test")))


def rehearse(recipe: Recipe, data: Data) -> None:
    """Build what every stage will build, untrained, so that what cannot work fails before any training."""
    network = _untrained(recipe, data)
    for letter in recipe.chain:
        network = STAGES[letter].transform(network, recipe)


def _untrained(recipe: Recipe, data: Data) -> Network:
    _, channels, height, width = data.training.images.shape
    if min(height, width) < 8:
        raise CocError(f"data '{recipe.data}': images of {height}x{width} are too small, at least 8x8")
    torch.manual_seed(recipe.seed)
    return distill.build(recipe.original, channels, len(data.training.classes), (height, width))


def run(recipe: Recipe, out: Path, reuse: Path | None, show: Show) -> Checkpoint:
    """Run the chain into folder `out`; finished stages with the same key are loaded, not recomputed.

    reuse: another run's folder whose stages of the same key are copied. show is called with each
    stage's record.
    """
    if reuse is not None and not reuse.is_dir():
        raise CocError(f"--reuse {reuse}: no such folder; give the folder of a finished run")
    data = Data.load(recipe.data)
    files.make_folder(out)
    rehearse(recipe, data)
    for index in range(len(recipe.chain) + 1):
        _check_key(_folder(recipe, out, index), recipe.key(recipe.chain[:index]))
    files.write_json(out / "recipe.json", recipe.as_dict())
    stage = _original(recipe, data, out, reuse)
    original = stage.network
    show(stage.history[-1])
    for index, letter in enumerate(recipe.chain, start=1):
        folder = _folder(recipe, out, index)
        key = recipe.key(recipe.chain[:index])
        finished = _finished(folder, key, reuse)
        if finished is None:
            context = _context(recipe, data, folder, NAMES[letter], key, index)
            started = time.perf_counter()
            state = STAGES[letter].run(State(stage.network, original, stage.history), context)
            record = _record(NAMES[letter], state.network, original, recipe, data, started, folder)
            finished = _finish(folder, key, state.network, (*stage.history, record), recipe, data, original)
        stage = finished
        show(stage.history[-1])
        _write_history(out, stage.history)
    files.write_bytes(out / "model.pt", (folder / "model.pt").read_bytes())
    return stage


def _folder(recipe: Recipe, out: Path, index: int) -> Path:
    """Where stage `index` of the chain keeps its files; 0 is the original."""
    name = NAMES[recipe.chain[index - 1]] if index else "original"
    return out / f"{index:02d}-{name}"


def _original(recipe: Recipe, data: Data, out: Path, reuse: Path | None) -> Checkpoint:
    folder, key = _folder(recipe, out, 0), recipe.key("")
    finished = _finished(folder, key, reuse)
    if finished is None:
        context = _context(recipe, data, folder, "original", key, 0)
        network = _untrained(recipe, data)
        started = time.perf_counter()
        context.fit(
            network,
            recipe.original,
            lambda x, y: train.cross_entropy(network(x), y),
            context.float_mode(network),
        )
        record = _record("original", network, network, recipe, data, started, folder)
        finished = _finish(folder, key, network, (record,), recipe, data, network)
    _write_history(out, finished.history)
    return finished


def _context(recipe: Recipe, data: Data, folder: Path, name: str, key: str, index: int) -> Context:
    files.make_folder(folder)
    kind = recipe.data.partition(":")[0]
    usual = AUGMENT.get(kind, AUGMENT["cifar10"])
    augment = train.Augment(
        usual.pad if recipe.pad < 0 else recipe.pad, usual.flip if recipe.flip is None else recipe.flip
    )
    seed = recipe.seed * 16 + index
    torch.manual_seed(seed)
    return Context(recipe, name, key, seed, folder, data.training, data.calibration, augment)


def _finished(folder: Path, key: str, reuse: Path | None) -> Checkpoint | None:
    """The stage's result if the folder, or else the one to reuse, holds it for this key."""
    if reuse is not None and not (folder / "result.json").exists():
        other = reuse / folder.name
        if _key_of(other) == key:
            shutil.rmtree(folder, ignore_errors=True)
            temporary = folder.with_name(f".{folder.name}.tmp")
            shutil.rmtree(temporary, ignore_errors=True)
            try:
                shutil.copytree(other, temporary)
                temporary.rename(folder)
            except OSError as error:
                raise CocError(f"{other}: cannot be copied to {folder} ({error.strerror})") from error
    return checkpoint.load(folder / "model.pt") if _check_key(folder, key) else None


def _check_key(folder: Path, key: str) -> bool:
    """Whether the folder holds a finished result; CocError if that is another recipe's."""
    found = _key_of(folder)
    if found not in (None, key):
        raise CocError(
            f"{folder} holds the result of another recipe; choose another --out (with --reuse "
            f"{folder.parent} what both share is taken over), or remove that folder and those after it"
        )
    return found is not None


def _key_of(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / "result.json").read_text())["key"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CocError(
            f"{folder / 'result.json'}: unreadable; remove this folder to compute it again"
        ) from error


def _finish(
    folder: Path,
    key: str,
    network: Network,
    history: tuple[dict[str, Any], ...],
    recipe: Recipe,
    data: Data,
    original: Network,
) -> Checkpoint:
    """Write model.pt, then result.json, whose presence says that the stage is finished."""
    layers = _flat(segment_layers(original))
    meta = {
        "chain": recipe.chain[: len(history) - 1],
        "data": data.training.name,
        "classes": [str(name) for name in data.training.classes],
        "chain_bits": list(chain_bits(network)),
        "original_bitops": cost.bitops(layers),
        "original_bits": cost.stored_bits(layers),
        "seed": recipe.seed,
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
    }
    result = Checkpoint(network.eval(), history, meta)
    checkpoint.save(folder / "model.pt", result)
    files.write_json(folder / "result.json", {"key": key, **history[-1]})
    (folder / "progress.pt").unlink(missing_ok=True)
    return checkpoint.load(folder / "model.pt")


def chain_bits(network: Network) -> tuple[int, int]:
    """Bits of weights and activations that the chain asked for; 32 x 32 for a float network."""
    quant = network.quant
    return (quant.weight_bits, quant.act_bits) if quant else (cost.FLOAT_BITS, cost.FLOAT_BITS)


def _flat(segments: list[list[LayerCost]]) -> list[LayerCost]:
    return [layer for segment in segments for layer in segment]


def _record(
    name: str, network: Network, original: Network, recipe: Recipe, data: Data, started: float, folder: Path
) -> dict[str, Any]:
    """What history.json holds for a stage: test accuracy (integer mode where quantized), costs, time."""
    seconds = time.perf_counter() - started
    logits = exit_logits(network, data.test.images)
    segments = segment_layers(network)
    cumulative = np.cumsum([cost.bitops(segment) for segment in segments]).tolist()
    uniform = np.cumsum([cost.uniform_bitops(segment, chain_bits(network)) for segment in segments])
    gated = thresholds.gate(logits, data.test.labels, network.thresholds, cumulative)
    original_layers = _flat(segment_layers(original))
    expected_uniform = float(np.dot(gated.shares, uniform))
    stored = cost.stored_bits(_flat(segments))
    epochs = _epochs(folder)
    return {
        "stage": name,
        "model": network.arch.name,
        "bits": "x".join(str(bits) for bits in chain_bits(network)),
        "accuracy": gated.accuracy,
        "exit_accuracy": [train.accuracy(exit_, data.test.labels) for exit_ in logits],
        "exit_share": list(gated.shares),
        "thresholds": list(network.thresholds),
        "macs": sum(layer.macs for layer in _flat(segments)),
        "expected_bitops": gated.bitops,
        "bitops_cr": cost.bitops(original_layers) / gated.bitops,
        "bitops_cr_uniform": cost.bitops(original_layers) / expected_uniform,
        "cr": cost.stored_bits(original_layers) / stored,
        "stored_bits": stored,
        "test_images": len(data.test.labels),
        "seconds": seconds if epochs is None else sum(epoch["seconds"] for epoch in epochs),
        "threads": torch.get_num_threads(),
        "epochs": epochs or [],
    }


def _epochs(folder: Path) -> list[dict[str, float]] | None:
    progress = folder / "progress.pt"
    return torch.load(progress, weights_only=True)["log"] if progress.exists() else None


def _write_history(out: Path, history: tuple[dict[str, Any], ...]) -> None:
    lines = ",\n".join(json.dumps(record) for record in history)
    files.write_bytes(out / "history.json", f"[\n{lines}\n]\n".encode())
