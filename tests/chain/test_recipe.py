"""recipe.toml: mistakes are told with key, value and what is allowed; keys change with what leads there."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from coc_deploy import checkpoint, recipe
from coc_deploy.checkpoint import Checkpoint
from coc_deploy.recipe import Recipe
from coc_deploy.sections import Prune
from coc_runtime.errors import CocError
from tiny import float_network, stage_key, write_recipe


def complaint(data: dict[str, Any]) -> str:
    with pytest.raises(CocError) as error:
        recipe.parse(data)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_empty_recipe_is_the_default_one() -> None:
    assert recipe.parse({}) == Recipe()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"chian": "DPQE"}, ("unknown key chian", "did you mean chain?")),
        ({"q": {"bit": "1x8"}}, ("unknown key q.bit", "did you mean q.bits?")),
        ({"e": {"zzz": 1}}, ("unknown key e.zzz", "known are", "positions", "max_drop")),
    ],
)
def test_an_unknown_key_is_named_with_what_was_meant(data: dict[str, Any], words: tuple[str, ...]) -> None:
    message = complaint(data)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("data", "name", "value", "expected"),
    [
        ({"seed": "a"}, "seed", "'a'", "int"),
        ({"seed": True}, "seed", "True", "int"),
        ({"seed": 1.5}, "seed", "1.5", "int"),
        ({"flip": "yes"}, "flip", "'yes'", "true or false"),
        ({"chain": ["D"]}, "chain", "['D']", "str"),
        ({"original": {"lr": "fast"}}, "original.lr", "'fast'", "float"),
        ({"original": {"lr": False}}, "original.lr", "False", "float"),
        ({"original": {"mean": ["a"]}}, "original.mean", "['a']", "list"),
        ({"e": {"positions": [True]}}, "e.positions", "[True]", "list"),
        ({"q": {"folded_epochs": 0.5}}, "q.folded_epochs", "0.5", "int"),
    ],
)
def test_a_wrong_type_is_told_with_key_value_and_type(
    data: dict[str, Any], name: str, value: str, expected: str
) -> None:
    message = complaint(data)
    assert f"recipe: {name} = {value}" in message and "wrong type" in message and expected in message


def test_a_section_that_is_a_value_is_refused() -> None:
    assert complaint({"q": 3}) == "recipe: q must be a section, [q]"


@pytest.mark.parametrize(
    ("data", "start", "allowed"),
    [
        ({"seed": -1}, "seed = -1", "0 to 2147483647"),
        ({"batch": 1}, "batch = 1", "2 to 65536"),
        ({"precision": "half"}, "precision = 'half'", "auto, float32 or bfloat16"),
        ({"pad": -2}, "pad = -2", "0 to 64, or -1"),
        ({"original": {"epochs": -1}}, "original.epochs = -1", "0 to 10000"),
        ({"original": {"lr": 0}}, "original.lr = 0.0", "above 0"),
        ({"d": {"lr": float("nan")}}, "d.lr = nan", "above 0"),
        ({"d": {"weight_decay": -0.1}}, "d.weight_decay = -0.1", "0 to 1"),
        ({"d": {"model": "resnet9"}}, "d.model = 'resnet9'", "resnet8, resnet14"),
        ({"d": {"model": "vgg"}}, "d.model = 'vgg'", "resnet8, resnet14"),
        ({"d": {"width": -1}}, "d.width = -1", "1 to 1024"),
        ({"d": {"shortcut": "C"}}, "d.shortcut = 'C'", "A or B"),
        ({"d": {"std": [0.5, 0, 1]}}, "d.std = [0.5, 0.0, 1.0]", "finite numbers above 0"),
        ({"d": {"temperature": 0}}, "d.temperature = 0.0", "above 0"),
        ({"d": {"temperature": float("inf")}}, "d.temperature = inf", "above 0"),
        ({"d": {"alpha": 1.1}}, "d.alpha = 1.1", "0 to 1"),
        ({"p": {"alpha": -0.1}}, "p.alpha = -0.1", "0 to 1"),
        ({"p": {"teacher": "self"}}, "p.teacher = 'self'", "original, before or none"),
        ({"p": {"ratio": 1.0}}, "p.ratio = 1.0", "0 to below 1"),
        ({"p": {"round_to": 0}}, "p.round_to = 0", "1 to 256"),
        ({"p": {"importance": "taylor"}}, "p.importance = 'taylor'", "l1, l2 or bn"),
        ({"q": {"first_last": "4"}}, "q.first_last = '4'", "8 or same"),
        ({"q": {"folded_epochs": -1}}, "q.folded_epochs = -1", "0 or more"),
        ({"q": {"percentile": 101}}, "q.percentile = 101.0", "50 to 100"),
        ({"e": {"positions": []}}, "e.positions = []", "1 to 8 fractions"),
        ({"e": {"positions": [1]}}, "e.positions = [1.0]", "fractions in (0, 1)"),
        ({"e": {"positions": [0.1] * 9}}, "e.positions = ", "1 to 8"),
        ({"e": {"head": "mlp"}}, "e.head = 'mlp'", "conv or linear"),
        ({"e": {"head_channels": 0}}, "e.head_channels = 0", "1 to 1024"),
        ({"e": {"max_drop": -1}}, "e.max_drop = -1.0", "0 to 100"),
        ({"e": {"thresholds": [0.5]}}, "e.thresholds = [0.5]", "2 confidences, one per position"),
        ({"e": {"thresholds": [-1, 0]}}, "e.thresholds = [-1.0, 0.0]", "confidences"),
        ({"p": {"scope": "layer"}}, "p.scope = 'layer'", "uniform or global"),
        ({"d": {"crd": -1}}, "d.crd = -1.0", "0 to 1000"),
        ({"d": {"crd_dim": 0}}, "d.crd_dim = 0", "1 to 4096"),
        ({"d": {"crd_temperature": 0}}, "d.crd_temperature = 0.0", "0.01 to 10"),
    ],
)
def test_a_value_out_of_range_is_told_with_what_is_allowed(
    data: dict[str, Any], start: str, allowed: str
) -> None:
    message = complaint(data)
    assert message.startswith(f"recipe: {start}") and allowed in message


@pytest.mark.parametrize("bits", ["3x8", "1x7", "1x", "8", "1x88", "1X8", "01x8", "", "1x8\n"])
def test_bits_other_than_the_supported_are_refused(bits: str) -> None:
    message = complaint({"q": {"bits": bits}})
    assert message.startswith(f"recipe: q.bits = {bits!r}") and "WxA with W in 1, 2, 4, 8" in message


@pytest.mark.parametrize(
    ("bits", "first_last", "expected"),
    [("1x8", "8", (1, 8, 8)), ("4x4", "same", (4, 4, 4)), ("2x4", 8, (2, 4, 8))],
)
def test_bits_become_a_specification(bits: str, first_last: Any, expected: tuple[int, int, int]) -> None:
    spec = recipe.parse({"q": {"bits": bits, "first_last": first_last}}).q.spec
    assert (spec.weight_bits, spec.act_bits, spec.ends) == expected


@pytest.mark.parametrize("chain", ["X", "", "dpqe", "D P"])
def test_a_chain_of_other_letters_is_refused(chain: str) -> None:
    message = complaint({"chain": chain})
    assert (
        message.startswith(f"recipe: chain = {chain!r}") and "letters D, P, Q and E in any order" in message
    )


@pytest.mark.parametrize("chain", ["EE", "DPQEE", "EDE"])
def test_a_second_exit_stage_is_refused(chain: str) -> None:
    message = complaint({"chain": chain})
    assert message.startswith(f"recipe: chain = {chain!r}") and "E at most once" in message


def test_a_chain_has_at_most_fifteen_stages() -> None:
    assert recipe.parse({"chain": "Q" * 15}).section_name(15) == "q15"
    assert "at most 15 stages" in complaint({"chain": "Q" * 16})


@pytest.mark.parametrize("chain", ["DPQE", "D", "E", "PQ", "EQPD", "PP", "DPQED", "QQQ"])
def test_every_other_chain_is_taken(chain: str) -> None:
    assert recipe.parse({"chain": chain}).chain == chain


def test_a_network_with_weights_trains_gently_unless_told_otherwise() -> None:
    found = recipe.parse(
        {
            "chain": "DD",
            "original": {"weights": "a.pt"},
            "d": {"model": "resnet8", "weights": "b.pt", "epochs": 5},
            "d2": {"lr": 0.2},
        }
    )
    again = found.repeats["d2"]
    assert [(s.epochs, s.lr) for s in (found.original, found.d, again)] == [(3, 0.01), (5, 0.01), (5, 0.2)]
    bare = recipe.parse({"chain": "D", "d": {"model": "resnet8"}})
    assert [(s.epochs, s.lr) for s in (bare.original, bare.d)] == [(10, 0.1), (10, 0.1)]


def test_a_later_section_inherits_what_it_does_not_set() -> None:
    table = {"p": {"ratio": 0.5, "round_to": 2}, "p2": {"ratio": 0.25}, "p4": {"importance": "bn"}}
    loaded = recipe.parse({"chain": "PDPPPP", **table})
    sections = [loaded.section(index) for index in (1, 3, 4, 5, 6)]
    assert [loaded.section_name(index) for index in range(7)] == [
        "original",
        "p",
        "d",
        "p2",
        "p3",
        "p4",
        "p5",
    ]
    assert all(isinstance(section, Prune) for section in sections)
    settings = [(s.ratio, s.round_to, s.importance) for s in sections if isinstance(s, Prune)]
    assert settings == [(0.5, 2, "l2"), *[(0.25, 2, "l2")] * 2, *[(0.25, 2, "bn")] * 2]
    assert loaded.section(2) == loaded.d


def test_a_stage_sees_the_chain_so_far_and_the_sections_last_used() -> None:
    loaded = recipe.parse({"chain": "QPQD", "q": {"bits": "4x8"}, "q2": {"bits": "1x8"}})
    assert loaded.as_dict()["q2"]["bits"] == "1x8" and "pruned" not in loaded.as_dict()
    assert [loaded.at(index).chain for index in (1, 2, 3, 4)] == ["Q", "QP", "QPQ", "QPQD"]
    assert [loaded.at(index).q.bits for index in (1, 2, 3, 4)] == ["4x8", "4x8", "1x8", "1x8"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"p2": {"ratoi": 0.1}}, "unknown key p2.ratoi; did you mean p2.ratio?"),
        ({"p2": {"ratio": 2}}, "p2.ratio = 2.0 is not allowed"),
        ({"q3": {"bits": 1.5}}, "q3.bits = 1.5 has the wrong type"),
        ({"d2": 1}, "d2 must be a section, [d2]"),
        ({"e2": {"lr": 0.1}}, "unknown key e2"),
        ({"p1": {}}, "unknown key p1"),
        ({"p16": {}}, "unknown key p16"),
        ({"repeats": {}}, "unknown key repeats"),
    ],
)
def test_a_mistake_in_a_later_section_is_told(data: dict[str, Any], words: str) -> None:
    assert words in complaint(data)


def test_a_later_section_alters_the_keys_of_later_stages_only() -> None:
    plain, changed = (recipe.parse({"chain": "PDP", "p2": p2}) for p2 in ({}, {"ratio": 0.5}))
    differ = [stage_key(plain, "PDP"[:index]) != stage_key(changed, "PDP"[:index]) for index in range(4)]
    assert differ == [False, False, False, True]
    assert stage_key(recipe.parse({"chain": "PDP"}), "PDP") == stage_key(plain, "PDP")


def test_a_key_added_later_counts_only_where_it_is_set() -> None:
    assert stage_key(recipe.parse({"p": {"scope": "uniform"}}), "DP") == stage_key(Recipe(), "DP")
    assert stage_key(recipe.parse({"p": {"scope": "global"}}), "DP") != stage_key(Recipe(), "DP")


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, "chain = ")
    with pytest.raises(CocError, match=r"recipe\.toml: not valid TOML: Invalid value"):
        recipe.load(path, [])
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CocError, match=r"recipe\.toml: not valid TOML"):
        recipe.load(path, [])


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CocError, match=r"none\.toml: cannot be read \(No such file"):
        recipe.load(tmp_path / "none.toml", [])
    with pytest.raises(CocError, match="is a directory: give a TOML file"):
        recipe.load(tmp_path, [])


def test_set_changes_values_at_the_top_and_in_sections(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, 'chain = "DQ"\n[q]\nlr = 0.5\n')
    changes = ["seed=7", "q.bits=4x8", "p.ratio=0.5", "e.positions=[0.2, 'layer2.0']", "flip=true"]
    changes += ["original.model=resnet14", "e.positions=[0.3, 'layer2.0']", "p2.ratio=0.75"]
    loaded = recipe.load(path, changes)
    assert (loaded.chain, loaded.seed, loaded.flip) == ("DQ", 7, True)
    assert (loaded.q.bits, loaded.q.lr, loaded.p.ratio) == ("4x8", 0.5, 0.5)
    assert loaded.repeats["p2"] == Prune(ratio=0.75)
    assert loaded.e.positions == (0.3, "layer2.0") and loaded.original.model == "resnet14"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("q.bits", "expected key=value or section.key=value"),
        ("a.b.c=1", "expected key=value or section.key=value"),
        ("chain.x=1", "'chain' is not a section"),
        ("q.bots=1x8", "unknown key q.bots; did you mean q.bits?"),
        ("seed=", "seed = '' has the wrong type"),
        ("q.bits=5x8", "q.bits = '5x8' is not allowed"),
    ],
)
def test_a_bad_set_is_told(tmp_path: Path, change: str, words: str) -> None:
    path = write_recipe(tmp_path, 'chain = "DQ"\n')
    with pytest.raises(CocError) as error:
        recipe.load(path, [change])
    assert words in str(error.value)


def test_paths_are_relative_to_the_recipes_folder(tmp_path: Path) -> None:
    text = 'data = "imagefolder:images"\n[original]\nweights = "w/a.pt"\ncheckpoint = "m.pt"\n'
    text += '[d]\nmodel = "resnet8"\nweights = "/abs/b.pt"\n[d2]\nweights = "w/c.pt"\n'
    loaded = recipe.load(write_recipe(tmp_path, text), [])
    assert loaded.data == f"imagefolder:{tmp_path / 'images'}"
    assert loaded.original.weights == str(tmp_path / "w/a.pt") and loaded.d.weights == "/abs/b.pt"
    assert loaded.original.checkpoint == str(tmp_path / "m.pt")
    assert getattr(loaded.repeats["d2"], "weights", "") == str(tmp_path / "w/c.pt")
    assert recipe.load(write_recipe(tmp_path, 'data = "cifar10"'), []).data == "cifar10"


PREFIXES = ("", "D", "DP", "DPQ", "DPQE")


@pytest.mark.parametrize(
    ("section", "values", "first_changed"),
    [
        ("", {"seed": 1}, 0),
        ("", {"data": "cifar10"}, 0),
        ("", {"batch": 32}, 0),
        ("", {"flip": True}, 0),
        ("original", {"epochs": 3}, 0),
        ("d", {"temperature": 2.0}, 1),
        ("p", {"ratio": 0.3}, 2),
        ("q", {"bits": "2x8"}, 3),
        ("e", {"max_drop": 1.0}, 4),
        ("e", {"positions": (0.5,)}, 4),
    ],
)
def test_a_change_alters_the_keys_of_what_it_leads_to_and_no_others(
    section: str, values: dict[str, Any], first_changed: int
) -> None:
    base = Recipe()
    changed = (
        dataclasses.replace(base, **values)
        if not section
        else dataclasses.replace(base, **{section: dataclasses.replace(getattr(base, section), **values)})
    )
    differ = [stage_key(base, prefix) != stage_key(changed, prefix) for prefix in PREFIXES]
    assert differ == [index >= first_changed for index in range(len(PREFIXES))]


def test_shorter_epochs_alter_all_keys_and_whole_ones_none() -> None:
    base, whole, half = Recipe(), recipe.parse({"epoch_share": 1}), recipe.parse({"epoch_share": 0.5})
    assert [stage_key(base, prefix) == stage_key(whole, prefix) for prefix in PREFIXES] == [True] * len(
        PREFIXES
    )
    assert [stage_key(base, prefix) == stage_key(half, prefix) for prefix in PREFIXES] == [False] * len(
        PREFIXES
    )
    with pytest.raises(CocError, match="epoch_share = 0.0 is not allowed: a share above 0"):
        recipe.parse({"epoch_share": 0})


def test_the_chain_behind_a_stage_does_not_alter_its_key() -> None:
    assert stage_key(Recipe(chain="DP"), "DP") == stage_key(Recipe(chain="DPQE"), "DP")
    assert stage_key(Recipe(), "DQ") != stage_key(Recipe(), "DP")


def test_the_content_of_weights_is_part_of_the_key_not_their_place(tmp_path: Path) -> None:
    def key(path: Path, content: bytes) -> str:
        path.write_bytes(content)
        return stage_key(recipe.parse({"original": {"weights": str(path)}}), "")

    assert key(tmp_path / "a", b"1") == key(tmp_path / "b", b"1") != key(tmp_path / "a", b"2")
    student = {"model": "resnet8", "weights": str(tmp_path / "a")}
    assert stage_key(recipe.parse({"d": student}), "") == stage_key(Recipe(), "")
    checkpoint.save(tmp_path / "model.pt", Checkpoint(float_network(), meta={"chain": ""}))
    given = {"original": {"checkpoint": str(tmp_path / "model.pt")}}
    assert stage_key(recipe.parse(given), "") != stage_key(Recipe(), "")
    with pytest.raises(CocError, match="gone: cannot be read .* set 'checkpoint' to a model.pt"):
        stage_key(recipe.parse({"original": {"checkpoint": str(tmp_path / "gone")}}), "")
    with pytest.raises(CocError, match="none: cannot be read"):
        stage_key(recipe.parse({"original": {"weights": str(tmp_path / "none")}}), "")


def test_the_recipes_of_the_repository_are_legal() -> None:
    folder = Path(__file__).parents[2] / "recipes"
    paths = [path for path in folder.rglob("*.toml") if not path.name.startswith("study-")]
    texts = {path: path.read_text() for path in paths}
    paths = [path for path, text in texts.items() if "weights" not in text and "[auto]" not in text]
    assert {len(list((folder / kind).glob("*.toml"))) for kind in ("paper", "small")} == {12}
    for path in paths:
        loaded = recipe.load(path, [])
        assert loaded.chain == "DPQE" and loaded.p.round_to >= 2
