"""Table files of studies that nobody ran: rows whose truth is known, and a whole study of plausible looks.

`python tests/synthetic_study.py FOLDER` writes the latter and its report, to look at.
"""

import itertools
import json
import sqlite3
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from coc_study.table import Sample

COLUMNS = (
    "kind TEXT, grp TEXT, chain TEXT, case_id TEXT, setting TEXT, seed INTEGER, thresholds TEXT, "
    "accuracy REAL, original_accuracy REAL, bitops_cr REAL, bitops_cr_uniform REAL, cr REAL, "
    "expected_bitops REAL, exit_share TEXT, images INTEGER, correct BLOB, exits BLOB, exit_bitops TEXT, "
    "original_bitops REAL, epochs INTEGER, seconds REAL, data TEXT"
)
ORIGINAL = 1e9
"""BitOps of every original here."""
ORIGINAL_ACCURACY = 93.0
STUDENTS = ("resnet14", "resnet8")
BITS = ("4x8", "2x8", "1x8")
ORDER = "DPQE"
LETTERS = dict(zip(ORDER, ("d.student", "p.ratio", "q.bits", "e.max_drop"), strict=True))

Row = dict[str, Any]


def row(
    chain: str,
    correct: np.ndarray,
    bitops_cr: float,
    *,
    kind: str = "pairs",
    group: str = "",
    setting: Mapping[str, Any] | None = None,
    seed: int = 0,
    exits: np.ndarray | None = None,
    original_accuracy: float = ORIGINAL_ACCURACY,
    thresholds: Sequence[float] = (),
    data: str = "digits",
) -> Row:
    """A sample with these answers (bool [images]). exits: int [images], of three exits that cost a quarter, a
    half and all of the chain's BitOps; without, all images take the only one. bitops_cr: of the last exit."""
    images = len(correct)
    whole = ORIGINAL / bitops_cr
    costs = np.array([whole]) if exits is None else whole * np.array([0.25, 0.5, 1.0])
    taken = np.zeros(images, np.uint8) if exits is None else exits.astype(np.uint8)
    expected = float(costs[taken].mean())
    text = json.dumps(setting or {})
    return {
        "kind": kind,
        "grp": group or "".join(sorted(chain, key=ORDER.index)),
        "chain": chain,
        "case_id": f"{chain}-{text}-{seed}",
        "setting": text,
        "seed": seed,
        "thresholds": json.dumps(list(thresholds)),
        "accuracy": 100 * float(correct.mean()),
        "original_accuracy": original_accuracy,
        "bitops_cr": ORIGINAL / expected,
        "bitops_cr_uniform": 1.1 * ORIGINAL / expected,
        "cr": bitops_cr / 4,
        "expected_bitops": expected,
        "exit_share": json.dumps(
            [float(share) for share in np.bincount(taken, minlength=len(costs)) / images]
        ),
        "images": images,
        "correct": np.packbits(correct).tobytes(),
        "exits": taken.tobytes(),
        "exit_bitops": json.dumps(costs.tolist()),
        "original_bitops": ORIGINAL,
        "epochs": 8 * len(chain),
        "seconds": 5.0 * len(chain),
        "data": data,
    }


def sample(chain: str, correct: np.ndarray, bitops_cr: float, setting: str = "{}", seed: int = 0) -> Sample:
    """The same as `Sample`, of a pair's chain without exits."""
    accuracy, exits = 100 * float(correct.mean()), np.zeros(len(correct), np.uint8)
    measured = (accuracy, ORIGINAL_ACCURACY, bitops_cr, None, 1.0)
    spent = np.array([ORIGINAL / bitops_cr])
    case = ("pairs", chain, chain, setting, setting, seed, "[]")
    return Sample(*case, *measured, correct, exits, spent, ORIGINAL, 1, "digits")


def exactly(right: int, images: int) -> np.ndarray:
    """Answers of which the first `right` of `images` are right."""
    return np.arange(images) < right


