"""Keys of stages: what they depend on, and what they do not."""

from pathlib import Path

import pytest

from coc_deploy import checkpoint, recipe
from coc_deploy.checkpoint import Checkpoint
from coc_deploy.keys import Identity
from coc_deploy.network import Network
from tiny import float_network, quantized_network


def keys(folder: Path, network: Network, went_through: str, *changes: str) -> tuple[str, ...]:
    """Keys of the original and of P in a chain that starts from a given network."""
    folder.mkdir(exist_ok=True)
    given = folder / "model.pt"
    checkpoint.save(given, Checkpoint(network, meta={"chain": went_through}))
    path = folder / "recipe.toml"
    path.write_text(f'chain = "PQ"\n[original]\ncheckpoint = "{given}"\n')
    nodes = Identity("data", "code").path(recipe.load(path, list(changes)))
    return tuple(node.key for node in nodes[:2])


def test_chains_from_a_given_float_network_share_what_lies_before_their_difference(tmp_path: Path) -> None:
    plain = keys(tmp_path, float_network(), "")
    assert keys(tmp_path, float_network(), "", "q.bits=4x8") == plain
    pruned = keys(tmp_path, float_network(), "", "p.ratio=0.5")
    assert pruned[0] == plain[0] and pruned[1] != plain[1]
    assert keys(tmp_path, float_network(seed=1), "")[0] != plain[0], "another network"


@pytest.mark.parametrize("change", ["q.epochs=3", "q.lr=0.5"])
def test_the_section_of_a_stage_that_a_given_network_went_through_counts(tmp_path: Path, change: str) -> None:
    given = quantized_network()
    plain = keys(tmp_path, given, "Q")
    assert all(a != b for a, b in zip(keys(tmp_path, given, "Q", change), plain, strict=True))
    assert keys(tmp_path, given, "Q", "e.epochs=3") == plain


def test_where_the_files_of_such_a_section_lie_does_not_count(tmp_path: Path) -> None:
    found = set()
    for name, content in (("a", b"weights"), ("b", b"weights"), ("c", b"others")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.pt").write_bytes(content)
        weights = f"d.weights={tmp_path / name / 'weights.pt'}"
        found.add(keys(tmp_path / name, float_network(), "D", "d.model=resnet8", weights))
    assert len(found) == 2, "only what they hold"
