"""Builds the C core with sanitizers and talks to it: tests/native/driver.c answers requests over pipes."""

import concurrent.futures
import fcntl
import hashlib
import os
import platform
import re
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from coc_runtime import Result

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "runtime" / "native"
TESTS = ROOT / "tests" / "native"
NOT_IN_THE_CORE = {"pymodule.c", "fuzz.c"}
OWN = (TESTS / "driver.c", TESTS / "races.c")
"""The driver's files; it has a clock of its own."""
COMMON = (
    *("-std=c11", "-D_GNU_SOURCE", "-ffp-contract=off", f"-I{NATIVE}", "-O1", "-g"),
    "-Werror=implicit-function-declaration",
)


@dataclass(frozen=True)
class Target:
    """A machine that the driver is built for, and the tools that this takes."""

    name: str
    gcc: str
    flags: tuple[str, ...]
    link: tuple[str, ...] = ()
    emulator: tuple[str, ...] = ()

    def missing(self) -> str | None:
        """A tool that is not installed; None if all are."""
        return next((tool for tool in (self.gcc, *self.emulator[:1]) if shutil.which(tool) is None), None)


THIS_MACHINE = Target(
    "sanitized",
    "gcc",
    (
        *COMMON,
        *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
        # Checks as calls: inlined, they make gcc take 40 s for one file of unrolled kernels.
        *("--param", "asan-instrumentation-with-call-threshold=0"),
    ),
)
RACES = Target("races", "gcc", (*COMMON, "-fsanitize=thread"))
ARM = Target("aarch64", "aarch64-linux-gnu-gcc", COMMON, ("-static",), ("qemu-aarch64",))
"""NEON under emulation, where Debian's gcc-aarch64-linux-gnu and qemu-user are installed."""

STATUSES = (
    "OK",
    "ARGUMENT",
    "OPEN",
    "MAGIC",
    "VERSION",
    "TRUNCATED",
    "CHECKSUM",
    "MALFORMED",
    "LIMIT",
    "MEMORY",
    "UNSUPPORTED",
    "ROUNDING",
)
"""coc_status, by value."""


def core_sources() -> list[Path]:
    """The C files of the runtime itself."""
    return sorted(path for path in NATIVE.rglob("*.c") if path.name not in NOT_IN_THE_CORE)


def build_driver(target: Target) -> list[str]:
    """The command that starts the driver, which lies under build/; only what changed is compiled again.

    One of several test processes builds it, the others wait for that.
    """
    folder = ROOT / "build" / "native-tests" / target.name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _build(with_avx_vnni(target), folder)


VNNI = """
#include <immintrin.h>
__attribute__((target("avx2,avxvnni"))) int main(void) {
    volatile int one = 1;
    const __m256i ones = _mm256_set1_epi8((char)one);
    return _mm256_extract_epi32(_mm256_dpbusd_avx_epi32(ones, ones, ones), 7) != 0x01010105;
}
"""


