"""Every operator in the C core equals the NumPy reference, at every level, under sanitizers."""

import numpy as np

from coc_runtime import Session, cocwrite
from contract import single_operators
from graphs import random_images
from native_driver import Driver, Request


def test_every_operator_equals_the_reference(driver: Driver) -> None:
    for name, graph in single_operators().items():
        images, data = random_images(graph, 3), cocwrite.dump(graph)
        images[0] = 0
        expected = Session.from_graph(graph).logits_per_exit(images)
        for level in driver.levels():
            found = driver.run_all_exits(data, images, graph.classes, Request(cpu=level, threads=2))
            np.testing.assert_array_equal(found, expected, err_msg=f"{name} {level}")
