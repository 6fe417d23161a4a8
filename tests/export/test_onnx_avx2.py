"""ONNX Runtime on a CPU with AVX2 but without VNNI, emulated, where its int8 kernels saturate in 16 bits."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
EMULATOR = shutil.which("qemu-x86_64")


@pytest.mark.skipif(EMULATOR is None, reason="needs qemu-x86_64 (Debian: qemu-user)")
def test_without_vnni_int8_weights_saturate_and_the_exported_files_do_not() -> None:
    assert EMULATOR is not None
    probe = [EMULATOR, "-cpu", "Haswell", sys.executable, str(TESTS / "avx2_probe.py")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(TESTS), *sys.path]))}
    done = subprocess.run(probe, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["int8"] < result["exact"], "the emulated CPU does not show the trap"
    assert result["uint8"] == result["exact"]
    assert result["differing_logits"] == {"1": 0, "2": 0, "4": 0, "8": 0}
