"""`python -m coc_bench.convert JOB.json`: one conversion of a peer, in a process that may crash."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from coc_runtime.errors import CocError

from .engines import ENGINES
from .engines.base import Converted, Job
from .subjects import Precision, first_line

TIMEOUT_S = 900
QUIET = {"NNCF_CI": "1"}
"""Keeps NNCF from sending telemetry."""


def module_environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """The environment in which a child process finds what this one imports."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | (extra or {})


def convert(engine: str, job: Job) -> Converted:
    """What the engine makes of a float model; CocError with the reason where it makes nothing."""
    job.folder.mkdir(parents=True)
    images, request, result = (job.folder.with_suffix(end) for end in (".npy", ".job", ".json"))
    np.save(images, job.calibration)
    wanted = {
        "source": str(job.source.resolve()),
        "folder": str(job.folder),
        "precision": job.precision.value,
    }
    request.write_text(json.dumps(wanted | {"engine": engine, "images": str(images), "result": str(result)}))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "coc_bench.convert", str(request)],
            capture_output=True,
            env=module_environment(QUIET),
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CocError(f"its converter did not end within {TIMEOUT_S} s") from None
    if not result.is_file():
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        raise CocError(f"its converter crashed ({how})")
    answer = json.loads(result.read_text())
    if "reason" in answer:
        raise CocError(answer["reason"])
    return Converted(Path(answer["path"]), answer["settings"])


def main(arguments: list[str]) -> int:
    request = json.loads(Path(arguments[0]).read_text())
    images = np.load(request["images"])
    job = Job(Path(request["source"]), Precision(request["precision"]), Path(request["folder"]), images)
    try:
        made = ENGINES[request["engine"]].convert(job)
        answer = {"path": str(made.path), "settings": made.settings}
    except CocError as error:
        answer = {"reason": str(error)}
    except Exception as error:  # Converters raise whatever they meet.
        answer = {"reason": f"its converter failed: {first_line(error)}"}
    Path(request["result"]).write_text(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
