"""Throughput of the programs of docs/embed.md, and eight threads on one session for a minute per back end.

    python benchmarks/scripts/embedding.py [--model runs/demo/model.pt] [--seconds 60] [--each 5] \
        [--json out.json]

The model is exported into a temporary folder together with the test split of its data as PNG and PNM files.
The programs run as a user starts them, on this machine; the service's clients run on it too. Needs a C
compiler, cmake, make, FastAPI and uvicorn.
"""

import argparse
import importlib.util
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from coc_runtime import CocError, Session, cocwrite, datasets, files
from coc_runtime.environment import environment
from shared_session import share

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
CLASSIFY = ROOT / "build/cmake/classify"
BATCH_SIZES = (1, 64)
CLIENTS = (1, 4, 16)
THREADS = 8
PACKAGES = ("fastapi", "uvicorn", "pillow")
SPARE_SECONDS = 60
"""for a program to start"""


@dataclass(frozen=True)
class Folder:
    """What the programs work on."""

    path: Path
    images: np.ndarray
    """uint8 [N, C, H, W], the test split"""

    @property
    def coc(self) -> Path:
        return self.path / "model.coc"

    @property
    def onnx(self) -> Path:
        return self.path / "model.onnx"

    @property
    def png(self) -> Path:
        return self.path / "png"

    @property
    def pnm(self) -> list[Path]:
        return sorted((self.path / "pnm").iterdir())


def fill(path: Path, model: Path, data: str) -> Folder:
    """Export a model.pt and write the test split of its data as files."""
    from coc_deploy import checkpoint
    from coc_export.lowering import lower
    from coc_export.onnx.writer import write_onnx

    graph = lower(checkpoint.load(model), model)
    folder = Folder(path, datasets.load(data, "test").images)
    files.write_bytes(folder.coc, cocwrite.dump(graph))
    files.write_bytes(folder.onnx, write_onnx(graph).SerializeToString(deterministic=True))
    write_images(folder.images, path)
    return folder


def write_images(images: np.ndarray, folder: Path) -> None:
    """png/NNNNN.png and pnm/NNNNN.pgm (or .ppm) of uint8 [N, C, H, W]."""
    suffix = "pgm" if images.shape[1] == 1 else "ppm"
    for name in ("png", "pnm"):
        (folder / name).mkdir()
    for index, image in enumerate(images):
        picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
        picture.save(folder / f"png/{index:05}.png")
        picture.save(folder / f"pnm/{index:05}.{suffix}")


def per_second(run: Callable[[np.ndarray], Any], images: np.ndarray, batch: int, seconds: float) -> float:
    """Images per second through a function that takes batches of them, after one round to warm up."""
    batches = [images[at : at + batch] for at in range(0, len(images) - batch + 1, batch)]
    for part in batches:
        run(part)
    done, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        run(batches[done % len(batches)])
        done += 1
    return done * batch / spent


def python_app(folder: Folder, seconds: float) -> list[dict[str, Any]]:
    """`Session.run` as examples/python calls it, and in batches."""
    rows = []
    for path in (folder.coc, folder.onnx):
        session = Session(path)
        for batch in BATCH_SIZES:
            rate = per_second(session.run, folder.images, batch, seconds)
            rows.append({"backend": session.info.backend, "batch": batch, "images_per_s": rate})
    return rows