def runs_avx_vnni() -> bool:
    """Whether a program with AVX-VNNI's instruction works here. CPUID may not tell: hypervisors hide it."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "vnni")
        command = ["gcc", "-x", "c", "-", "-o", str(program)]
        if subprocess.run(command, input=VNNI, capture_output=True, text=True).returncode != 0:
            return False
        return subprocess.run([program], capture_output=True).returncode == 0


def with_avx_vnni(target: Target) -> Target:
    """The target, told how to test the level `avxvnni`: by the instruction, or by its definition in AVX2."""
    if target.emulator or platform.machine() != "x86_64":
        return target
    how = "-DCOC_ASSUME_AVX_VNNI" if runs_avx_vnni() else "-DCOC_EMULATE_AVX_VNNI"
    return replace(target, flags=(*target.flags, how))


def _build(target: Target, folder: Path) -> list[str]:
    sources = [*(path for path in core_sources() if path.name != "clock.c"), *OWN]
    objects = [folder / f"{path.stem}-{_digest(path, target)}.o" for path in sources]

    def compile_one(index: int) -> None:
        if not objects[index].exists():
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                made = Path(temporary, "made.o")
                _call(target.gcc, *target.flags, "-c", str(sources[index]), "-o", str(made))
                made.rename(objects[index])

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, range(len(sources))))
    names = hashlib.sha256(" ".join(path.name for path in objects).encode()).hexdigest()[:16]
    driver = folder / f"driver-{names}"
    if not driver.exists():
        link = ("-o", str(driver), "-lm", "-pthread", *target.link)
        _call(target.gcc, *target.flags, *map(str, objects), *link)
    for path in set(folder.glob("*-*")) - {driver, *objects}:
        path.unlink(missing_ok=True)
    return [*target.emulator, str(driver)]


def _digest(source: Path, target: Target) -> str:
    """The digest of a file, of the headers that it includes in turn, and of the flags."""
    digest, found = hashlib.sha256(repr(target).encode()), [source]
    for path in found:
        text = path.read_text()
        digest.update(text.encode())
        names = re.findall(r'#include "([^"]+)"', text)
        included = [folder / name for name in names for folder in (NATIVE, TESTS)]
        found += [header for header in included if header not in found and header.exists()]
    return digest.hexdigest()[:16]


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"


@dataclass(frozen=True)
class Request:
    """How a model runs."""

    threads: int = 1
    interleaved: bool = False
    cpu: str = ""
    thresholds: np.ndarray | None = None

    def pack(self, model: bytes, images: np.ndarray, all_exits: bool) -> bytes:
        given = np.array([] if self.thresholds is None else self.thresholds, np.float32)
        pixels = images.transpose(0, 2, 3, 1) if self.interleaved else images
        return b"".join(
            [
                struct.pack("<I", len(model)) + model,
                struct.pack("<4I", self.threads, self.interleaved, all_exits, len(given)) + given.tobytes(),
                self.cpu.encode().ljust(16, b"\0"),
                struct.pack("<I", len(images)) + np.ascontiguousarray(pixels).tobytes(),
            ]
        )


class Driver:
    """A running driver. A sanitizer's report ends it, and the test that was talking to it fails."""

    def __init__(self, command: list[str]) -> None:
        environment = {
            **os.environ,
            "ASAN_OPTIONS": "allocator_may_return_null=1",
            "TSAN_OPTIONS": "halt_on_error=1",
        }
        environment.pop("COC_CPU", None)
        self.emulated = len(command) > 1
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment,
        )

    def ask(self, command: str, payload: bytes = b"") -> bytes:
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(command.encode() + struct.pack("<I", len(payload)) + payload)
            self.process.stdin.flush()
        except BrokenPipeError:
            raise AssertionError(self.report()) from None
        length = self.process.stdout.read(4)
        assert len(length) == 4, self.report()
        return self.process.stdout.read(struct.unpack("<I", length)[0])

    def report(self) -> str:
        """What a driver that died has said."""
        self.process.wait(20)
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace")[:6000]

    def close(self) -> None:
        """End it; fails if LeakSanitizer has something to say."""
        assert self.process.stdin
        self.process.stdin.close()
        report = self.report()
        assert self.process.returncode == 0, report

    def open(self, data: bytes) -> str:
        """Status of a file in memory."""
        return STATUSES[self.ask("o", data)[0]]

    def levels(self) -> list[str]:
        """Levels of kernels that this build has and this CPU runs."""
        return self.ask("l").decode().rstrip("\0").split("\0")

    def run(self, model: bytes, images: np.ndarray, classes: int, request: Request) -> Result:
        answer = self.ask("r", request.pack(model, images, all_exits=False))
        assert STATUSES[answer[0]] == "OK", STATUSES[answer[0]]
        count, at = len(images), 1 + 4 * len(images) * classes
        numbers = np.frombuffer(answer, np.int64, 3 * count, at).reshape(3, count)
        return Result(
            logits=np.frombuffer(answer, np.float32, count * classes, 1).reshape(count, classes),
            label=numbers[0],
            exit=numbers[1],
            confidence=np.frombuffer(answer, np.float32, count, at + numbers.nbytes),
            bitops=numbers[2],
        )

    def status_of_run(self, model: bytes, images: np.ndarray, request: Request) -> str:
        return STATUSES[self.ask("r", request.pack(model, images, all_exits=False))[0]]

    def run_all_exits(self, model: bytes, images: np.ndarray, classes: int, request: Request) -> np.ndarray:
        answer = self.ask("r", request.pack(model, images, all_exits=True))
        assert STATUSES[answer[0]] == "OK", STATUSES[answer[0]]
        return np.frombuffer(answer, np.float32, offset=1).reshape(-1, len(images), classes)
