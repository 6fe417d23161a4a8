"""Runs a chain: rehearse its structure, then stage by stage into folders that a killed run continues from."""

import dataclasses
import hashlib
import json
import platform
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from coc_runtime import cost, datasets, files, quality, thresholds
from coc_runtime.arithmetic import Task
from coc_runtime.cost import LayerCost
from coc_runtime.datasets import Dataset
from coc_runtime.errors import CocError

from . import carried, checkpoint, keys, locking, losses, machine, qat, run_report, train
from .checkpoint import Checkpoint
from .counting import segment_layers
from .keys import Identity, Node
from .network import Network, exit_logits
from .recipe import Recipe
from .run_folder import RunFolder
from .stages import NAMES, STAGES, distill
from .state import Context, State
from .store import MODEL, PROGRESS, RESULT, Stage, Store

Show = Callable[[dict[str, Any]], None]

AUGMENT = {
    "digits": train.Augment(1, False),
    "rotated-digits": train.Augment(1, False),
    "cifar10": train.Augment(4, True),
    "svhn": train.Augment(4, False),
}
"""The usual augmentation; all other data are treated like CIFAR-10."""


@dataclasses.dataclass(frozen=True)
class Data:
    """The three parts of a data set: some images are held out of the training split."""

    training: Dataset
    held_out: Dataset
    test: Dataset

    @classmethod
    def load(cls, spec: str) -> "Data":
        parts = [datasets.load(spec, split) for split in ("train", "held-out", "test")]
        datasets.tell(*parts)
        return cls(*parts)

    @cached_property
    def version(self) -> str:
        """A hash of all images, labels and class names."""
        digest = hashlib.sha256(json.dumps(self.training.classes).encode())
        for part in (self.training, self.held_out, self.test):
            for array in (part.images, part.labels):
                digest.update(str((array.shape, array.dtype.str)).encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Start:
    """What a chain starts from, and what its ratios are relative to: the original float model's costs."""

    network: Network
    bitops: int
    bits: int
    chain: str = ""
    """stages that a given checkpoint went through before"""


def start(recipe: Recipe, data: Data) -> Start:
    """An untrained network, or the one of the checkpoint that the recipe names."""
    _check_task(recipe, data)
    _, channels, height, width = data.training.images.shape
    if min(height, width) < 8:
        raise CocError(f"data '{recipe.data}': images of {height}x{width} are too small, at least 8x8")
    classes = len(data.training.classes)
    if recipe.original.checkpoint:
        given = Path(recipe.original.checkpoint)
        return _given(given, (channels, height, width), classes, recipe.task)
    torch.manual_seed(recipe.seed)
    network = distill.build(recipe.original, channels, classes, (height, width))
    for note in network.notes:
        tqdm.write(f"  {network.arch.name}: {note}")
    layers = _flat(segment_layers(network))
    return Start(network, cost.bitops(layers), cost.stored_bits(layers))


def _check_task(recipe: Recipe, data: Data) -> None:
    """Raise CocError unless the data hold what the recipe's task predicts."""
    classes = data.training.classes
    if len(classes) == 1 and data.training.task is Task.CLASSIFICATION:
        raise CocError(f"data '{recipe.data}' hold one class, {classes[0]}: nothing to tell apart")
    if data.training.task is Task(recipe.task):
        return
    if data.training.task is Task.REGRESSION:
        held, advice = "numbers to predict", 'set task = "regression", or name data of classes, e.g. digits'
    else:
        held, advice = (
            "classes",
            'leave task = "regression" out, or name data of numbers, e.g. rotated-digits',
        )
    raise CocError(f"recipe: task = '{recipe.task}', but data '{recipe.data}' hold {held}: {advice}")


def _given(path: Path, shape: tuple[int, int, int], classes: int, task: str) -> Start:
    loaded = checkpoint.load(path)
    trained = loaded.task.value
    if trained != task:
        raise CocError(
            f"{path}: a model of a {trained}, but the recipe's task is {task}: set task = '{trained}'"
        )
    found = (*loaded.network.input_shape, loaded.network.arch.classes)
    if found != (*shape, classes):
        raise CocError(
            f"{path}: takes images of {list(found[:3])} in {found[3]} classes, the data have {list(shape)} "
            f"in {classes}; name its own data"
        )
    meta = loaded.meta
    try:
        return Start(loaded.network, meta["original_bitops"], meta["original_bits"], meta["chain"])
    except KeyError as error:
        raise CocError(f"{path}: does not say {error}; use a model.pt that coc-compress wrote") from error


def rehearse(recipe: Recipe, begun: Start) -> list[Network]:
    """Build what every stage will build, untrained, so that what cannot work fails before any training."""
    networks = [begun.network]
    for index, letter in enumerate(recipe.chain, start=1):
        seen = recipe.at(index)
        networks.append(STAGES[letter].transform(networks[-1], seen))
        qat.check_sums(networks[-1], seen.q.progressive if letter == "Q" else ())
    return networks


def plan(recipe: Recipe, data: Data) -> list[dict[str, Any]]:
    """What would run, a record per stage: costs of its rehearsed network with no image leaving early."""
    given = start(recipe, data)
    epochs = _epochs_of(recipe)
    steps = max(1, round(recipe.epoch_share * len(data.training.images)) // recipe.batch)
    records = []
    for index, network in enumerate(rehearse(recipe, given)):
        layers = _flat(segment_layers(network))
        records.append(
            {
                "stage": NAMES[recipe.chain[index - 1]] if index else "original",
                "section": recipe.section_name(index),
                "model": network.arch.name.rpartition(":")[2],
                "bits": "x".join(str(bits) for bits in chain_bits(network)),
                "exits": len(network.heads),
                "macs": sum(layer.macs for layer in layers),
                "bitops": cost.bitops(layers),
                "bitops_cr": given.bitops / cost.bitops(layers),
                "cr": given.bits / cost.stored_bits(layers),
                "epochs": epochs[index],
                "steps": epochs[index] * steps,
            }
        )
    return records


def _epochs_of(recipe: Recipe) -> list[int]:
    """Epochs of every stage, the original's first: none if it is given as a checkpoint."""
    stages = [recipe.section(index).epochs for index in range(1, len(recipe.chain) + 1)]
    return [0 if recipe.original.checkpoint else recipe.original.epochs, *stages]


def run(
    recipe: Recipe, out: Path, show: Show, store: Path | None = None, same_code: bool = False
) -> Checkpoint:
    """Run the chain; folder `out` shows its stages, of which those that are in the store are not computed.

    show: is called with each stage's record. store: a folder of stages that runs share, in place of the one
    in `out`. same_code: results that older code left in `out` count as those of this one.
    """
    with machine.fabric().rank_zero_first():  # which downloads
        data = Data.load(recipe.data)
    with locking.hold(out):
        folder, stages = RunFolder(out), Store.of(out, store)
        stages.make()
        code = (same_code and folder.code()) or keys.code_version()
        return _run(recipe, data, Identity(data.version, code), folder, stages, show)


def _run(
    recipe: Recipe, data: Data, identity: Identity, folder: RunFolder, store: Store, show: Show
) -> Checkpoint:
    begun, nodes, out = start(recipe, data), identity.path(recipe), folder.path
    rehearsed = rehearse(recipe, begun)
    if len(rehearsed[-1].heads) == 1 and Task(recipe.task) is Task.REGRESSION:
        advice = "with one no image leaves early; give e.positions two"
        tqdm.write(f"  warning: a regression compares exits, so {advice}")
    folder.check(nodes)
    if foreign := _foreign_weights(recipe):
        tqdm.write(
            f"  warning: early exits keep e.max_drop only if {foreign} never saw the held-out images; else "
            f'hold test images out: data = "{recipe.data}:held_out_of_test=0.5"'
        )
    machine.once(files.write_json, out / "recipe.json", recipe.as_dict())
    result: Checkpoint | None = None
    for node in nodes:
        stage = folder.stage(node, store)
        with nullcontext() if machine.fabric().broadcast(stage.finished) else stage.hold():
            result = finished_or_run(recipe, node, stage, result, begun, data)[0]
        begun = started_from(result) if node.index == 0 else begun
        show(result.history[-1])
        _write_history(out, result.history)
    assert result is not None
    machine.once(files.write_bytes, out / MODEL, stage.model.read_bytes())
    machine.once(run_report.write, out, recipe, result.history)
    return result


def _foreign_weights(recipe: Recipe) -> str:
    """The given networks whose training may have seen the images that thresholds are chosen on, or ""."""
    if "E" not in recipe.chain or recipe.e.thresholds or datasets.parse_held_out(recipe.data)[1].of_test:
        return ""
    stages = {recipe.section_name(at): recipe.section(at) for at in range(len(recipe.chain) + 1)}
    given = [name for name, section in stages.items() if getattr(section, "weights", "")]
    return " and ".join(f"the weights of [{name}]" for name in given)


def finished_or_run(
    recipe: Recipe, node: Node, stage: Stage, before: Checkpoint | None, begun: Start, data: Data
) -> tuple[Checkpoint, np.ndarray | None]:
    """The result of a stage, and its logits if it was not finished: then the caller holds its folder."""
    if stage.finished:
        stage.record()
        return stage.load(), None
    machine.once(stage.begin, node)
    return run_stage(recipe, node.index, before, begun, data, stage.folder, node.key)


def run_stage(
    recipe: Recipe,
    index: int,
    before: Checkpoint | None,
    begun: Start,
    data: Data,
    folder: Path,
    key: str,
) -> tuple[Checkpoint, np.ndarray]:
    """Run stage `index` of the chain in a folder of its own, from the last finished epoch that lies there.

    before: the result of the stage before; None for stage 0, which trains the original (one that is given
    is only measured). begun: what the chain started from, its network trained unless this is stage 0. key:
    says whose epochs the folder holds. Returns the result as it was written, and its logits on the test
    images, float32 [exits, N, classes].
    """
    name = NAMES[recipe.chain[index - 1]] if index else "original"
    context = _context(recipe, data, folder, name, key, index)
    started = time.perf_counter()
    history: tuple[dict[str, Any], ...] = () if before is None else before.history
    if before is None:
        network = _trained(begun.network, context)
    else:
        state = State(before.network, begun.network, history)
        network = STAGES[recipe.chain[index - 1]].run(state, context).network
    seconds = time.perf_counter() - started
    logits = exit_logits(network, data.test.images)
    record = _record(name, network, begun, data, logits, seconds, folder) | _guarantee(network, recipe)
    return _finish(folder, key, network, (*history, record), recipe, data, begun), logits


def started_from(original: Checkpoint) -> Start:
    """What a chain started from, by the result of its stage 0."""
    meta = original.meta
    return Start(original.network, meta["original_bitops"], meta["original_bits"], meta["chain"])


def _trained(network: Network, context: Context) -> Network:
    """The original; one that is given stays as it is."""
    config = context.recipe.original
    if not config.checkpoint:
        plain = losses.OBJECTIVES[context.task].plain
        modes = context.modes(network, config)
        context.fit(network, config, lambda x, y: plain(network(x), y), modes)
    return network


def _context(recipe: Recipe, data: Data, folder: Path, name: str, key: str, index: int) -> Context:
    files.make_folder(folder)
    files.remove_unfinished(folder)
    kind = recipe.data.partition(":")[0]
    usual = AUGMENT.get(kind, AUGMENT["cifar10"])
    augment = train.Augment(
        usual.pad if recipe.pad < 0 else recipe.pad, usual.flip if recipe.flip is None else recipe.flip
    )
    seed = recipe.seed * 16 + index
    torch.manual_seed(seed)
    later = sum(_epochs_of(recipe)[index + 1 :])
    seen = recipe.at(index)
    return Context(seen, name, key, seed, folder, data.training, data.held_out, augment, later)


def _finish(
    folder: Path,
    key: str,
    network: Network,
    history: tuple[dict[str, Any], ...],
    recipe: Recipe,
    data: Data,
    begun: Start,
) -> Checkpoint:
    """Write model.pt, see that it gives what was measured, then write result.json, whose presence says that
    the stage is finished."""
    meta = {
        "chain": begun.chain + recipe.chain[: len(history) - 1],
        "data": data.training.name,
        "classes": [str(name) for name in data.training.classes],
        "chain_bits": list(chain_bits(network)),
        "original_bitops": begun.bitops,
        "original_bits": begun.bits,
        "seed": recipe.seed,
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
    }
    if Task(recipe.task) is not Task.CLASSIFICATION:
        meta["task"] = recipe.task
    images = carried.some_of(data.held_out, recipe.carried_images)
    result = Checkpoint(network.eval(), history, meta, images)
    machine.once(checkpoint.save, folder / MODEL, result)
    loaded = checkpoint.load(folder / MODEL)
    machine.once(checkpoint.refuse_other, folder / MODEL, network, loaded.network, data.test.images)
    machine.once(files.write_json, folder / RESULT, {"key": key, **history[-1]})
    machine.once((folder / PROGRESS).unlink, True)
    return loaded


def chain_bits(network: Network) -> tuple[int, int]:
    """Bits of weights and activations that the chain asked for; 32 x 32 for a float network."""
    quant = network.quant
    return (quant.weight_bits, quant.act_bits) if quant else (cost.FLOAT_BITS, cost.FLOAT_BITS)


def _flat(segments: list[list[LayerCost]]) -> list[LayerCost]:
    return [layer for segment in segments for layer in segment]


def _record(
    name: str,
    network: Network,
    begun: Start,
    data: Data,
    logits: np.ndarray,
    seconds: float,
    folder: Path,
) -> dict[str, Any]:
    """What history.json holds for a stage: test quality (in integer mode where quantized), costs, time."""
    segments = segment_layers(network)
    cumulative = cost.exit_bitops(segments)
    uniform = np.cumsum([cost.uniform_bitops(segment, chain_bits(network)) for segment in segments])
    task = data.test.task
    gated = thresholds.gate(logits, data.test.labels, network.thresholds, cumulative, task)
    each = [quality.measure(exit_, data.test.labels, task) for exit_ in logits]
    measured = "accuracy" if task is Task.CLASSIFICATION else "mae"
    expected_uniform = float(np.dot(gated.shares, uniform))
    stored = cost.stored_bits(_flat(segments))
    epochs = _epochs(folder)
    return {
        "stage": name,
        "model": network.arch.name.rpartition(":")[2],
        "bits": "x".join(str(bits) for bits in chain_bits(network)),
        **gated.quality,
        f"exit_{measured}": [found[measured] for found in each],
        "exit_share": list(gated.shares),
        "thresholds": list(network.thresholds),
        "macs": sum(layer.macs for layer in _flat(segments)),
        "expected_bitops": gated.bitops,
        "bitops_cr": begun.bitops / gated.bitops,
        "bitops_cr_uniform": begun.bitops / expected_uniform,
        "cr": begun.bits / stored,
        "stored_bits": stored,
        "test_images": len(data.test.labels),
        "seconds": seconds if epochs is None else sum(epoch["seconds"] for epoch in epochs),
        "threads": torch.get_num_threads(),
        "epochs": epochs or [],
    }


def _guarantee(network: Network, recipe: Recipe) -> dict[str, Any]:
    """What the thresholds keep, where they were chosen, and what that takes for granted."""
    if network.kept is None:
        return {}
    foreign = _foreign_weights(recipe)
    assumed = {"assumes": f"{foreign} never saw the held-out images"} if foreign else {}
    return {"guarantee": network.kept.record() | assumed}


def _epochs(folder: Path) -> list[dict[str, float]] | None:
    progress = folder / PROGRESS
    return torch.load(progress, weights_only=True)["log"] if progress.exists() else None


def _write_history(out: Path, history: tuple[dict[str, Any], ...]) -> None:
    lines = ",\n".join(json.dumps(record) for record in history)
    machine.once(files.write_bytes, out / "history.json", f"[\n{lines}\n]\n".encode())
