"""The environment of reports names the CPU and every version, also of what is not installed."""

import numpy as np

from coc_runtime.environment import FLAGS, cpu, cpu_flags, environment


def test_versions_of_packages_are_named_and_none_of_what_is_missing() -> None:
    found = environment(["numpy", "no-such-package"])
    assert found["numpy"] == np.__version__ and found["no-such-package"] is None
    assert found["cpu"] == cpu() != ""
    assert found["flags"] == cpu_flags() and set(cpu_flags()) <= set(FLAGS)
