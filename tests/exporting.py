"""What the tests of coc-export's command line share."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coc_export.cli import main


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that must fail with exit code 2."""
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("coc-export: error: ")
    return line


def image_folder(root: Path, size: int, classes: Sequence[str] = ("a", "b")) -> str:
    """Spec of a folder of grey images, three of each class in a part."""
    for part in ("train", "test"):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for index in range(3):
                pixels = np.full((size, size), 40 * index, np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{index}.png")
    return f"imagefolder:{root}"
