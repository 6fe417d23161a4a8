"""Integer graph -> ONNX: one file with an If per exit, or one file per segment. Standard operators only.

Level k of the one file holds segment k, its gate and an If whose else_branch is level k+1:

    confidence = ReduceMax(Softmax(logits));  If(confidence >= thresholds[k]) leave, else level k+1

A regression compares with level k-1 instead, where there is one; level 0's confidence is -inf:

    d = ReduceMax(Abs(Sub(logits, logits of level k-1)));  confidence = Neg(d);  If(thresholds[k] >= d)

The file's header and checksum are defined in coc_runtime.onnxfile, which reads what this writes.
"""

import json
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper

from coc_runtime import manifest, onnxfile
from coc_runtime.arithmetic import gate_thresholds
from coc_runtime.errors import CocError
from coc_runtime.graph import Graph, Task, verify
from coc_runtime.limits import MAX_EXITS

from .constants import Constants
from .nodes import write_segment
from .segment import SegmentWriter

OUTPUTS = ["logits", "exit", "confidence"]


def write_onnx(graph: Graph, *, packed: bool = True, opset: int = onnxfile.OPSET) -> onnx.ModelProto:
    """The whole graph as one model.

    Inputs: `image` uint8 [1, C, H, W] with early exits (an If takes one decision), else [N, C, H, W];
    with early exits also `thresholds` float32 [exits], optional. Outputs: `logits` float32
    [N, classes], `exit` int64 [N], `confidence` float32 [N].

    packed=True stores each weight at its bits and adds the manifest with which coc_runtime reads the
    file; packed=False stores weights below 8 bits as int8, for comparison, and adds no manifest.
    opset: one of `onnxfile.IR_VERSIONS`. Raises CocError if the graph is not legal or cannot be expressed.
    """
    _check_opset(opset)
    verify(graph)
    exits = len(graph.thresholds)
    if exits > MAX_EXITS:
        raise CocError(f"{exits} early exits, one ONNX file nests {MAX_EXITS}: split it by segment")
    constants = Constants()
    aliases = {graph.input: "image"}
    if not exits:
        aliases[graph.segments[0].logits] = "logits"
    writers = [SegmentWriter(graph, k, constants, aliases, packed, opset) for k in range(exits + 1)]
    levels = [write_segment(writer) for writer in writers]
    results = _last(graph, levels[-1])
    for k in reversed(range(exits)):
        inner = _subgraph(graph, f"segment{k + 1}", levels[k + 1], results)
        results = _gate(graph, levels[k], inner)
    top = levels[0]
    batch: int | str = 1 if exits else "N"
    inputs = [_codes_info("image", graph, graph.input, batch)]
    if exits:
        splits = [f"t{k}" for k in range(exits)]
        limits = gate_thresholds(graph.thresholds, graph.task)
        count: dict[str, Any] = {"num_outputs": exits} if opset >= 18 else {}
        top.nodes.insert(0, helper.make_node("Split", ["thresholds"], splits, **count))
        top.initializers.append(numpy_helper.from_array(limits, "thresholds"))
        inputs.append(helper.make_tensor_value_info("thresholds", TensorProto.FLOAT, [exits]))
    outputs = _result_infos(graph, results, batch)
    initializers = [*constants.tensors.values(), *top.initializers]
    model = _model(helper.make_graph(top.nodes, "coc", inputs, outputs, initializers), opset)
    if packed:
        _seal(model, manifest.dump(graph))
    return model


def write_segments(graph: Graph, opset: int = onnxfile.OPSET) -> list[onnx.ModelProto]:
    """One model per segment, for batches of any size.

    Segment k reads `image` (k = 0) or `carry{k-1}` (uint8 codes) and gives `logits` float32
    [N, classes], `confidence` float32 [N] and, except the last, `carry{k}`. Metadata `coc_segment`
    holds the segment's number, their count and the threshold at which to stop. Segments of a regression
    but the first also read `logits_before`, float32 [N, classes], and stop at confidence >= -threshold.
    """
    _check_opset(opset)
    verify(graph)
    thresholds = gate_thresholds(graph.thresholds, graph.task)
    models = []
    for k, segment in enumerate(graph.segments):
        source = graph.segment_input(k)
        read = "image" if k == 0 else f"carry{k - 1}"
        aliases = {segment.logits: "logits"}
        if segment.carry is not None:
            aliases[segment.carry] = f"carry{k}"
        constants = Constants()
        writer = write_segment(SegmentWriter(graph, k, constants, aliases | {source: read}, opset=opset))
        if segment.carry == source:
            writer.node("Identity", [read], f"carry{k}")
        compares = k > 0 and graph.task is Task.REGRESSION
        _confidence(writer, "logits", "logits_before" if compares else None, "confidence")
        outputs = [_float_info("logits", ["N", graph.classes]), _float_info("confidence", ["N"])]
        about: dict[str, object] = {"segment": k, "segments": len(graph.segments)}
        if segment.carry is not None:
            outputs.append(_codes_info(f"carry{k}", graph, segment.carry, "N"))
            about["threshold"] = float(thresholds[k])
        inputs = [_codes_info(read, graph, source, "N")]
        if graph.task is Task.REGRESSION:
            about["task"] = graph.task.value
        if compares:
            inputs.append(_float_info("logits_before", ["N", graph.classes]))
        initializers = [*constants.tensors.values(), *writer.initializers]
        model = _model(helper.make_graph(writer.nodes, f"segment{k}", inputs, outputs, initializers), opset)
        helper.set_model_props(model, {"coc_segment": json.dumps(about, separators=(",", ":"))})
        models.append(model)
    return models


