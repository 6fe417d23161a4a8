"""coc-compress --list and --check: what can be named, and what would run, without training."""

import json
from pathlib import Path

import pytest

from coc_deploy import run_report, train
from coc_deploy.cli import main
from coc_deploy.recipe import parse
from conftest import TinyRun
from tiny import write_recipe


def output(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_list_names_models_data_and_every_key_of_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    text = output(["--list"], capsys)
    for words in (
        "resnet20",
        "cifar10",
        "imagefolder:",
        "D  [d]",
        "P  [p]",
        "Q  [q]",
        "E  [e]",
        "-  [original]",
    ):
        assert words in text
    for section in parse({}).as_dict().values():
        if isinstance(section, dict):
            assert all(f"       {key} = " in text for key in section)
    assert 'bits = "1x8"' in text and "positions = [0.35, 0.65]" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [([], "which recipe?"), (["--out", "run"], "which recipe?"), (["recipe.toml"], "--out RUN is missing")],
)
def test_what_is_missing_is_told_in_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_check_tells_costs_and_epochs_of_every_stage_and_trains_nothing(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "fit", lambda job: pytest.fail("trained"))
    lines = output([str(tiny_run.recipe), "--check"], capsys).splitlines()
    history = json.loads((tiny_run.out / "history.json").read_text())
    assert len(lines) == len(history) + 2
    for line, record, section in zip(lines[1:], history, ("original", *"dpqe"), strict=False):
        cells = line.split()
        assert cells[:4] == [record["stage"], f"[{section}]", record["model"], record["bits"]]
        assert int(cells[5].replace(",", "")) == record["macs"]
        assert int(cells[9]) == len(record["epochs"])
        if record["stage"] != "exit":
            assert int(cells[6].replace(",", "")) == record["expected_bitops"]
            assert cells[7] == f"{record['bitops_cr']:.1f}x"
    assert lines[-1].startswith("21 epochs, 378 steps in all")


def test_check_refuses_what_cannot_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(write_recipe(tmp_path)), "--check", "--set", "p.round_to=256"]) == 2
    assert "removes no channels" in capsys.readouterr().err


def test_check_shows_repeated_stages_with_their_sections(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--set", "chain=QPQ", "--set", "q.bits=4x8", "--set", "q2.bits=1x8"]
    lines = output([str(write_recipe(tmp_path)), "--check", *options], capsys).splitlines()
    assert [line.split()[1:4:2] for line in lines[2:5]] == [["[q]", "4x8"], ["[p]", "4x8"], ["[q2]", "1x8"]]


def test_the_report_shows_every_stage_and_factors_that_multiply_to_the_ratios(tiny_run: TinyRun) -> None:
    history = tuple(json.loads((tiny_run.out / "history.json").read_text()))
    factors = run_report.factors(history)
    for ratio in run_report.RATIOS:
        product = 1.0
        for factor in factors:
            product *= factor[ratio]
        assert product == pytest.approx(history[-1][ratio])
    text = (tiny_run.out / "report.md").read_text()
    assert text.startswith("# DPQE on digits\n") and "(report.png)" in text
    for record, factor in zip(history, factors, strict=True):
        row = next(line for line in text.splitlines() if line.startswith(f"| {record['stage']} |"))
        assert f"{record['bitops_cr']:.1f}x | x{factor['bitops_cr']:.2f}" in row
        assert f"{record['cr']:.1f}x | x{factor['cr']:.2f}" in row
    assert (tiny_run.out / "report.png").read_bytes().startswith(b"\x89PNG")


def test_quantization_to_one_bit_alone_is_a_factor_of_128_by_the_uniform_count(tiny_run: TinyRun) -> None:
    history = tuple(json.loads((tiny_run.out / "history.json").read_text()))
    assert run_report.factors(history)[3]["bitops_cr_uniform"] == pytest.approx(128)
