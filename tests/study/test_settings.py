"""STUDY.toml: what is asked for becomes cases; mistakes are told with key, value and what is allowed."""

import json
from pathlib import Path

import pytest

from coc_runtime.errors import CocError
from coc_study import KINDS, cli, settings
from coc_study.bootstrap import FEWEST
from coc_study.cases import cases, choose, sections
from coc_study.settings import Study

RECIPES = Path(__file__).parents[2] / "recipes"
GRID = """\
[study]
[study.grid]
d.narrow = [0.5, 0.75]
p.ratio = [0.1, 0.2, 0.3]
q.bits = ["1x8", "4x8"]
e.positions = [[0.4], [0.4, 0.7]]
"""


def study_of(folder: Path, text: str) -> Study:
    path = folder / "study.toml"
    path.write_text(text)
    return settings.load(path)


def test_both_orders_of_a_pair_run_with_the_same_settings_and_seeds(tmp_path: Path) -> None:
    study = study_of(tmp_path, GRID.replace("[study]", '[study]\nseeds = [3, 5]\npairs.of = ["PQ"]'))
    found = cases(study, ["pairs"])
    assert len(found) == 2 * 2 * 3 * 2, "orders, seeds, ratios, bits"
    by_chain = {
        chain: [(case.setting, case.recipe.seed) for case in found if case.recipe.chain == chain]
        for chain in ("PQ", "QP")
    }
    assert by_chain["PQ"] == by_chain["QP"] and len(set(by_chain["PQ"])) == 12
    for case in found:
        setting = json.loads(case.setting)
        assert (case.kind, case.group) == ("pairs", "PQ")
        assert (case.recipe.p.ratio, case.recipe.q.bits) == (setting["p.ratio"], setting["q.bits"])


def test_the_paper_s_groups_are_the_default(tmp_path: Path) -> None:
    found = cases(study_of(tmp_path, "[study]\n"), KINDS)
    groups = {kind: sorted({case.group for case in found if case.kind == kind}) for kind in KINDS}
    assert groups == {
        "pairs": sorted(["DP", "DQ", "DE", "PQ", "PE", "QE"]),
        "insert": sorted(["PQ+E", "PE+Q", "QE+P"]),
        "sequences": ["sequences"],
        "repeat": sorted(["DD", "PP", "QQ", "DPQED", "DPQEP", "DPQEQ"]),
    }
    chains = {case.recipe.chain for case in found if case.kind == "sequences"}
    assert chains == {"DPQE", "DPEQ", "DQPE", "DQEP", "DEPQ", "DEQP"}
    assert {case.recipe.chain for case in found if case.group == "PQ+E"} == {"PEQ", "QEP"}


def test_a_repeated_letter_is_compared_with_one_stronger_application(tmp_path: Path) -> None:
    text = """\
[study.repeat]
of = ["PP", "DPQEQ"]
grid.p.ratio = [0.2]
grid.q.bits = ["4x8"]
grid.q2.bits = ["1x8", "2x8"]
once.p.ratio = [0.3, 0.4]
"""
    found = cases(study_of(tmp_path, text), ["repeat"])
    assert [(case.recipe.chain, case.setting) for case in found if case.group == "PP"] == [
        ("P", '{"p.ratio": 0.3}'),
        ("P", '{"p.ratio": 0.4}'),
        ("PP", '{"p.ratio": 0.2}'),
    ]
    repeated = [case.recipe for case in found if case.group == "DPQEQ"]
    assert [(recipe.chain, recipe.at(len(recipe.chain)).q.bits) for recipe in repeated] == [
        ("DPQE", "4x8"),
        ("DPQEQ", "1x8"),
        ("DPQEQ", "2x8"),
    ], "the chain without the repeat has its settings, once"


def test_keys_of_a_table_change_together(tmp_path: Path) -> None:
    text = '[study]\npairs.of = ["DP"]\ngrid.d = [{ model = "resnet8", epochs = 3 }, { narrow = 0.25 }]\n'
    first, second = (case.recipe.d for case in cases(study_of(tmp_path, text), ["pairs"])[::2])
    assert (first.model, first.epochs) == ("resnet8", 3)
    assert (second.model, second.epochs, second.narrow) == ("", 10, 0.25)


