"""Where time goes, layer by layer, beside where the BitOps are: which layers keep latency from following.

    rows = profile("model.coc", images)
    print(table(rows))

Times are of one image at a time with nothing left early, so that every layer of every segment counts once; a
layer of segment k is run by the images that no exit before k lets go.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import CocError
from .graph import Graph
from .session import Session

REST = "exits and the rest"
"""Name of the row of what belongs to no operator: exits, changes of layout, calls."""

NAMED_LAST = 3
"""Layers that the table's last line names at most."""


@dataclass(frozen=True)
class LayerTime:
    """What an operator costs and takes. Convolutions and linear layers have MACs; of others they are 0."""

    name: str
    op: str
    """kind of operator, e.g. "Conv"; "" of the row REST"""
    segment: int | None
    """the first exit that needs it; None of the row REST"""
    macs: int
    weight_bits: int
    activation_bits: int
    bitops: int
    time_us: float
    """of an image: mean over images and rounds but for the lowest and the highest tenth"""
    share_of_time: float
    """of the sum over all rows; 0 to 1, like share_of_bitops"""
    share_of_bitops: float

    @property
    def surplus(self) -> float:
        """How much the share of time exceeds that of BitOps."""
        return self.share_of_time - self.share_of_bitops


def profile(session: Session | str | Path, images: np.ndarray, rounds: int = 20) -> list[LayerTime]:
    """A row per operator of the graph, in the order of running, and last the row REST: together a whole run.

    session: on back end native or onnxruntime, or the path of an artifact for which one is opened.
    images: raw pixels, uint8 [N, C, H, W]; each runs alone, `rounds` times. Raises CocError for what
    `Session.run` refuses, no image, no round, and a back end that has no profile.
    """
    if not isinstance(session, Session):
        session = Session(session)
    return rows_of(session.graph, session.operator_times(images, rounds))


def rows_of(graph: Graph, times: np.ndarray) -> list[LayerTime]:
    """Rows for microseconds of each operator and of everything else, [operators + 1]."""
    whole, bitops = float(times.sum()) or 1.0, graph.exit_bitops()[-1] or 1
    rows: list[LayerTime] = []
    for k, segment in enumerate(graph.segments):
        for node in segment.nodes:
            inputs = [graph.tensors[name] for name in node.inputs]
            cost, taken = node.cost(*inputs), float(times[len(rows)])
            rows.append(
                LayerTime(
                    name=node.name,
                    op=type(node).__name__,
                    segment=k,
                    macs=cost.macs if cost else 0,
                    weight_bits=cost.weight_bits if cost else 0,
                    activation_bits=inputs[0].bits,
                    bitops=cost.bitops if cost else 0,
                    time_us=taken,
                    share_of_time=taken / whole,
                    share_of_bitops=cost.bitops / bitops if cost else 0.0,
                )
            )
    rest = float(times[-1])
    return [*rows, LayerTime(REST, "", None, 0, 0, 0, 0, rest, rest / whole, 0.0)]


def table(rows: Sequence[LayerTime]) -> str:
    """The rows for people, in ASCII; the last line is `conclusion`."""
    if not rows:
        raise CocError("a profile without rows cannot be shown: profile a model first")
    whole, bitops, macs = (sum(getattr(row, key) for row in rows) for key in ("time_us", "bitops", "macs"))
    lines: list[tuple[str, ...]] = [
        ("layer", "operator", "exit", "bits", "MACs", "BitOps", "us", "time", "BitOps")
    ]
    lines += [_cells(row) for row in rows]
    lines.append(("sum", "", "", "", f"{macs:,}", f"{bitops:,}", f"{whole:.2f}", "", ""))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join([*(_line(cells, widths) for cells in lines), conclusion(rows)])


def _cells(row: LayerTime) -> tuple[str, ...]:
    costs = ("", "", "")
    if row.macs:
        costs = (f"{row.weight_bits}x{row.activation_bits}", f"{row.macs:,}", f"{row.bitops:,}")
    segment = "" if row.segment is None else str(row.segment)
    shares = (f"{row.share_of_time:.1%}", f"{row.share_of_bitops:.1%}")
    return (row.name, row.op, segment, *costs, f"{row.time_us:.2f}", *shares)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Names to the left, numbers to the right."""
    padded = [
        cell.ljust(width) if i < 2 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def conclusion(rows: Sequence[LayerTime]) -> str:
    """One line: the rows whose share of the time exceeds their share of the BitOps most."""
    above = sorted((row for row in rows if row.surplus >= 0.005), key=lambda row: -row.surplus)[:NAMED_LAST]
    if not above:
        return "time follows BitOps: no layer takes a larger share of the time than of the BitOps"
    named = ", ".join(
        f"{row.name} ({row.share_of_time:.1%} of the time, {row.share_of_bitops:.1%} of the BitOps)"
        for row in above
    )
    return f"more time than BitOps: {named}"
