"""Malformed files: the C reader refuses them with the right status, under sanitizers, and quickly."""

import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np

import corpus
import corpus_pools
import corpus_tables
from coc_runtime import CocError, Session, cocfile, cocwrite
from cocparts import refit, single, uneven
from graphs import random_graph, random_inception, random_mobile
from native_driver import STATUSES, Driver, Request

EXPECTED = {
    "magic": {"MAGIC"},
    "version": {"VERSION", "MALFORMED"},
    "checksum": {"CHECKSUM", "TRUNCATED"},
    "longer": {"MALFORMED"},
    "trailing": {"MALFORMED"},
    "file": {"TRUNCATED", "MALFORMED"},
    "header": {"MALFORMED", "TRUNCATED", "LIMIT"},
    "truncated": {"TRUNCATED", "MAGIC"},
    "cut": {"TRUNCATED", "MALFORMED"},
    "limit": {"LIMIT", "TRUNCATED", "MALFORMED"},
    "segments": {"LIMIT"},
    "conv": {"MALFORMED", "TRUNCATED"},
}
"""Statuses by the first word of a file's name; MALFORMED alone where there is none."""


@cache
def malformed() -> Mapping[str, bytes]:
    return corpus.corpus()


@cache
def whole() -> bytes:
    return cocwrite.dump(random_graph(3, exits=2))


@cache
def joined() -> bytes:
    return cocwrite.dump(random_inception(3, exits=2, channels=4))


@cache
def multiplied() -> bytes:
    return cocwrite.dump(random_mobile(3, exits=2, channels=4))


@cache
def pooled() -> bytes:
    return uneven().build()


def mutate(rng: np.random.Generator) -> bytes:
    """A whole file with a few bytes changed, or a piece cut, its checksum and size refitted."""
    data = bytearray((whole, joined, multiplied, pooled)[rng.integers(4)]())
    for _ in range(rng.integers(1, 4)):
        fixed = len(data) if rng.random() < 0.3 else min(1100, len(data))
        data[rng.integers(16, fixed)] = rng.choice([0, 1, 2, 127, 128, 255, rng.integers(256)])
    if rng.random() < 0.2:
        data = data[: rng.integers(48, len(data))]
    return refit(bytes(data[:16]) + struct.pack("<I", len(data)) + bytes(data[20:]))


def test_malformed_files_are_refused_with_their_status(driver: Driver) -> None:
    for name, data in malformed().items():
        if name.startswith("description-"):
            continue
        status = driver.open(data)
        assert status in EXPECTED.get(name.split("-")[0], {"MALFORMED"}), f"{name}: {status}"


def test_a_malformed_description_is_skipped(driver: Driver) -> None:
    for name, data in malformed().items():
        if name.startswith("description-"):
            assert driver.open(data) == "OK", name


def test_named_statuses(driver: Driver) -> None:
    data = whole()
    assert driver.open(data) == "OK"
    assert driver.open(data[:-1]) == "TRUNCATED"
    assert driver.open(malformed()["version-3"]) == "VERSION"
    assert driver.open(malformed()["version-2"]) == "MALFORMED"
    assert driver.open(malformed()["version-0"]) == "MALFORMED"
    assert driver.open(malformed()["checksum-zero"]) == "CHECKSUM"
    assert driver.open(malformed()["limit-channels"]) == "LIMIT"


def test_padding_of_the_kernels_size_is_refused_where_all_else_is_legal(driver: Driver) -> None:
    assert driver.open(single((3, 8, 8, -7)).build()) == "OK"
    for side in ("top", "left", "bottom", "right"):
        assert driver.open(single((3, 8, 8, -7), **{side: 1}).build()) == "MALFORMED"


def test_files_at_the_limits_open_and_run(driver: Driver) -> None:
    for parts in (*corpus_pools.at_the_limits(), *corpus_tables.at_the_limits()):
        data = parts.build()
        graph = cocfile.parse(data, "memory").graph
        images = np.random.default_rng(0).integers(0, 256, (1, *parts.image[:3]), np.uint8)
        expected = Session.from_graph(graph).run(images).logits
        for level in driver.levels():
            np.testing.assert_array_equal(driver.run(data, images, 1, Request(cpu=level)).logits, expected)


def test_every_truncation_is_refused(driver: Driver) -> None:
    data = whole()
    for end in [*range(1200), *range(1200, len(data), 37)]:
        assert driver.open(data[:end]) == ("MAGIC" if end < 8 else "TRUNCATED")
        if end >= 48:
            assert driver.open(refit(data[:end])) != "OK"


def test_both_readers_agree_on_mutants(driver: Driver) -> None:
    rng, accepted = np.random.default_rng(0), 0
    for _ in range(1000):
        data = mutate(rng)
        native = driver.open(data)
        try:
            graph = cocfile.parse(data, "mutant").graph
        except CocError as error:
            # A description that only the Python reader looks at may be wrong.
            assert native != "OK" or "descri" in str(error) or "name" in str(error), error
            continue
        assert native == "OK"
        accepted += 1
        if sum(layer.macs for layer in graph.layers()) < 3_000_000:
            image = np.zeros((1, *graph.tensors[graph.input].shape), np.uint8)
            assert driver.run(data, image, graph.classes, Request()).exit[0] < 17
    assert accepted > 10


def test_files_open_by_path_too(driver: Driver, tmp_path: Path) -> None:
    def status(path: Path) -> str:
        return STATUSES[driver.ask("p", bytes(path))[0]]

    good, short, empty = tmp_path / "good.coc", tmp_path / "short.coc", tmp_path / "empty.coc"
    good.write_bytes(whole())
    short.write_bytes(whole()[:1000])
    empty.write_bytes(b"")
    assert [status(path) for path in (good, short, empty)] == ["OK", "TRUNCATED", "MAGIC"]
    assert status(tmp_path) == "OPEN"
    assert status(tmp_path / "missing.coc") == "OPEN"
    assert status(Path("/dev/null")) in ("MAGIC", "OPEN")