def _confidence(writer: SegmentWriter, logits: str, before: str | None, output: str) -> str:
    """What `arithmetic.exit_confidence` says; before: the logits of a regression's exit before."""
    k = writer.index
    if writer.graph.task is Task.CLASSIFICATION:
        return writer.largest(writer.node("Softmax", [logits], f"m{k}"), output)
    if before is None:
        return writer.node("Sub", [writer.largest(logits, f"m{k}"), writer.constants.infinity()], output)
    distance = writer.node("Abs", [writer.node("Sub", [logits, before], f"s{k}d")], f"m{k}")
    return writer.node("Neg", [writer.largest(distance, f"d{k}")], output)


def _before(graph: Graph, writer: SegmentWriter) -> str | None:
    """The logits of the level before, which an inner level can read."""
    if writer.index == 0 or graph.task is Task.CLASSIFICATION:
        return None
    return writer.name(graph.segments[writer.index - 1].logits)


def _last(graph: Graph, writer: SegmentWriter) -> list[str]:
    """Ends the last level: names of its logits, exit and confidence."""
    k = writer.index
    logits = writer.name(graph.segments[k].logits)
    if k:
        confidence = _confidence(writer, logits, _before(graph, writer), f"c{k}")
        return [logits, _exit_number(writer.nodes, k, f"x{k}"), confidence]
    confidence = _confidence(writer, logits, None, "confidence")
    # N times 0. With a Shape, OpenVINO 2026.4 computes the whole model wrongly where N is not fixed.
    largest = writer.largest(logits, "xs", keep=True)
    return [logits, writer.node("ArgMax", [largest], "exit", axis=1, keepdims=0), confidence]


def _gate(graph: Graph, writer: SegmentWriter, deeper: onnx.GraphProto) -> list[str]:
    """Ends a level with an exit by If(leave, results of this exit, `deeper`); returns If's outputs."""
    k = writer.index
    logits = writer.name(graph.segments[k].logits)
    before = _before(graph, writer)
    confidence = _confidence(writer, logits, before, f"c{k}")
    compared = [confidence, f"t{k}"] if before is None else [f"t{k}", f"d{k}"]
    leave = writer.node("GreaterOrEqual", compared, f"g{k}")
    names = [f"l{k}t", f"x{k}t", f"c{k}t"]
    nodes = [helper.make_node("Identity", [logits], [names[0]])]
    _exit_number(nodes, k, names[1])
    nodes.append(helper.make_node("Identity", [confidence], [names[2]]))
    stay = helper.make_graph(nodes, f"exit{k}", [], _result_infos(graph, names, 1))
    outputs = [f"l{k}e", f"x{k}e", f"c{k}e"] if k else OUTPUTS
    writer.nodes.append(helper.make_node("If", [leave], outputs, then_branch=stay, else_branch=deeper))
    return outputs


def _exit_number(nodes: list[onnx.NodeProto], k: int, output: str) -> str:
    nodes.append(helper.make_node("Constant", [], [output], value_ints=[k]))
    return output


def _subgraph(graph: Graph, name: str, writer: SegmentWriter, results: list[str]) -> onnx.GraphProto:
    outputs = _result_infos(graph, results, 1)
    return helper.make_graph(writer.nodes, name, [], outputs, writer.initializers)


def _result_infos(graph: Graph, names: list[str], batch: int | str) -> list[onnx.ValueInfoProto]:
    taken = helper.make_tensor_value_info(names[1], TensorProto.INT64, [batch])
    return [_float_info(names[0], [batch, graph.classes]), taken, _float_info(names[2], [batch])]


def _float_info(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _codes_info(name: str, graph: Graph, tensor: str, batch: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.UINT8, [batch, *graph.tensors[tensor].shape])


def _check_opset(opset: int) -> None:
    known = onnx.defs.onnx_opset_version()
    if opset not in onnxfile.IR_VERSIONS:
        low, high = min(onnxfile.IR_VERSIONS), max(onnxfile.IR_VERSIONS)
        raise CocError(f"opset {opset} cannot be written: choose one of {low} to {high}")
    if opset > known:
        raise CocError(f"opset {opset} is newer than the installed onnx knows ({known}): upgrade onnx")


def _model(graph: onnx.GraphProto, opset: int) -> onnx.ModelProto:
    """A model with coc-deploy's header, checked by ONNX's checker."""
    model = helper.make_model(
        graph,
        producer_name=onnxfile.PRODUCER,
        ir_version=onnxfile.IR_VERSIONS[opset],
        opset_imports=[helper.make_opsetid("", opset)],
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _seal(model: onnx.ModelProto, structure: bytes) -> None:
    """Adds manifest and checksum, then reads the result back: what is written is readable."""
    checksum = onnxfile.checksum(model.graph.SerializeToString(deterministic=True), structure)
    helper.set_model_props(
        model, {onnxfile.MANIFEST_KEY: structure.decode(), onnxfile.CHECKSUM_KEY: checksum}
    )
    onnxfile.parse(model.SerializeToString(deterministic=True), "the exported model")
