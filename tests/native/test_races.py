"""Threads of a host on one model, a session that passes among them, a fork.

Under AddressSanitizer; without the fork on ARM, and under ThreadSanitizer, which looks at every access.
"""

import struct

import pytest

from coc_runtime import cocwrite
from graphs import random_graph, random_inception
from native_driver import RACES, Driver, build_driver

MODELS = (random_graph(5, exits=2), random_inception(5, exits=1))


def share(driver: Driver, index: int, forks: bool) -> None:
    assert driver.ask("h", struct.pack("<I", forks) + cocwrite.dump(MODELS[index])) == b"\0"


@pytest.mark.parametrize("index", range(len(MODELS)))
def test_threads_share_a_model_pass_a_session_on_and_fork(driver: Driver, index: int) -> None:
    share(driver, index, forks=not driver.emulated)


def test_threads_of_hosts_and_pools_do_not_race() -> None:
    if RACES.missing() is not None:
        pytest.skip(f"{RACES.missing()} is not installed")
    driver = Driver(build_driver(RACES))
    for index in range(len(MODELS)):
        share(driver, index, forks=False)
    driver.close()
