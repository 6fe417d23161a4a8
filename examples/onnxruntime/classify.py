"""Labels of images with nothing of ours installed: python classify.py MODEL.onnx IMAGE [IMAGE ...]"""

import sys

import numpy as np
import onnxruntime
from PIL import Image


def main(model: str, paths: list[str]) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # small models lose more by sharing a layer than they win
    options.log_severity_level = 3  # else it warns that thresholds, which a caller may give, are no constants
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    _, channels, height, width = session.get_inputs()[0].shape
    for path in paths:
        image = Image.open(path).convert("L" if channels == 1 else "RGB")
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        raw = np.asarray(image).reshape(1, height, width, channels).transpose(0, 3, 1, 2)  # uint8, as decoded
        logits, taken, confidence = session.run(["logits", "exit", "confidence"], {"image": raw})
        print(f"{path}: label {logits[0].argmax()}, exit {taken[0]}, confidence {confidence[0]:.4f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
