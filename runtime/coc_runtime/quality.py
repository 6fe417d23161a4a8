"""How good a model's outputs are: accuracy of classes, mean absolute error and R2 of real numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .arithmetic import Task


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Percent of rows of logits [N, classes] whose largest entry is the label."""
    return float((logits.argmax(axis=-1) == labels).mean() * 100)


def mean_absolute_error(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Mean of |y - t| over images and outputs, both [N, outputs], in units of the targets."""
    return float(np.abs(outputs.astype(np.float64) - targets).mean())


def r2(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Coefficient of determination, 1 - sum (y - t)^2 / sum (t - mean t)^2, mean over the outputs.

    0 for a target that never changes: there is nothing to explain.
    """
    wide = targets.astype(np.float64)
    residual = ((outputs.astype(np.float64) - wide) ** 2).sum(axis=0)
    total = ((wide - wide.mean(axis=0)) ** 2).sum(axis=0)
    return float(np.where(total > 0, 1 - residual / np.where(total > 0, total, 1), 0).mean())


def measure(outputs: np.ndarray, labels: np.ndarray, task: Task) -> dict[str, float | None]:
    """What reports hold: `accuracy` in percent; of a regression None there, and `mae` and `r2`."""
    if task is Task.CLASSIFICATION:
        return {"accuracy": accuracy(outputs, labels)}
    return {"accuracy": None, "mae": mean_absolute_error(outputs, labels), "r2": r2(outputs, labels)}


def text(record: Mapping[str, Any]) -> str:
    """What `measure` found, for people."""
    if record["accuracy"] is not None:
        return f"{record['accuracy']:.2f} %"
    return f"MAE {record['mae']:.4f}, R2 {record['r2']:.4f}"
