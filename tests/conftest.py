"""What all tests share. `pythonpath` in setup.cfg lets them say `from graphs import random_graph`."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

# Networks here are tiny: more threads would only wait for each other, for seconds on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    import skips

    skips.install(config)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """A test and its fixtures draw the same random numbers alone and behind others."""
    import random

    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@dataclass(frozen=True)
class TinyRun:
    """One finished run of tiny.RECIPE through coc-compress, which tests read but do not change."""

    recipe: Path
    out: Path
    stdout: str

    @property
    def model(self) -> Path:
        return self.out / "model.pt"


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    import contextlib
    import io

    from coc_deploy.cli import main
    from tiny import write_recipe

    folder = tmp_path_factory.mktemp("tiny")
    recipe, out, stdout = write_recipe(folder), folder / "run", io.StringIO()
    with contextlib.redirect_stdout(stdout):
        assert main([str(recipe), "--out", str(out), "--threads", "1"]) == 0
    return TinyRun(recipe, out, stdout.getvalue())
