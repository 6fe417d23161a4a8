"""The int8 peer that coc-bench makes with ONNX Runtime's quantizer."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bench_files import float_model, image_folder
from coc_bench.data import Images
from coc_bench.engines import ort_int8
from coc_bench.opening import open_runner
from coc_bench.subjects import Kind, Subject
from coc_runtime import datasets


def quantized(folder: Path) -> tuple[Subject, Subject]:
    """A float model and its int8 peer."""
    path = float_model(folder / "float.onnx")
    source = Subject("float.onnx", path, Kind.ORIGINAL, "onnxruntime", 1)
    calibration = Images.of(datasets.load(image_folder(folder / "images"), "train"))
    return source, ort_int8.quantize_int8(source, folder / "int8", calibration)


def kernel_codes(subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """Integer weights and their scales of the convolution."""
    graph = onnx.load(str(subject.path)).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    (codes,) = [value for value in values.values() if value.shape == (16, 3, 3, 3)]
    (scales,) = [value for name, value in values.items() if name == "kernel_scale"]
    return codes, scales


def test_weights_are_int8_with_a_scale_per_channel(tmp_path: Path) -> None:
    _, int8 = quantized(tmp_path)
    codes, scales = kernel_codes(int8)
    assert codes.dtype == np.int8
    assert scales.shape == (16,) and len(np.unique(scales)) == 16


def test_it_computes_what_the_float_model_does_but_for_rounding(tmp_path: Path) -> None:
    source, int8 = quantized(tmp_path)
    images = datasets.load(f"imagefolder:{tmp_path / 'images'}", "test").images
    agreement = open_runner(source).run(images)[0] == open_runner(int8).run(images)[0]
    assert agreement.mean() > 0.9


@pytest.mark.parametrize(
    ("flags", "reduced"), [(["avx2"], True), (["avx2", "avx_vnni"], False), (["asimd"], False)]
)
def test_weights_keep_seven_bits_only_where_16_bit_sums_would_saturate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], reduced: bool
) -> None:
    monkeypatch.setattr(ort_int8, "cpu_flags", lambda: flags)
    _, int8 = quantized(tmp_path)
    assert int8.settings["reduce_range"] is reduced
    largest = np.abs(kernel_codes(int8)[0].astype(int)).max()
    assert bool(largest <= 64) == reduced


def test_the_quantizer_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quantized(tmp_path)
    assert capsys.readouterr() == ("", "")
