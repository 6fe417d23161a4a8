"""The cases of a study: a chain, one choice of hyper-parameters, and a seed."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from coc_deploy.recipe import Recipe
from coc_runtime.errors import CocError

from .settings import Choice, Grid, Kind, Study

ORIGINAL = "original"
"""Kind and group of the originals' own samples."""


@dataclass(frozen=True)
class Case:
    """One chain to run to its end, for one group of chains that are compared with each other.

    setting: JSON of what was chosen, the same for all orders of the same letters.
    """

    kind: str
    group: str
    setting: str
    recipe: Recipe

    @property
    def chain(self) -> str:
        """Empty where the case is only the original that the recipe's chain begins with."""
        return "" if self.kind == ORIGINAL else self.recipe.chain


def original(case: Case) -> Case:
    """What a case's chain begins with, whose answers say how far accuracies of chains and original differ."""
    return Case(ORIGINAL, ORIGINAL, "{}", case.recipe)


def cases(study: Study, kinds: Sequence[str]) -> list[Case]:
    """Every case of these kinds, in the order of study and grid; all orders of a group share the choices."""
    found: dict[tuple[str, str, str], Case] = {}
    for name in kinds:
        kind = study.kinds[name]
        for group, chains, choices in _groups(name, kind):
            for seed in kind.seeds:
                for choice in choices:
                    for chain in chains:
                        read = {k: v for k, v in choice.items() if k.partition(".")[0] in sections(chain)}
                        recipe = study.recipe(chain, read, seed)
                        case = Case(name, group, json.dumps(read, sort_keys=True), recipe)
                        found.setdefault((name, group, _identity(recipe)), case)
    if not found:
        raise CocError(
            f"the study asks for no cases of {', '.join(kinds)}: name chains in 'of' of [study.{kinds[0]}]"
        )
    return list(found.values())


def _identity(recipe: Recipe) -> str:
    return json.dumps([recipe.chain, recipe.as_dict()], sort_keys=True)


def _groups(name: str, kind: Kind) -> Iterator[tuple[str, tuple[str, ...], list[Choice]]]:
    """(group, its chains, the choices that all of them run with)."""
    if name == "sequences":
        for letters in dict.fromkeys("".join(sorted(chain)) for chain in kind.of):
            chains = tuple(chain for chain in kind.of if "".join(sorted(chain)) == letters)
            yield name, chains, choose(kind.grid, sections(chains[0]), kind.cases)
    for group in kind.of if name != "sequences" else ():
        if name == "pairs":
            chains = (group, group[::-1])
        elif name == "insert":
            between = group[3]
            chains = (group[0] + between + group[1], group[1] + between + group[0])
        elif len(set(group)) == 1:
            yield group, (group[:-1],), choose(kind.once, sections(group[:-1]), kind.cases)
            chains = (group,)
        else:
            chains = (group[:-1], group)
        yield group, chains, choose(kind.grid, sections(chains[-1]), kind.cases)


def sections(chain: str) -> list[str]:
    """The recipe's sections that a chain reads: d, p, p2 ..., sorted as in the chain."""
    counted = [(letter, chain[: index + 1].count(letter)) for index, letter in enumerate(chain)]
    return [letter.lower() + (str(count) if count > 1 else "") for letter, count in counted]


def choose(grid: Grid, names: Sequence[str], most: int) -> list[Choice]:
    """Combinations of the axes of these sections: all of them, or `most` that are spread evenly over the grid
    (by Halton's sequence), in the grid's order."""
    axes = [axis for name in sorted(names, key=_natural) for axis in grid.get(name, ())]
    sizes = [len(axis) for axis in axes]
    total = prod(sizes)
    ranks = range(total) if total <= most else sorted(_spread(sizes, most))
    return [_combination(axes, rank) for rank in ranks]


def _natural(name: str) -> tuple[int, int]:
    """Sections in the order d, d2, p, p2, q, e, whatever the chain's."""
    match = re.fullmatch(r"([dpqe])(\d*)", name)
    assert match
    return "dpqe".index(match[1]), int(match[2] or 1)


def _spread(sizes: Sequence[int], most: int) -> set[int]:
    """Ranks of `most` cells of a grid of these sizes."""
    from scipy.stats import qmc

    sampler, ranks = qmc.Halton(len(sizes), scramble=False), set[int]()
    while len(ranks) < most:
        for point in sampler.random(most):
            cell = [int(x * size) for x, size in zip(point, sizes, strict=True)]
            rank = 0
            for index, size in zip(cell, sizes, strict=True):
                rank = rank * size + index
            if len(ranks) < most:
                ranks.add(rank)
    return ranks


def _combination(axes: Sequence[Sequence[Choice]], rank: int) -> Choice:
    combined: dict[str, object] = {}
    for axis in reversed(axes):
        rank, index = divmod(rank, len(axis))
        combined = {**axis[index], **combined}
    return combined
