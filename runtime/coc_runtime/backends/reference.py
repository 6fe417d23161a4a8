"""The graph's definition, executed: every operator's NumPy reference, segment by segment."""

from collections.abc import Mapping

import numpy as np

from ..graph import Graph
from ..ops import Op

MAX_CHUNK = 64
CHUNK_BYTES = 64 << 20
"""Working memory that a chunk of images may take; a single image may exceed it."""


class ReferenceBackend:
    """A `Backend` in NumPy; its integers are right by definition."""

    name = "reference"
    run_single = None

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._chunks = [_chunk(graph, index) for index in range(len(graph.segments))]

    def run_segment(self, index: int, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """See `Backend.run_segment`."""
        step = self._chunks[index]
        parts = [self._run_chunk(index, codes[at : at + step]) for at in range(0, len(codes), step)]
        logits = np.concatenate([part[0] for part in parts])
        if self._graph.segments[index].carry is None:
            return logits, None
        return logits, np.concatenate([part[1] for part in parts])

    def _run_chunk(self, index: int, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(logits, carry codes) of a few images; without a carry the second is empty."""
        graph, segment = self._graph, self._graph.segments[index]
        known = {graph.segment_input(index): codes}
        for node in segment.nodes:
            known[node.output] = run_node(graph, node, known)
        logits = graph.tensors[segment.logits].values(known[segment.logits])
        return logits, known[segment.carry] if segment.carry else np.empty(0, np.uint8)


def run_node(graph: Graph, node: Op, known: Mapping[str, np.ndarray]) -> np.ndarray:
    """Codes of a node's output, [N, *shape], from the codes of its inputs, which `known` holds."""
    operands = [part for name in node.inputs for part in (graph.tensors[name], known[name])]
    return node.reference(*operands, graph.tensors[node.output])


def _chunk(graph: Graph, index: int) -> int:
    """How many images of a segment fit CHUNK_BYTES, 1 to MAX_CHUNK."""
    nodes = graph.segments[index].nodes
    kept = sum(np.prod(graph.tensors[node.output].shape, dtype=int) for node in nodes)
    largest = max((_scratch(graph, node) for node in nodes), default=0)
    return int(np.clip(CHUNK_BYTES // max(kept + largest, 1), 1, MAX_CHUNK))


def _scratch(graph: Graph, node: Op) -> int:
    """Bytes per image of a node's float32 and int32 temporaries: im2col columns, input and output."""
    numbers = sum(int(np.prod(graph.tensors[name].shape)) for name in (*node.inputs, node.output))
    return 4 * (numbers + node.temporaries(graph.tensors[node.output]))