def write(
    folder: Path,
    rows: Iterable[Row],
    stages: Iterable[Row] = (),
    failures: Iterable[Row] = (),
    meta: Mapping[str, str] | None = None,
) -> Path:
    """A table file of these rows; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(folder / "study.sqlite")) as base, base:
        base.execute(f"CREATE TABLE samples ({COLUMNS})")
        base.execute("CREATE TABLE meta (key TEXT, value TEXT)")
        base.executemany("INSERT INTO meta VALUES (?, ?)", (meta or {}).items())
        for table, values in (
            ("samples", list(rows)),
            ("stages", list(stages)),
            ("failures", list(failures)),
        ):
            if table != "samples" and values:
                base.execute(f"CREATE TABLE {table} ({', '.join(values[0])})")
            for one in values:
                marks = ", ".join(f":{key}" for key in one)
                base.execute(f"INSERT INTO {table} ({', '.join(one)}) VALUES ({marks})", one)
    return folder


@dataclass(frozen=True, eq=False)
class World:
    """How compression works in an invented world. difficulty: normal deviates [images]."""

    difficulty: np.ndarray
    penalty: Mapping[str, float]
    """points lost for each pair that stands in this order: {"PD": 2.0}"""
    noise: float = 0.15
    """standard deviation of a training's luck, points"""
    seed: int = 0

    def trouble(self, luck: np.random.Generator) -> np.ndarray:
        """Normal deviates [images]: how hard they are for one network; mostly as hard as for every other."""
        return 0.95 * self.difficulty + 0.31 * luck.standard_normal(len(self.difficulty))

    def case(self, chain: str, setting: Mapping[str, Any], seed: int, kind: str, group: str) -> list[Row]:
        """All operating points of one case: five where the chain has exits."""
        key = [ORDER.index(letter) for letter in chain]
        luck = np.random.default_rng([self.seed, seed, *key, hash_of(setting)])
        accuracy, ratio = ORIGINAL_ACCURACY + 0.3 + luck.normal(0, self.noise), 1.0
        for index, letter in enumerate(chain):
            repeated = chain[: index + 1].count(letter)
            loss, factor = strength(letter, setting, repeated)
            accuracy, ratio = accuracy - loss, ratio * factor
        for a, b in itertools.combinations(chain, 2):
            accuracy -= self.penalty.get(a + b, 0.0)
        trouble = self.trouble(luck)
        common = {"kind": kind, "group": group, "setting": setting, "seed": seed}
        if "E" not in chain:
            return [row(chain, answers(trouble, accuracy), ratio, **common)]
        rows = []
        for share in (0.0, 0.3, 0.5, 0.7, 0.85):
            ease = self.difficulty.argsort().argsort() / len(self.difficulty)
            exits = np.select([ease < share / 2, ease < share], [0, 1], 2)
            given = answers(trouble, accuracy - 2.5 * share**3)
            rows.append(row(chain, given, ratio, exits=exits, thresholds=[1 - share, 1 - share], **common))
        return rows


def answers(trouble: np.ndarray, accuracy: float) -> np.ndarray:
    """Bool [images]: right where trouble is small, of about this accuracy (percent)."""
    return np.asarray(trouble < NormalDist().inv_cdf(min(max(accuracy, 0.1), 99.9) / 100))


def hash_of(setting: Mapping[str, Any]) -> int:
    return sum(ord(c) * (k + 1) for k, c in enumerate(json.dumps(setting, sort_keys=True)))


def strength(letter: str, setting: Mapping[str, Any], repeated: int) -> tuple[float, float]:
    """(points lost, factor of BitOpsCR) of one application of a technique."""
    choice = setting.get(LETTERS[letter])
    if letter == "D":
        return ((0.3, 2.4), (1.1, 4.4))[STUDENTS.index(choice)] if repeated == 1 else (0.9, 1.25)
    if letter == "P":
        return 3.2 * float(choice) ** 2, 1 / (1 - float(choice)) ** (1.7 if repeated == 1 else 0.3)
    if letter == "Q":
        points, factor = ((0.1, 32.0), (0.5, 64.0), (1.0, 128.0))[BITS.index(choice)]
        return (points, factor) if repeated == 1 else (0.2, 1.8)
    return 0.1, 0.97


