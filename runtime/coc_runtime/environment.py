"""The machine and the library versions that a report or a measurement belongs to."""

import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from . import __version__

CPUINFO = Path("/proc/cpuinfo")
FLAGS = ("avx2", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "asimd", "asimddp", "i8mm")
"""Instruction sets that integer kernels choose by."""

PACKAGES = ("numpy", "onnxruntime", "onnx")


def cpu() -> str:
    """What the system calls the CPU."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_flags() -> list[str]:
    """Those of FLAGS that this CPU has; empty where the system does not say."""
    present = set(re.split(r"\s+", _cpuinfo("flags") or _cpuinfo("Features") or ""))
    return [flag for flag in FLAGS if flag in present]


def environment(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """CPU, system, versions of Python, of this runtime and of the packages (None: not installed), date."""
    return {
        "cpu": cpu(),
        "machine": platform.machine(),
        "flags": cpu_flags(),
        "cores": os.cpu_count(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "coc_runtime": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    } | {package: version(package) for package in packages}


def _cpuinfo(key: str) -> str | None:
    if not CPUINFO.exists():
        return None
    match = re.search(rf"^{key}\s*:\s*(.+)$", CPUINFO.read_text(), re.MULTILINE)
    return match[1].strip() if match else None


def version(package: str) -> str | None:
    """The version of an installed package; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
