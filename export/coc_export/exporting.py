"""Writing artifacts: thresholds first, then every check, then the files; nothing is written if one fails."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from coc_runtime import files
from coc_runtime.errors import CocError
from coc_runtime.text import one_line

from . import card, choosing, export_report, imagesets, layers, parity, tables
from .export_report import Finished, report_path
from .imagesets import ImageSet, Kind
from .options import Choosing, Export, FloatExport
from .source import Source, is_artifact, load_checkpoint, open_source


def export(options: Export, say: Callable[[str], None] = print) -> tuple[Finished, ...]:
    """Check every artifact before the first is written; `say` gets the lines for people."""
    source = open_source(options.model)
    opset = options.opset or source.opset
    sets = _image_sets(source, options)
    source, sections = _set_thresholds(source, options, opset, say)
    finished = []
    for out, section in zip(options.outs, sections, strict=True):
        done = export_report.check(source, out, opset, sets, section)
        if len(options.outs) > 1:
            say(f"{one_line(out.name)}:")
        say(tables.summary(done.report))
        if section is not None:
            say(tables.threshold_choice(section))
        if options.sizes:
            say(tables.sizes(done.report["size"]))
        if options.layers:
            done.report["layers"] = layers.measure(done.file, sets[0].images)
            say(layers.text(done.report["layers"]))
        _check_agreement(done, options.allow_mismatch)
        finished.append(done)
    _write(finished, source, options, opset, say)
    return tuple(finished)


def _image_sets(source: Source, options: Export) -> list[ImageSet]:
    """What back ends are compared on: the test images of --data, or else of the data that thresholds
    are chosen on in this call; those that the model carries; generated ones."""
    graph, sets = source.graph, []
    option, spec = "--data", options.data
    if spec is None and options.choosing is not None:
        option, spec = "--choose-on", options.choosing.data
    if spec is not None:
        test = export_report.load_data(graph, option, spec, "test")
        sets.append(ImageSet.of(Kind.TEST, test, options.images))
    if source.images is not None:
        sets.append(ImageSet.of(Kind.CARRIED, source.images, options.images))
    return [*sets, imagesets.generate(graph.tensors[graph.input].shape, options.images)]


def _set_thresholds(
    source: Source, options: Export, opset: int, say: Callable[[str], None]
) -> tuple[Source, tuple[dict[str, Any] | None, ...]]:
    """The model with its thresholds, and the choice of thresholds in each artifact's report."""
    nothing = (None,) * len(options.outs)
    early = len(source.graph.segments) - 1
    if options.thresholds is not None or options.choosing is not None:
        asked = "--thresholds" if options.thresholds is not None else "--choose-on"
        if not early:
            raise CocError(f"{asked}: {source.path} has no early exits; add E to the recipe's chain")
    if options.thresholds is not None:
        try:
            return source.with_thresholds(options.thresholds), nothing
        except CocError as error:
            raise CocError(f"--thresholds: {error}") from None
    if options.choosing is None:
        return source, nothing
    found = _choose(source, options.choosing, options.outs, opset, say)
    return source.with_thresholds(found.thresholds), found.sections


def _choose(
    source: Source, wanted: Choosing, outs: tuple[Path, ...], opset: int, say: Callable[[str], None]
) -> choosing.Chosen:
    graph = source.graph
    data = export_report.load_data(graph, "--choose-on", wanted.data, "held-out")
    classes = len(data.classes)
    if classes != graph.classes:
        raise CocError(f"--choose-on {wanted.data}: {classes} classes, the model has {graph.classes}")
    packed = [(out.name, export_report.pack(graph, out, opset)[0].data) for out in outs]
    found = choosing.choose(graph, packed, data, wanted)
    if found.told:
        say(found.told)
    return found


def _check_agreement(done: Finished, allowed: bool) -> None:
    differing, flipped = parity.totals(parity.sections(done.report["parity"])).values()
    if (differing or flipped) and not allowed:
        raise CocError(
            f"{done.out.name}: back ends differ on {differing} logits and {flipped} exits; "
            "nothing was written (--allow-mismatch keeps the file)"
        )


def _write(
    finished: list[Finished], source: Source, options: Export, opset: int, say: Callable[[str], None]
) -> None:
    about = card.path_of(options.outs[0])
    card.check(about)
    made = [(done.out, done.file.data) for done in finished]
    if options.split is not None:
        from .onnx.writer import write_segments

        files.make_folder(options.split)
        for index, model in enumerate(write_segments(source.graph, opset)):
            content = model.SerializeToString(deterministic=True)
            made.append((options.split / f"segment{index}.onnx", content))
    with files.taking_turns(path.parent for path, _ in made):
        for path, content in made:
            files.write_bytes(path, content)
        for done in finished:
            files.write_json(report_path(done.out), done.report)
        files.write_text(about, card.text(source.graph, [done.report for done in finished]))
    for done in finished:
        say(one_line(f"wrote {done.out} and {report_path(done.out).name}"))
    say(one_line(f"wrote {about}"))


def export_float(options: FloatExport) -> None:
    """An unquantized model as float ONNX."""
    if is_artifact(options.model):
        raise CocError(f"--float: {options.model} holds integers; give a model.pt from before Q")
    loaded = load_checkpoint(options.model)
    from .onnx.float_network import write_float

    files.write_bytes(options.out, write_float(loaded.network).SerializeToString(deterministic=True))
    print(one_line(f"wrote {options.out} ({options.out.stat().st_size:,} bytes, float32)"))
