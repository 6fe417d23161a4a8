"""One driver a machine for all tests of this folder: this one under sanitizers, ARM under emulation."""

from collections.abc import Iterator

import pytest

from native_driver import ARM, THIS_MACHINE, Driver, Target, build_driver


@pytest.fixture(scope="session", params=(THIS_MACHINE, ARM), ids=lambda target: target.name)
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    target: Target = request.param
    if target.missing() is not None:
        pytest.skip(f"{target.missing()} is not installed")
    running = Driver(build_driver(target))
    yield running
    running.close()
