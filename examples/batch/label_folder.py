"""A CSV with the labels of a folder of images: python label_folder.py MODEL FOLDER OUT.csv

Each thread reads a batch of files and runs it; all threads share one session. Images of another size are
scaled to the model's. Files that are no images are named on stderr and left out; the exit code is then 1.
"""

import argparse
import csv
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from coc_runtime import CocError, Session, Task, imagefiles


def pixels(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """uint8 [C, H, W] of one file; None, and a line on stderr, if it is no image."""
    try:
        return imagefiles.read(path, shape)
    except CocError as error:
        print(f"{path}: left out: {error}", file=sys.stderr)
        return None


def label(session: Session, paths: list[Path]) -> list[tuple]:
    """(file, label, exit, confidence) of one batch; a regression has its first number for a label."""
    read = {path: pixels(path, session.info.input_shape) for path in paths}
    images = {path: image for path, image in read.items() if image is not None}
    if not images:
        return []
    result = session.run(np.stack(list(images.values())))
    answer = result.logits[:, 0] if session.info.task is Task.REGRESSION else result.label
    return list(zip(images, answer, result.exit, result.confidence, strict=True))


def label_all(session: Session, paths: list[Path], threads: int, batch: int) -> Iterator[tuple]:
    """Rows in the order of the paths, as they become ready."""
    batches = [paths[at : at + batch] for at in range(0, len(paths), batch)]
    with ThreadPoolExecutor(threads) as pool:
        for rows in pool.map(lambda part: label(session, part), batches):
            yield from rows


def write(folder: Path, out: Path, rows: Iterator[tuple]) -> int:
    """How many rows were written; OUT appears when it is complete, never half of it."""
    unfinished, count = out.with_name(f".{out.name}.{os.getpid()}.part"), 0
    with open(unfinished, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "label", "exit", "confidence"))
        for path, *row in rows:
            count += 1
            table.writerow((path.relative_to(folder).as_posix(), *row))
    unfinished.replace(out)
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help=".coc or .onnx")
    parser.add_argument("folder", type=Path, help="searched with all folders in it")
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: one per core")
    parser.add_argument("--batch", type=int, default=64, help="images that a thread runs at once")
    options = parser.parse_args()
    if options.threads < 1 or options.batch < 1:
        parser.error("--threads and --batch must be at least 1")
    paths = sorted(path for path in options.folder.rglob("*") if imagefiles.is_image(path.name))
    if not paths:
        print(f"{options.folder}: holds no {' '.join(sorted(imagefiles.SUFFIXES))}", file=sys.stderr)
        return 2
    try:
        session = Session(options.model)
        start = time.perf_counter()
        count = write(options.folder, options.out, label_all(session, paths, options.threads, options.batch))
    except (CocError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    seconds = time.perf_counter() - start
    print(f"{options.out}: {count} images in {seconds:.2f} s, {count / seconds:.0f} images/s")
    return int(count < len(paths))


if __name__ == "__main__":
    sys.exit(main())
