"""The C core's confidence is the NumPy reference's, bit for bit, for any number of classes."""

import struct

import numpy as np
import pytest

from coc_runtime import arithmetic
from confidences import CLASSES, chosen, logits_of
from native_driver import Driver


@pytest.mark.parametrize("classes", CLASSES)
def test_the_core_computes_the_references_confidence(driver: Driver, classes: int) -> None:
    logits = logits_of(classes)
    found = np.frombuffer(driver.ask("c", struct.pack("<I", classes) + logits.tobytes()), np.float32)
    np.testing.assert_array_equal(found, arithmetic.confidence(logits))
    assert (found[:, None] >= chosen(classes)).any(axis=0).sum() > 10
