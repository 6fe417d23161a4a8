"""Labels of images: python classify.py MODEL IMAGE [IMAGE ...]"""

import argparse
import sys

import numpy as np
from PIL import Image

from coc_runtime import CocError, Session, Task


def pixels(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """The raw bytes of an image file for a model of input shape (C, H, W): uint8 [1, C, H, W]."""
    channels, height, width = shape
    with Image.open(path) as file:
        image = file.convert("L" if channels == 1 else "RGB")
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(1, height, width, channels).transpose(0, 3, 1, 2)


def describe(session: Session, path: str) -> str:
    result = session.run(pixels(path, session.info.input_shape))
    if session.info.task is Task.REGRESSION:  # the logits are the numbers asked for, there is no label
        answer = " ".join(f"{number:.4f}" for number in result.logits[0])
    else:
        answer = f"label {result.label[0]}"
    return f"{path}: {answer}, exit {result.exit[0]}, confidence {result.confidence[0]:.4f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help=".coc or .onnx")
    parser.add_argument("images", nargs="+")
    options = parser.parse_args()
    try:
        session = Session(options.model)  # once: it reads the file and lays out the weights
        for path in options.images:
            print(describe(session, path))
    except (CocError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