def grid(letters: str, cases: int) -> list[dict[str, Any]]:
    """Hyper-parameters of these techniques, evenly picked."""
    axes = {
        "D": STUDENTS,
        "P": (0.15, 0.3, 0.45, 0.6, 0.75),
        "Q": BITS,
        "E": (0.5, 2.0),
    }
    names = [letter for letter in ORDER if letter in letters]
    full = [
        {LETTERS[letter]: value for letter, value in zip(names, values, strict=True)}
        for values in itertools.product(*(axes[letter] for letter in names))
    ]
    step = max(1, len(full) // cases)
    return full[::step][:cases]


PENALTIES = {"PD": 1.0, "QD": 1.6, "ED": 2.2, "QP": 0.9, "EP": 1.3, "EQ": 0.05}


def plausible(
    images: int = 1500,
    cases: int = 8,
    seeds: Sequence[int] = (0, 1, 2),
    penalty: Mapping[str, float] = PENALTIES,
) -> list[Row]:
    """Rows of a whole study in which DPQE is the best order, though Q and E hardly differ."""
    world = World(np.random.default_rng(7).standard_normal(images), penalty)
    work: list[tuple[str, str, str, list[dict[str, Any]]]] = []
    for a, b in itertools.combinations(ORDER, 2):
        work += [("pairs", a + b, chain, grid(a + b, cases)) for chain in (a + b, b + a)]
    for pair, third in (("PQ", "E"), ("PE", "Q"), ("QE", "P")):
        chains = (third.join(pair), third.join(pair[::-1]))
        work += [("insert", f"{pair}+{third}", chain, grid(pair + third, cases)) for chain in chains]
    for rest in itertools.permutations(ORDER[1:]):
        work.append(("sequences", "sequences", "D" + "".join(rest), grid(ORDER, 2 * cases)))
    for letter in "DPQ":
        work.append(("repeat", 2 * letter, letter, grid(letter, cases)))
        work.append(("repeat", 2 * letter, 2 * letter, grid(letter, cases)))
        work.append(("repeat", f"{ORDER}+{letter}", ORDER, grid(ORDER, cases)))
        work.append(("repeat", f"{ORDER}+{letter}", ORDER + letter, grid(ORDER, cases)))
    return [
        sample
        for kind, group, chain, settings in work
        for setting in settings
        for seed in seeds
        for sample in world.case(chain, setting, seed, kind, group)
    ]


def tree(rows: Sequence[Row]) -> list[Row]:
    """The table `stages` of cases that share nothing but their own prefixes."""
    stages = {}
    for one in rows:
        chain, tail = one["chain"], one["case_id"].removeprefix(one["chain"])
        for k in range(len(chain) + 1):
            parent = f"{chain[: k - 1]}{tail}" if k else None
            stage = {"stage": chain[k - 1 : k], "chain": chain[:k], "seconds": 5.0, "cached": 0}
            key = f"{chain[:k]}{tail}"
            stages[key] = {"key": key, "parent": parent, **stage, "worker": "machine:1", "epochs": 8}
    return list(stages.values())


def write_results(folder: Path, rows: Sequence[Row]) -> None:
    """A result.json for every stage of these cases."""
    names = {"D": "distill", "P": "prune", "Q": "quantize", "E": "exit"}
    for one in rows:
        chain, tail = one["chain"], one["case_id"].removeprefix(one["chain"])
        setting, ratio, accuracy = json.loads(one["setting"]), 1.0, ORIGINAL_ACCURACY
        for k in range(len(chain) + 1):
            if k:
                loss, factor = strength(chain[k - 1], setting, chain[:k].count(chain[k - 1]))
                accuracy, ratio = accuracy - loss, ratio * factor * (2.2 if chain[k - 1] == "E" else 1)
            record = {
                "stage": names[chain[k - 1]] if k else "original",
                "model": setting["d.student"] if "D" in chain[:k] else "resnet20",
                "bits": setting["q.bits"] if "Q" in chain[:k] else "float",
                "accuracy": accuracy,
                "bitops_cr": ratio,
                "bitops_cr_uniform": 1.1 * ratio,
                "cr": ratio**0.7,
                "seconds": 5.0,
            }
            path = folder / "stages" / f"{chain[:k]}{tail}" / "result.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record))


FAILURE = {
    "kind": "sequences",
    "grp": "sequences",
    "chain": "DEPQ",
    "case_id": "0",
    "setting": '{"p.ratio": 0.95}',
    "seed": 1,
    "stage": "prune",
    "error": "p.ratio = 0.95: leaves no channel of layer 3: choose a smaller ratio",
}
META = {
    "study": 'data = "digits"\nseed = 0\n\n[original]\nmodel = "resnet20"\n\n[study]\nseeds = [0, 1, 2]\n',
    "code": "0.1.0-8a5c2d91b7e3",
    "threads": "2",
    "started": "2026-01-02T10:00:00+00:00",
    "finished": "2026-01-02T10:31:00+00:00",
}


def write_plausible(folder: Path, rows: Sequence[Row] | None = None) -> Path:
    """A whole study's folder, as coc-study leaves it."""
    rows = plausible() if rows is None else rows
    write(folder, rows, tree(rows), [FAILURE], META)
    write_results(folder, [one for one in rows if one["chain"] == ORDER and one["kind"] == "sequences"])
    return folder


def main() -> None:
    from coc_study import conclude

    folder = Path(sys.argv[1])
    (folder / "study.sqlite").unlink(missing_ok=True)
    print(conclude.write(write_plausible(folder)))


if __name__ == "__main__":
    main()
