"""`python -m coc_bench.probe SUBJECT IMAGES`: loads one subject, runs it, prints its Footprint as JSON."""

import importlib
import json
import re
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from coc_runtime.errors import CocError

from .engines import ENGINES
from .engines.ort import import_onnxruntime
from .footprint import Footprint
from .opening import open_runner
from .subjects import Subject

STATUS = Path("/proc/self/status")


def peak_rss_mb() -> float:
    """This process's highest resident memory so far, in MB of 10**6 bytes.

    Linux keeps the peak of a parent in getrusage across exec, so VmHWM is preferred.
    """
    if STATUS.exists() and (match := re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text())):
        return int(match[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _import_library(backend: str) -> None:
    if backend == "onnxruntime":
        import_onnxruntime()
    elif backend == "native":
        importlib.import_module("coc_runtime._native")
    elif backend in ENGINES:
        importlib.import_module(ENGINES[backend].module)


def main(arguments: list[str]) -> int:
    subject = Subject.from_json(json.loads(arguments[0]))
    images = np.load(arguments[1])
    try:
        _import_library(subject.backend)
        imports = peak_rss_mb()
        start = time.perf_counter_ns()
        runner = open_runner(subject)
        loaded = time.perf_counter_ns()
        for index in range(len(images)):
            runner.run(images[index : index + 1])
    except CocError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(asdict(Footprint((loaded - start) / 1e6, peak_rss_mb(), imports))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