def test_a_limit_spreads_the_choices_over_the_grid() -> None:
    grid = {
        "p": (tuple({"p.ratio": ratio / 10} for ratio in range(6)),),
        "q": (tuple({"q.bits": bits} for bits in ("1x8", "2x8", "4x8", "8x8")),),
    }
    whole = choose(grid, ["p", "q"], 24)
    assert len({json.dumps(choice) for choice in whole}) == 24
    some = choose(grid, ["q", "p"], 8)
    assert some == choose(grid, ["p", "q"], 8), "whatever the order of the chain"
    assert len(some) == 8 and all(choice in whole for choice in some)
    assert len({choice["p.ratio"] for choice in some}) >= 5
    assert len({choice["q.bits"] for choice in some}) == 4


@pytest.mark.parametrize("path", sorted(RECIPES.glob("study-*.toml")), ids=lambda path: path.stem)
def test_the_studies_of_the_repository_are_legal(path: Path) -> None:
    study = settings.load(path)
    for kind in (kind for kind in KINDS if study.kinds[kind].of):
        found = cases(study, [kind])
        trainings = len(found) / len({(case.group, case.chain) for case in found})
        if path.stem in ("study-digits", "study-paper") and kind == "pairs":
            assert trainings / len(study.kinds[kind].seeds) >= 16
        assert trainings >= (1 if path.stem == "study-digits-small" else FEWEST)


def test_sections_of_a_chain_count_its_letters() -> None:
    assert sections("DPQEPQP") == ["d", "p", "q", "e", "p2", "q2", "p3"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[study]\nseed = [1]", "unknown key study.seed; did you mean study.seeds?"),
        ("[study]\n[study.pairs]\ncase = 3", "unknown key study.pairs.case; did you mean study.pairs.cases?"),
        ("[study.grid]\np.ration = [0.1]", "unknown key p.ration; did you mean p.ratio?"),
        ("[study.grid]\nx.ratio = [0.1]", "unknown section study.grid.x"),
        ("[study.grid]\np.ratio = 0.1", "study.grid.p.ratio = 0.1 is not allowed: a list"),
        ("[study.grid]\np.ratio = [0.1, 1.5]", "p.ratio = 1.5 is not allowed: 0 to below 1"),
        ("[study.grid]\nd = [0.5]", "an entry of study.grid.d = 0.5"),
        ('[study]\npairs.of = ["PP"]', "pairs.of = 'PP' is not allowed: two different letters"),
        ('[study]\ninsert.of = ["PQE"]', "insert.of = 'PQE' is not allowed"),
        ('[study]\nsequences.of = "most"', "sequences.of = 'most' is not allowed: 'D-first', 'all'"),
        ('[study]\nrepeat.of = ["DPQ"]', "repeat.of = 'DPQ' is not allowed"),
        ('[study]\nrepeat.of = ["EE"]', "repeat.of = 'EE' is not allowed"),
        ("[study]\nseeds = []", "study.seeds = [] is not allowed"),
        ("[study]\ncases = 0", "study.cases = 0 is not allowed"),
        ("[study]\nimages_per_s.resnet8 = 0", "study.images_per_s.resnet8 = 0 is not allowed"),
        ('chain = "DP"', "a study chooses its chains"),
        ('data = "rotated-digits"\ntask = "regression"', "of classifications only"),
        ("[d]\nnarow = 0.5", "unknown key d.narow; did you mean d.narrow?"),
    ],
)
def test_mistakes_name_the_key_and_what_is_allowed(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(CocError) as error:
        study_of(tmp_path, text)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--out DIR is missing"),
        (["--out", "x", "--workers", "-1"], "--workers -1: must be at least 1"),
        (["--out", "x", "--workers", "1", "--scheduler", "tcp://a:1"], "choose one"),
        (["--out", "x", "--threads", "0"], "--threads 0: must be at least 1"),
        (["--plan", "--images-per-second", "resnet8=fast"], "expected MODEL=RATE"),
        (["--plan", "--images-per-second", "resnet9=100"], "images per second of 'resnet9': not a model"),
        (["--out", "x", "--images-per-second", "resnet8=1"], "--images-per-second is for --plan"),
    ],
)
def test_wrong_options_are_one_line(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study.toml"
    study.write_text("[study]\n")
    assert cli.main(["pairs", str(study), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("coc-study: error: ") and words in line


def test_a_missing_study_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["all", str(tmp_path / "none.toml"), "--plan"]) == 2
    assert capsys.readouterr().err == (
        f"coc-study: error: {tmp_path / 'none.toml'}: cannot be read (No such file or directory)\n"
    )
