"""Three models beside images that they take: grey digits, colour, and a regression."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coc_deploy.checkpoint import Checkpoint
from coc_export.lowering import lower
from coc_runtime import Session, arithmetic
from graphs import as_regression, random_graph, random_images
from sites import Site, lay_out
from tiny import digits, quantized_network

COUNT = 30


@pytest.fixture(scope="session")
def digits_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Grey images and a hardly trained network whose two exits let half of what arrives leave."""
    graph = lower(Checkpoint(quantized_network(head="linear")), Path(__file__))
    images = digits("test").images[:COUNT]
    logits = Session.from_graph(graph).logits_per_exit(images)
    thresholds = tuple(float(np.median(arithmetic.confidence(logits[exit]))) for exit in range(2))
    return lay_out(tmp_path_factory.mktemp("digits"), replace(graph, thresholds=thresholds), images)


@pytest.fixture(scope="session")
def colour_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """RGB images of a network with random weights and two exits."""
    graph = random_graph(21, exits=2)
    return lay_out(tmp_path_factory.mktemp("colour"), graph, random_images(graph, COUNT, seed=3))


@pytest.fixture(scope="session")
def regression_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """RGB images of a network with two real outputs."""
    graph = as_regression(random_graph(22, exits=2, classes=2))
    return lay_out(tmp_path_factory.mktemp("regression"), graph, random_images(graph, COUNT, seed=4))
