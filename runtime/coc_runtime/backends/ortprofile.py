"""Where ONNX Runtime spends its time, by its own profile, attributed to the operators of the graph.

The profile is a JSON file of events, one per node of the optimized model and run. A fused node keeps the
name of the operator that it was made of ("stem", or "stem_token_2" where the layout changed) or of that
operator's output. What belongs to no operator (changes of layout, the exits' Softmax) counts as everything
else; an If holds nodes with events of their own and is left out.

Two things keep these figures from being latencies. Times are cut to whole microseconds, so half of one is
added to each. And recording an event takes time, some of it inside the event; therefore a model without
profile runs in turn with the profiled one, and where the nodes take longer together than that model, what
is too much is taken off all events alike.
"""

import json
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..graph import Graph
from . import middle

Feeds = Mapping[str, np.ndarray]

CHUNK = 256
"""Runs of one profile: its file takes some 50 KB a run, and ONNX Runtime drops events beyond a million."""

DERIVED = re.compile(r"(?:_token_\d+|_nchwc|_dq)+$")
"""What ONNX Runtime appends to the name of a node that it makes of another."""

CUT_OFF = 0.5
"""Microseconds that an event loses on average."""


def operator_times(graph: Graph, runs: Sequence[Feeds], create: Callable[[str | None], Any]) -> np.ndarray:
    """Microseconds of each operator and of everything else, float64 [operators + 1], over `runs` of the one
    file. create: makes a session without profile (None) or with one whose file begins with the given path.
    Raises OSError if the profile cannot be kept."""
    plain, names = create(None), operator_names(graph)
    operators = sum(len(segment.nodes) for segment in graph.segments)
    _run(plain, runs[0])
    found, wholes = [], []
    for start in range(0, len(runs), CHUNK):
        with tempfile.TemporaryDirectory(prefix="coc-profile-") as folder:
            profiled = create(str(Path(folder) / "profile"))
            _run(profiled, runs[0])  # allocates: not counted
            for feeds in runs[start : start + CHUNK]:
                wholes.append(_run(plain, feeds))
                _run(profiled, feeds)
            events = json.loads(Path(profiled.end_profiling()).read_text())
        found += sum_events(events, names, operators)[1:]
    times, counts = (np.array([run[part] for run in found], float) for part in (0, 1))
    return fit(middle(times), counts.mean(axis=0), float(middle(np.array(wholes))))


def operator_names(graph: Graph) -> dict[str, int]:
    """The operator that a node of the one file belongs to, by the node's name or by its output's.

    coc_export's writer names outputs of operator j `y{j}`, and the steps of an average pool `p{j}`,
    `p{j}f` and `p{j}s`.
    """
    nodes = [node for segment in graph.segments for node in segment.nodes]
    names = {f"{prefix}{j}{suffix}": j for j in range(len(nodes)) for prefix, suffix in _OUTPUTS}
    return names | {node.name: j for j, node in enumerate(nodes)}


_OUTPUTS = (("y", ""), ("p", ""), ("p", "f"), ("p", "s"))


def sum_events(
    events: Iterable[Mapping[str, Any]], names: Mapping[str, int], operators: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Microseconds and numbers of events of each run in a profile, per operator and, last, of no operator."""
    runs, times, counts = [], np.zeros(operators + 1), np.zeros(operators + 1)
    for event in events:
        if event["name"] == "model_run":
            runs.append((times, counts))
            times, counts = np.zeros(operators + 1), np.zeros(operators + 1)
        elif event["cat"] == "Node" and event["args"].get("op_name") != "If":
            name = event["name"].removesuffix("_kernel_time")
            at = names.get(name, names.get(DERIVED.sub("", name), operators))
            times[at] += event["dur"] + CUT_OFF
            counts[at] += 1
    return runs


def fit(times: np.ndarray, counts: np.ndarray, whole: float) -> np.ndarray:
    """Times whose sum is `whole`, that of a run without profile, in microseconds: what recording `counts`
    events took is taken off, and what no event accounts for is everything else."""
    excess = max(float(times.sum()) - whole, 0.0)
    times = np.maximum(times - counts * excess / max(float(counts.sum()), 1.0), 0.0)
    times[-1] = max(whole - float(times[:-1].sum()), 0.0)
    return times


def _run(session: Any, feeds: Feeds) -> float:
    """Microseconds of a run."""
    begin = time.perf_counter()
    session.run(None, feeds)
    return (time.perf_counter() - begin) * 1e6
