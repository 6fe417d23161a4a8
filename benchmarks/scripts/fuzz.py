"""Fuzz the C core: open and run mutants of .coc files under the address and undefined-behaviour sanitizers.

    python benchmarks/scripts/fuzz.py [--seconds 600] [--json benchmarks/results/fuzz.json]

Builds runtime/native/fuzz.c with libFuzzer (needs clang and its runtime, on Debian libclang-rt-14-dev),
starts from tests/seeds.py and the corpus of earlier runs in build/, and fails with the input in
build/ if anything crashes, leaks, hangs or overflows.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from coc_runtime import files
from coc_runtime.environment import environment

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "runtime/native"
BUILD = ROOT / "build"
CORPUS = BUILD / "fuzz-corpus"
SANITIZERS = "fuzzer,address,undefined"


def build() -> Path:
    target = BUILD / "fuzz"
    sources = [path for path in sorted(NATIVE.rglob("*.c")) if path.name != "pymodule.c"]
    options = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-ffp-contract=off", f"-I{NATIVE}"]
    options += [f"-fsanitize={SANITIZERS}", "-fno-sanitize-recover=all"]
    options += ["-mllvm", "-asan-instrumentation-with-call-threshold=0"]
    try:
        subprocess.run(["clang", *options, *sources, "-lm", "-pthread", "-o", target], check=True)
    except FileNotFoundError:
        sys.exit("fuzz: clang is missing (Debian: apt install clang libclang-rt-14-dev)")
    return target


def run(target: Path, seconds: int) -> tuple[int, str]:
    """libFuzzer's exit code and log; the log is shown while it grows."""
    limits = [f"-max_total_time={seconds}", "-max_len=8192", "-timeout=10", "-rss_limit_mb=2048"]
    command = [target, *limits, "-print_final_stats=1", f"-artifact_prefix={BUILD}/", CORPUS]
    lines = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            print(line, end="", flush=True)
    return process.returncode, "".join(lines)


def summary(code: int, log: str, seeds: int) -> dict[str, Any]:
    def last(pattern: str) -> int:
        found = re.findall(pattern, log)
        return int(found[-1]) if found else 0

    return {
        "failed": code != 0,
        "seconds": last(r"Done \d+ runs in (\d+) second"),
        "runs": last(r"stat::number_of_executed_units:\s*(\d+)"),
        "peak_rss_mb": last(r"stat::peak_rss_mb:\s*(\d+)"),
        "slowest_run_s": last(r"stat::slowest_unit_time_sec:\s*(\d+)"),
        "edges_covered": last(r"cov: (\d+)"),
        "seeds": seeds,
        "inputs_kept": last(r"corp: (\d+)/"),
        "sanitizers": SANITIZERS.replace("fuzzer,", ""),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    CORPUS.mkdir(parents=True, exist_ok=True)
    target = build()
    subprocess.run([sys.executable, ROOT / "tests/seeds.py", CORPUS], check=True)
    seeds = len(list(CORPUS.iterdir()))
    code, log = run(target, options.seconds)
    result = {"schema": 1, "environment": environment()} | summary(code, log, seeds)
    if options.json:
        files.write_json(options.json, result)
    return int(result["failed"])


if __name__ == "__main__":
    sys.exit(main())
