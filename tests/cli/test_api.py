"""The functions do what the commands do, without printing."""

import json
import tomllib
from pathlib import Path

import pytest

import coc_bench
import coc_deploy
import coc_export
from coc_runtime import CocError, Session
from conftest import TinyRun


@pytest.fixture(scope="module")
def artifact(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> coc_export.Report:
    out = tmp_path_factory.mktemp("api") / "model.coc"
    return coc_export.export(tiny_run.model, out, data="digits", images=20)


def test_compress_takes_a_dictionary_and_finds_what_the_command_left(
    tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]
) -> None:
    values, shown = tomllib.loads(tiny_run.recipe.read_text()), []
    run = coc_deploy.compress(values, tiny_run.out, threads=1, show=shown.append)
    assert list(run.history) == shown == json.loads((tiny_run.out / "history.json").read_text())
    assert run.model == tiny_run.model and run.model.is_file()
    assert capsys.readouterr().out == ""
    assert coc_deploy.compress(tiny_run.recipe, str(tiny_run.out)).history == run.history


@pytest.mark.parametrize(
    ("recipe", "fragment"),
    [
        ({"chain": "DPX"}, "letters D, P, Q and E"),
        ({"q": {"bitz": 1}}, "unknown key q.bitz"),
        ("no.toml", "no.toml"),
    ],
)
def test_compress_tells_what_is_wrong(recipe: object, fragment: str, tmp_path: Path) -> None:
    with pytest.raises(CocError, match=fragment):
        coc_deploy.compress(recipe, tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_export_gives_the_report_that_it_writes(
    artifact: coc_export.Report, capsys: pytest.CaptureFixture[str]
) -> None:
    written = json.loads(Path(f"{artifact.path}.report.json").read_text())
    assert artifact.values == written and artifact.parity == written["parity"]
    assert artifact.parity["differing_logits"] == 0 and artifact.parity["images"] == 20
    assert artifact.size["file_bytes"] == artifact.path.stat().st_size
    assert artifact.cost == written["cost"]
    assert capsys.readouterr().out == ""


def test_export_sets_thresholds(artifact: coc_export.Report, tmp_path: Path) -> None:
    report = coc_export.export(
        artifact.path, tmp_path / "other.coc", thresholds=[0.625, 0.125], data="digits", images=5
    )
    assert Session(report.path).info.thresholds == (0.625, 0.125)


def test_files_may_have_names_that_begin_like_options(
    artifact: coc_export.Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-in.coc").write_bytes(artifact.path.read_bytes())
    report = coc_export.export("-in.coc", "-out.coc", data="digits", images=2)
    assert report.path == Path("-out.coc") and report.path.is_file()


def test_export_tells_what_is_wrong_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(CocError, match="no such file"):
        coc_export.export(tmp_path / "none.pt", tmp_path / "m.coc")
    assert not list(tmp_path.iterdir())


def test_measure_gives_the_report_of_coc_bench(
    artifact: coc_export.Report, capsys: pytest.CaptureFixture[str]
) -> None:
    report = coc_bench.measure(artifact.path, data="digits", limit=20, rounds=3, batch=4, cpus="any")
    (entry,) = report["runs"]
    assert entry["artifact"] == "model.coc" and entry["latency_us"]["mean"] > 0
    assert capsys.readouterr().out == ""
    with pytest.raises(CocError, match="no such file"):
        coc_bench.measure("none.coc", data="digits")
