"""Artifacts and image files laid out in a folder as a user has them, and programs started on them."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from coc_export.onnx.writer import write_onnx
from coc_runtime import Result, Session, cocwrite
from coc_runtime.graph import Graph

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Site:
    """Files model.coc, model.onnx, png/NN.png and pnm/NN.pgm (.ppm) in a folder."""

    folder: Path
    graph: Graph
    images: np.ndarray
    """uint8 [N, C, H, W], what the image files hold"""

    @property
    def coc(self) -> Path:
        return self.folder / "model.coc"

    @property
    def onnx(self) -> Path:
        return self.folder / "model.onnx"

    @property
    def png(self) -> list[Path]:
        return sorted((self.folder / "png").iterdir())

    @property
    def pnm(self) -> list[Path]:
        return sorted((self.folder / "pnm").iterdir())

    def expected(self) -> Result:
        """What the NumPy reference gives for the images."""
        return Session.from_graph(self.graph).run(self.images)

    def lines(self) -> list[str]:
        """The reference's answers in the words of the programs."""
        found = self.expected()
        return [
            f"label {found.label[n]}, exit {found.exit[n]}, confidence {found.confidence[n]:.4f}"
            for n in range(len(self.images))
        ]


def lay_out(folder: Path, graph: Graph, images: np.ndarray) -> Site:
    (folder / "model.coc").write_bytes(cocwrite.dump(graph))
    (folder / "model.onnx").write_bytes(write_onnx(graph).SerializeToString())
    for name in ("png", "pnm"):
        (folder / name).mkdir()
    suffix = "pgm" if images.shape[1] == 1 else "ppm"
    for index, image in enumerate(images):
        picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
        picture.save(folder / f"png/{index:02}.png")
        picture.save(folder / f"pnm/{index:02}.{suffix}")
    return Site(folder, graph, images)


def run(*words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A program as a user starts it; one that ends in .py with this interpreter."""
    command = [str(word) for word in words]
    if command[0].endswith(".py"):
        command = [sys.executable, *command]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