def plain_onnxruntime(folder: Folder, seconds: float) -> dict[str, Any]:
    """The call of examples/onnxruntime, one image at a time."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder.onnx, options, providers=["CPUExecutionProvider"])
    outputs = ["logits", "exit", "confidence"]
    rate = per_second(lambda image: session.run(outputs, {"image": image}), folder.images, 1, seconds)
    return {"batch": 1, "images_per_s": rate}


def program(*words: object) -> str:
    """Run a program to its end; what it printed. CocError if it fails."""
    command = [str(word) for word in words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise CocError(f"{' '.join(command)[:200]} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def repeated(measure: Callable[[], float], seconds: float) -> float:
    """The median of a measurement that is repeated for `seconds`, at least three times."""
    values, until = [], time.perf_counter() + seconds
    while len(values) < 3 or time.perf_counter() < until:
        values.append(measure())
    return statistics.median(values)


def c_app(folder: Folder, seconds: float) -> dict[str, Any]:
    """examples/c on all images: the mean of coc_run, and the program from start to end."""
    program("make", "native")
    microseconds = []

    def whole() -> float:
        start = time.perf_counter()
        last = program(CLASSIFY, folder.coc, *folder.pnm).splitlines()[-1]
        spent = time.perf_counter() - start
        microseconds.append(float(re.search(r"([\d.]+) us each", last)[1]))  # type: ignore[index]
        return len(folder.images) / spent

    rate = repeated(whole, seconds)
    return {"run_us": statistics.median(microseconds), "images_per_s": rate}


def batch_job(folder: Folder, seconds: float) -> list[dict[str, Any]]:
    """examples/batch over the folder of PNG files, by number of threads; its own figure."""
    rows = []
    for threads in sorted({1, os.cpu_count() or 1}):
        words = ("label_folder.py", folder.coc, folder.png, folder.path / "out.csv", "--threads", threads)

        def job(words: tuple[object, ...] = words) -> float:
            printed = program(sys.executable, EXAMPLES / "batch" / str(words[0]), *words[1:])
            return float(re.search(r"(\d+) images/s", printed)[1])  # type: ignore[index]

        rows.append({"threads": threads, "images_per_s": repeated(job, seconds)})
    return rows


@contextmanager
def serving(model: Path) -> Iterator[str]:
    """examples/service with a model on a free port; its URL."""
    words = [sys.executable, str(EXAMPLES / "service/app.py"), str(model), "--port", "0"]
    server = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        yield _url(server)
    finally:
        server.terminate()
        server.wait(SPARE_SECONDS)
        if server.stderr:
            server.stderr.close()


def _url(server: subprocess.Popen[str]) -> str:
    """What uvicorn says when it listens; CocError if it ends before."""
    said = []
    for line in server.stderr or ():
        said.append(line)
        if found := re.search(r"running on (http://\S+)", line):
            return found[1]
    raise CocError(f"the service did not start: {' '.join(said)[-500:].strip()}")


def _client() -> ModuleType:
    """examples/service/load.py."""
    spec = importlib.util.spec_from_file_location("load", EXAMPLES / "service/load.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def service(folder: Folder, seconds: float) -> list[dict[str, Any]]:
    """Requests per second of examples/service, by concurrent clients."""
    load = _client()
    bodies = [path.read_bytes() for path in sorted(folder.png.iterdir())]
    rows = []
    with serving(folder.coc) as url:
        for clients in CLIENTS:
            load.run(f"{url}/classify", bodies, clients, min(1.0, seconds))
            seen = load.run(f"{url}/classify", bodies, clients, seconds)
            rows.append(
                {
                    "clients": clients,
                    "requests_per_s": seen.requests_per_s,
                    "p50_ms": seen.percentile(50),
                    "p99_ms": seen.percentile(99),
                    "failed": seen.failed.total(),
                }
            )
    return rows


def shared_sessions(folder: Folder, seconds: float) -> list[dict[str, Any]]:
    """Eight threads on one session of each back end."""
    rows = []
    for path, backend in ((folder.coc, "native"), (folder.onnx, "onnxruntime"), (folder.coc, "reference")):
        done = share(Session(path, backend=backend), folder.images, THREADS, seconds)
        rows.append({"backend": backend, "threads": THREADS, "seconds": seconds} | asdict(done))
    return rows


def measure(model: Path, data: str, seconds: float, each: float) -> dict[str, Any]:
    """Everything, on one model."""
    with tempfile.TemporaryDirectory() as name:
        folder = fill(Path(name), model, data)
        session = Session(folder.coc)
        taken = session.run(folder.images).exit
        return {
            "environment": environment() | {package: metadata.version(package) for package in PACKAGES},
            "data": data,
            "images": len(folder.images),
            "input_shape": session.info.input_shape,
            "exit_share": [float((taken == index).mean()) for index in range(session.info.exits)],
            "seconds_each": each,
            "python": python_app(folder, each),
            "c": c_app(folder, each),
            "onnxruntime": plain_onnxruntime(folder, each),
            "batch": batch_job(folder, each),
            "service": service(folder, each),
            "shared": shared_sessions(folder, seconds),
        }


def table(result: dict[str, Any]) -> str:
    """The programs' throughput as Markdown."""
    lines = ["| program | how | images/s |", "|---|---|---|"]
    for row in result["python"]:
        how = f"`Session.run`, {row['backend']}, {_batch(row['batch'])}"
        lines.append(f"| [Python](#python) | {how} | {row['images_per_s']:,.0f} |")
    c = result["c"]
    lines.append(f"| [C](#c-and-c) | `coc_run`, one image a call | {1e6 / c['run_us']:,.0f} |")
    lines.append(f"| | the program, start and reading of files included | {c['images_per_s']:,.0f} |")
    rate = result["onnxruntime"]["images_per_s"]
    lines.append(f"| [ONNX Runtime alone](#onnx-runtime-alone) | `run`, one image a call | {rate:,.0f} |")
    for row in result["batch"]:
        how = f"PNG files to a CSV, {_count(row['threads'], 'thread')}"
        lines.append(f"| [Folder of images](#a-folder-of-images) | {how} | {row['images_per_s']:,.0f} |")
    lines += [
        "",
        "| clients of the [HTTP service](#an-http-service) | requests/s | p50 | p99 | failed |",
        "|---|---|---|---|---|",
    ]
    for row in result["service"]:
        lines.append(
            f"| {row['clients']} | {row['requests_per_s']:,.0f} | {row['p50_ms']:.2f} ms "
            f"| {row['p99_ms']:.2f} ms | {row['failed']} |"
        )
    about = result["environment"]
    shape = "x".join(map(str, result["input_shape"]))
    shares = ", ".join(f"{share:.0%}" for share in result["exit_share"])
    lines += [
        "",
        f"Images of {shape} bytes ({result['data']}), which leave at exits 0, 1, ... in shares of {shares}.",
        f"Measured on {about['cpu']} with {_count(about['cores'], 'core')}, Python {about['python']}, "
        f"ONNX Runtime {about['onnxruntime']},",
        f"FastAPI {about['fastapi']}, uvicorn {about['uvicorn']}; {about['date'][:10]}. The clients of the "
        "service ran on the same machine.",
    ]
    return "\n".join(lines)


def shared_table(result: dict[str, Any]) -> str:
    """Calls of eight threads, and how many differed, as Markdown."""
    lines = [
        "| back end | threads | seconds | calls | images | results that differ |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["shared"]:
        lines.append(
            f"| {row['backend']} | {row['threads']} | {row['seconds']:g} | {row['calls']:,} "
            f"| {row['images']:,} | {row['mismatches']} |"
        )
    return "\n".join(lines)


def _batch(size: int) -> str:
    return "one image a call" if size == 1 else f"{size} images a call"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "runs/demo/model.pt", help="made by make demo")
    parser.add_argument("--data", default="digits", help="the data set whose test split is used")
    parser.add_argument("--seconds", type=float, default=60, help="of eight threads on each back end")
    parser.add_argument("--each", type=float, default=5, help="seconds of every other measurement")
    parser.add_argument("--json", type=Path, help="where the figures go")
    options = parser.parse_args()
    try:
        result = measure(options.model, options.data, options.seconds, options.each)
        if options.json:
            files.write_json(options.json, result)
    except CocError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{table(result)}\n\n{shared_table(result)}")
    differing = sum(row["mismatches"] for row in result["shared"])
    return int(differing + sum(row["failed"] for row in result["service"]) > 0)


if __name__ == "__main__":
    sys.exit(main())
